"""What masks are taken for, judged by masks whose meaning is known."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from segline.data import files
from segline.data.dataset import IGNORE
from segline.data.formats import LayoutError
from segline.data.formats.masks import Facts, Meaning, facts_of, guess


def facts(folder: Path, masks: Iterable[np.ndarray]) -> list[Facts]:
    found = []
    for index, mask in enumerate(masks):
        files.write_png(folder / f"{index}.png", mask)
        found.append(facts_of(folder / f"{index}.png"))
    return found


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


def semantic() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 3, (16, 16)).astype(np.uint8).repeat(4, 0).repeat(4, 1) for _ in range(4)]


def test_facts_are_counts(tmp_path: Path) -> None:
    mask = np.array([[1, 0, 1, 2], [0, 0, 2, 2], [3, 0, 0, 0]], np.uint8)
    (found,) = facts(tmp_path, [mask])
    assert found.pixels == {0: 6, 1: 2, 2: 3, 3: 1}
    assert (found.whole, found.pieces, found.bits, found.net) == (2, 3, 8, 1)


@pytest.mark.parametrize(
    ("masks", "kind", "why"),
    [
        (discs([5, 9, 30]), "instances", "hold 30 ids"),
        (discs([320]), "instances", "hold 320 ids"),
        (discs([5, 9, 3]), "instances", "numbers its objects 1 to n"),
        (semantic(), "classes", "share the few values 0, 1, 2"),
        (discs([2, 2, 2, 2]), "classes", "few values"),  # cytoplasm and nucleus, say
        ([np.where(mask > 0, 3, 0).astype(np.uint8) for mask in discs([2, 4])] + semantic(), "classes", "few values"),
        (discs([12, 20], value=255), "classes", "0, 255 only"),
        (discs([12, 20], value=1), "classes", "0, 1 only"),
        ([net(), net()], "boundaries", "connected net around 36 pieces"),
        ([net(1)], "boundaries", "connected net"),
        ([255 - net()], "classes", "areas, not objects"),
    ],
)
def test_guess(tmp_path: Path, masks: list[np.ndarray], kind: str, why: str) -> None:
    meaning = guess(facts(tmp_path, masks))
    assert meaning.labels == kind
    assert why in meaning.reasons[0]
    assert "say --labels" in meaning.reasons[0]


def tables(meaning: Meaning) -> tuple[dict[int, str], dict[int, int] | None]:
    return dict(meaning.classes), None if meaning.class_of is None else dict(meaning.class_of)


def test_values_become_classes(tmp_path: Path) -> None:
    binary = facts(tmp_path, discs([3], value=255))
    assert tables(guess(binary)) == ({0: "background", 1: "object"}, {0: 0, 255: 1})
    assert tables(guess(binary, "boundaries")) == ({0: "border", 1: "cell"}, {0: 0, 255: 1})
    assert tables(guess(binary, "instances")) == ({0: "background", 1: "object"}, None)
    assert guess(binary, "instances").joined
    greys = facts(tmp_path, [np.array([[0, 100, 200]], np.uint8)])
    assert tables(guess(greys)) == ({0: "background", 1: "class 1", 2: "class 2"}, {0: 0, 100: 1, 200: 2})
    hole = facts(tmp_path, [np.array([[0, 1, 3, 0, 1]], np.uint8)])
    assert tables(guess(hole, names={3: "fibre", 4: "rare"})) == (
        {0: "background", 1: "class 1", 2: "class 2", 3: "fibre", 4: "rare"},
        {0: 0, 1: 1, 2: 2, 3: 3, 4: 4},
    )


def test_255_beside_few_classes_does_not_count(tmp_path: Path) -> None:
    masks = semantic()
    masks[0][:8] = 255
    meaning = guess(facts(tmp_path, masks))
    assert tables(meaning) == (
        {0: "background", 1: "class 1", 2: "class 2"},
        {0: 0, 1: 1, 2: 2, 255: IGNORE},
    )
    assert "mask value 255 do not count" in meaning.reasons[-1]
    assert tables(guess(facts(tmp_path, semantic()), ignore=2))[1] == {0: 0, 1: 1, 2: IGNORE}


def _soft() -> np.ndarray:
    mask = discs([9], value=255)[0]
    mask[0, :4], mask[3, :4], mask[1, 6] = 170, 90, 30
    return mask


@pytest.mark.parametrize(
    ("masks", "flags", "says"),
    [
        ([np.zeros((9, 9), np.uint8)], {}, r"no mask holds anything but 0, .*0\.png"),
        ([*discs([3], value=255), _soft()], {}, r"1\.png: 9 pixels are grey"),
        (semantic(), {"labels": "boundaries"}, "two values, border and cell; these hold 0, 1, 2"),
        (discs([320]), {"labels": "classes"}, "321 classes are too many"),
        (discs([30]), {"names": {2: "nucleus"}}, "instance masks know class 0 and 1 only"),
        (discs([30]), {"ignore": 7}, "--ignore 7"),
        (discs([3], value=255), {"names": {2: "nucleus"}}, "there is no such class; there are 0, 1"),
    ],
)
def test_refusals(tmp_path: Path, masks: list[np.ndarray], flags: dict[str, object], says: str) -> None:
    found = facts(tmp_path, masks)
    with pytest.raises(LayoutError, match=says):
        guess(found, **flags)  # type: ignore[arg-type]


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
    meaning = guess([facts_of(file) for file in sorted((shared_data(name) / "masks").iterdir())])
    assert (meaning.labels, len(meaning.classes)) == (labels, classes)


def test_real_soft_masks_are_refused(shared_data) -> None:  # type: ignore[no-untyped-def]
    masks = sorted((shared_data("magnetic_tile") / "masks_raw").iterdir())
    with pytest.raises(LayoutError, match="anti-aliased"):
        guess([facts_of(file) for file in masks[:100]])
