"""The guessed meaning of masks, judged by masks whose meaning is known."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from segline.data.dataset import IGNORE
from segline.importing.formats.census import Census, counts_of
from segline.importing.formats.masks import Meaning, guess, of_named
from segline.importing.formats.pixels import numbers
from segline.importing.layout import ImportOptions, LayoutError, MaskSource


def census(masks: Iterable[np.ndarray]) -> Census:
    return Census.of(counts_of(mask_of(array, f"{index}.png")) for index, array in enumerate(masks))


def mask_of(array: np.ndarray, name: str = "a.png") -> MaskSource:
    return MaskSource(Path(name), lambda: array)


def discs(counts: Iterable[int], value: int | None = None, side: int = 96) -> list[np.ndarray]:
    """Masks with so many 4 x 4 squares, numbered, or all of one value."""
    masks = []
    for count in counts:
        mask = np.zeros((side, side), np.uint8 if count < 256 else np.uint16)
        for number in range(count):
            y, x = divmod(number, side // 5)
            mask[5 * y : 5 * y + 4, 5 * x : 5 * x + 4] = number + 1 if value is None else value
        masks.append(mask)
    return masks


def net(value: int = 255) -> np.ndarray:
    mask = np.full((64, 64), value, np.uint8)
    mask[::12], mask[:, ::12] = 0, 0
    return mask


def many_classes(lowest: int) -> np.ndarray:
    """17 of many classes, each in several pieces."""
    return np.random.default_rng(lowest).integers(lowest, lowest + 17, (16, 16)).astype(np.uint8)


def semantic() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 3, (16, 16)).astype(np.uint8).repeat(4, 0).repeat(4, 1) for _ in range(4)]


@pytest.mark.parametrize(
    ("masks", "kind", "why"),
    [
        (discs([5, 9, 30]), "instances", "hold 30 different ids"),
        (discs([320]), "instances", "hold 320 different ids"),
        (discs([5, 9, 3]), "instances", "numbers its objects 1 to n"),
        (semantic(), "classes", "share the few values 0, 1, 2"),
        (discs([2, 2, 2, 2]), "classes", "few values"),  # cytoplasm and nucleus, say
        ([np.where(mask > 0, 3, 0).astype(np.uint8) for mask in discs([2, 4])] + semantic(), "classes", "few values"),
        (discs([12, 20], value=255), "classes", "0, 255"),
        (discs([12, 20], value=1), "classes", "hold only the values 0, 1"),
        ([net(), net()], "boundaries", "connected net around 36 components"),
        ([net(1)], "boundaries", "connected net"),
        ([255 - net()], "classes", "areas rather than single objects"),
        ([many_classes(0), many_classes(17)], "classes", "several components"),
    ],
)
def test_guess(masks: list[np.ndarray], kind: str, why: str) -> None:
    meaning = guess(census(masks), ImportOptions())
    assert meaning.labels == kind
    assert why in meaning.reasons[0]
    assert "add --labels" in meaning.reasons[0]


def tables(meaning: Meaning) -> tuple[dict[int, str], dict[int, int] | None]:
    return dict(meaning.names), None if meaning.class_of is None else dict(meaning.class_of)


def test_values_become_classes() -> None:
    binary = census(discs([3], value=255))
    assert tables(guess(binary, ImportOptions())) == ({0: "background", 1: "object"}, {0: 0, 255: 1})
    assert tables(guess(binary, ImportOptions(labels="boundaries"))) == ({0: "border", 1: "cell"}, {0: 0, 255: 1})
    assert tables(guess(binary, ImportOptions(labels="instances"))) == ({0: "background", 1: "object"}, None)
    assert guess(binary, ImportOptions(labels="instances")).label_components
    greys = census([np.array([[0, 100, 200]], np.uint8).repeat(3, 0).repeat(2, 1)])
    assert tables(guess(greys, ImportOptions())) == (
        {0: "background", 1: "class 1", 2: "class 2"},
        {0: 0, 100: 1, 200: 2},
    )
    hole = census([np.array([[0, 1, 3, 0, 1]], np.uint8)])
    assert tables(guess(hole, ImportOptions(names={3: "fibre", 4: "rare"}))) == (
        {0: "background", 1: "class 1", 2: "class 2", 3: "fibre", 4: "rare"},
        {0: 0, 1: 1, 2: 2, 3: 3, 4: 4},
    )


@pytest.mark.parametrize("rows", [8, 1])
def test_255_beside_few_classes_needs_an_option(rows: int) -> None:
    masks = semantic()
    masks[0][:rows] = 255
    expected = (
        rf"255 \({64 * rows} px\); of all masks, .*\.png has the most pixels with the value 255\. "
        r"If 255 marks ignored pixels, add --ignore 255\."
    )
    with pytest.raises(LayoutError, match=expected):
        guess(census(masks), ImportOptions())
    meaning = guess(census(masks), ImportOptions(ignore=255))
    assert tables(meaning) == (
        {0: "background", 1: "class 1", 2: "class 2"},
        {0: 0, 1: 1, 2: 2, 255: IGNORE},
    )
    assert "mask value 255 are ignored" in meaning.reasons[-1]
    assert tables(guess(census(semantic()), ImportOptions(ignore=2)))[1] == {0: 0, 1: 1, 2: IGNORE}


def _soft() -> np.ndarray:
    mask = discs([9], value=255)[0]
    mask[0, :4], mask[3, :4], mask[1, 6] = 170, 90, 30
    return mask


@pytest.mark.parametrize(
    ("masks", "flags", "message"),
    [
        (
            [np.zeros((9, 9), np.uint8)],
            {},
            r"no mask holds a pixel other than 0; are these the right masks\? The first mask is 0\.png",
        ),
        ([*discs([3], value=255), _soft()], {}, r"1\.png: 9 pixels are grey"),
        (
            semantic(),
            {"labels": "boundaries"},
            "two values, for border and cell, but these masks hold the values 0, 1, 2",
        ),
        (
            discs([320]),
            {"labels": "classes"},
            "the masks hold 321 classes including background, but segline supports at most 255",
        ),
        (discs([30]), {"names": {2: "nucleus"}}, "instance masks have only the classes 0 and 1"),
        (discs([30]), {"ignore": 7}, "--ignore 7"),
        (discs([3], value=255), {"names": {2: "nucleus"}}, "there is no such class; the classes are 0, 1"),
        (
            semantic(),
            {"names": {7: "x"}},
            (
                r"--class 7: the masks hold the values 0, 1, 2\. Class ids must have no gaps, so name the classes "
                "3, 4, 5, 6 too, or leave out"
            ),
        ),
        (semantic(), {"names": {3: "x", 5: "y"}}, "--class 5: .* name the classes 4 too"),
    ],
)
def test_refusals(masks: list[np.ndarray], flags: dict[str, object], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        guess(census(masks), ImportOptions(**flags))  # type: ignore[arg-type]


def test_a_line_of_greys_is_a_soft_edge() -> None:
    """A crack of one pixel is all edge: no pixel reaches 255 but few."""
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), np.uint8)
    mask[range(64), range(64)] = rng.integers(60, 200, 64)
    mask[0, 0] = 255
    with pytest.raises(LayoutError, match="63 pixels are grey"):
        guess(census([mask]), ImportOptions())


def rectangles(seed: int, values: Iterable[int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((96, 96), np.uint8)
    for value in values:
        (y, x), (height, width) = rng.integers(0, 80, 2), rng.integers(3, 24, 2)
        mask[y : y + height, x : x + width] = value
    return mask


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1, 1.5, 2])
def test_blurred_masks_are_refused(sigma: float) -> None:
    masks = [np.rint(ndimage.gaussian_filter(rectangles(seed, [255] * 4) + 0.0, sigma)) for seed in range(4)]
    counts = [np.count_nonzero((mask > 0) & (mask < 255)) for mask in masks]
    message = rf"{np.argmax(counts)}\.png: {max(counts)} pixels are grey.*blurred.*--threshold 127"
    with pytest.raises(LayoutError, match=message):
        guess(census(mask.astype(np.uint8) for mask in masks), ImportOptions())


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([85, 170, 255], "classes"),
        ([128, 255], "classes"),
        (range(20), "classes"),
        (range(0, 240, 12), "classes"),
        (range(1, 200), "instances"),
    ],
)
def test_grey_areas_are_not_taken_for_blur(values: Iterable[int], kind: str) -> None:
    assert guess(census(rectangles(seed, [*values, *values]) for seed in range(4)), ImportOptions()).labels == kind


def test_absent_classes_and_values_are_reported() -> None:
    meaning = guess(census(semantic()), ImportOptions(ignore=77, names={3: "rare"}))
    assert meaning.names[3] == "rare"
    assert meaning.reasons[-2:] == ("no mask holds class 3", "--ignore 77: no mask holds the value 77")
    hole = census([np.kron(np.array([[0, 1, 3]], np.uint8), np.ones((4, 4), np.uint8))])
    assert "no mask holds class 2" in guess(hole, ImportOptions()).reasons
    trimap = guess(census([np.kron(np.array([[1, 2, 3]], np.uint8), np.ones((4, 4), np.uint8))]), ImportOptions())
    assert trimap.reasons[-1].startswith("no mask holds background, class 0; if one of the values is background")
    masks = census([np.array([[0, 1]], np.uint8)])
    found = of_named(masks, ImportOptions(ignore=9), {0: "", 1: "red", 2: "blue"})
    assert found.reasons[-2] == "no mask holds class 2"
    assert found.reasons[-1].startswith(
        "--ignore 9: no mask holds the value 9; in the table of --colours, give ignored colours"
    )


def test_two_foreground_values_in_different_masks_are_refused() -> None:
    masks = [*discs([3], value=1), *discs([4], value=255)]
    with pytest.raises(
        LayoutError,
        match=r"If 255 and 1 mean the same class in different masks, use one value in all masks\. .*--ignore 255",
    ):
        guess(census(masks), ImportOptions())
    assert guess(census(masks), ImportOptions(ignore=255)).names == {0: "background", 1: "object"}


@pytest.mark.parametrize(
    ("name", "labels", "classes"),
    [
        ("isbi2012", "boundaries", 2),
        ("dsb2018", "instances", 2),
        ("wbc", "classes", 3),
        ("magnetic_tile", "classes", 6),
    ],
)
def test_real_masks_need_no_flag(shared_data, name: str, labels: str, classes: int) -> None:  # type: ignore[no-untyped-def]
    meaning = guess(census(map(numbers, sorted((shared_data(name) / "masks").iterdir()))), ImportOptions())
    assert (meaning.labels, len(meaning.names)) == (labels, classes)


def test_real_soft_masks_are_refused(shared_data) -> None:  # type: ignore[no-untyped-def]
    masks = sorted((shared_data("magnetic_tile") / "masks_raw").iterdir())
    with pytest.raises(LayoutError, match="anti-aliased"):
        guess(census(map(numbers, masks[:100])), ImportOptions())


def label_image(first: int, step: int, rows: int = 4, columns: int = 6, side: int = 24) -> np.ndarray:
    """One object in each field of a grid, `side` px, shifted so that crops of the grid may cut it."""
    ids = first + step * np.arange(rows * columns).reshape(rows, columns)
    one = np.zeros((side, side), int)
    one[4:18, 6:20] = 1
    return np.kron(ids, np.ones((side, side), int)) * np.tile(one, (rows, columns))


def crops(image: np.ndarray, side: int, shift: int = 0) -> list[np.ndarray]:
    return [
        image[y : y + side, x : x + side]
        for y in range(shift, image.shape[0] - side + 1, side)
        for x in range(shift, image.shape[1] - side + 1, side)
    ]


@pytest.mark.parametrize(("first", "step"), [(1000, 1), (300, 97), (20_000, 3), (70_000, 11), (250, 40)])
@pytest.mark.parametrize("side", [24, 48])
@pytest.mark.parametrize("count", [None, 2, 6])
def test_crops_of_one_label_image_hold_objects(first: int, step: int, side: int, count: int | None) -> None:
    masks = crops(label_image(first, step, 2, 6), side)[:count]
    assert len(np.unique(masks)) <= 21
    if len(np.unique(masks)) < 4:
        return
    meaning = guess(census(masks), ImportOptions())
    assert meaning.labels == "instances"
    assert "add --labels classes" in meaning.reasons[0]


@pytest.mark.parametrize("first", [1000, 70_000])
def test_crops_that_share_the_objects_on_their_border_hold_objects(first: int) -> None:
    masks = crops(label_image(first, 7, 3, 5), 24, shift=12)
    shared = [value for value in np.unique(masks) if value and sum(value in mask for mask in masks) > 1]
    assert shared and len(np.unique(masks)) <= 21
    assert guess(census(masks), ImportOptions()).labels == "instances"


@pytest.mark.parametrize(("first", "step"), [(1, 1), (3, 1), (50, 17), (10, 10)])
def test_ids_that_may_be_classes_are_asked_for(first: int, step: int) -> None:
    """Classes that come in one image each look like objects cropped from one label image."""
    masks = crops(label_image(first, step, 2, 4), 48)
    with pytest.raises(LayoutError, match="for object ids, add --labels instances; for classes, add --labels classes"):
        guess(census(masks), ImportOptions())
    assert guess(census(masks), ImportOptions(labels="instances")).labels == "instances"
    assert guess(census(masks), ImportOptions(labels="classes")).labels == "classes"


@pytest.mark.parametrize("values", [[1, 2, 3], [85, 170, 255], [1000, 2000, 3000]])
def test_recurring_values_are_classes(values: list[int]) -> None:
    image = label_image(1, 1)
    masks = [
        np.asarray([0, *values])[(mask > 0) * (1 + (mask + place) % 3)] for place, mask in enumerate(crops(image, 48))
    ]
    assert guess(census(masks), ImportOptions()).labels == "classes"


def test_a_class_in_several_pieces_is_a_class() -> None:
    image = label_image(1000, 0, 4, 6)
    masks = [mask + (mask > 0) * place for place, mask in enumerate(crops(image, 48))]
    assert guess(census(masks), ImportOptions()).labels == "classes"
