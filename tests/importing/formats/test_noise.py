"""Noise values, judged by masks with noise of a known kind."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from segline.importing.formats.census import Census, counts_of
from segline.importing.formats.masks import guess
from segline.importing.layout import ImportOptions, LayoutError, MaskSource

Masks = list[np.ndarray]


def census(masks: Iterable[np.ndarray]) -> Census:
    return Census.of(
        counts_of(MaskSource(Path(f"{index}.png"), lambda array=array: array)) for index, array in enumerate(masks)
    )


def areas(values: Iterable[int], count: int = 4, side: int = 96, dtype: type = np.uint8) -> Masks:
    """Masks with two discs of each value, at random places."""
    masks = []
    rows, columns = np.mgrid[:side, :side]
    for seed in range(count):
        rng, mask = np.random.default_rng(seed), np.zeros((side, side), dtype)
        for value in [*values, *values]:
            y, x = rng.integers(8, side - 8, 2)
            mask[(rows - y) ** 2 + (columns - x) ** 2 < rng.integers(4, 12) ** 2] = value
        masks.append(mask)
    return masks


def scattered(mask: np.ndarray, value: int, count: int = 5, seed: int = 0) -> np.ndarray:
    found = mask.copy()
    rng = np.random.default_rng(seed)
    found[rng.integers(0, mask.shape[0], count), rng.integers(0, mask.shape[1], count)] = value
    return found


def jpeg(mask: np.ndarray, quality: int) -> np.ndarray:
    data = io.BytesIO()
    Image.fromarray(mask).save(data, "JPEG", quality=quality)
    return np.array(Image.open(data))


def resized(mask: np.ndarray, factor: float, how: Image.Resampling) -> np.ndarray:
    side = round(mask.shape[0] * factor)
    return np.array(Image.fromarray(mask).resize((side, side), how))


def first_only(masks: Masks, change: Callable[[np.ndarray], np.ndarray]) -> Masks:
    return [change(masks[0]), *masks[1:]]


@pytest.mark.parametrize("drawn", [[255], [128], [100], [85, 170, 255], [60, 120, 180, 240]])
@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda mask: jpeg(mask, 100),
        lambda mask: jpeg(mask, 95),
        lambda mask: jpeg(mask, 60),
        lambda mask: resized(mask, 0.7, Image.Resampling.BILINEAR),
        lambda mask: resized(mask, 1.9, Image.Resampling.BILINEAR),
        lambda mask: resized(mask, 1.5, Image.Resampling.LANCZOS),
        lambda mask: np.rint(ndimage.gaussian_filter(mask + 0.0, 0.6)).astype(np.uint8),
        lambda mask: scattered(mask, int(mask.max()) - 1),
        lambda mask: scattered(mask, 1),
        lambda mask: np.where((mask == mask.max()) & (np.indices(mask.shape)[1] < 20), mask.max() - 1, mask),
    ],
)
def test_noise_is_not_a_class(drawn: list[int], everywhere: bool, change: Callable[[np.ndarray], np.ndarray]) -> None:
    masks = areas(drawn)
    noisy = [change(mask) for mask in masks] if everywhere else first_only(masks, change)
    if set(np.unique(noisy[0])) <= {0, *drawn}:
        return
    with pytest.raises(LayoutError, match=r"--threshold|--colours"):
        guess(census(noisy), ImportOptions())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 3, 252, 253, 254]), min_size=1, max_size=4, unique=True),
    st.integers(1, 6),
    st.sampled_from([1, 257]),
)
def test_a_few_pixels_near_black_and_white_are_refused_by_value(noise: list[int], pixels: int, scale: int) -> None:
    dtype = np.uint8 if scale == 1 else np.uint16
    masks = [mask.astype(dtype) * scale for mask in areas([255])]
    for index, value in enumerate(noise):
        masks[index % len(masks)][10, 3 * index : 3 * index + pixels] = value * scale
    with pytest.raises(LayoutError) as refused:
        guess(census(masks), ImportOptions())
    assert f"--threshold {127 if scale == 1 else 255 * scale // 2}" in str(refused.value) or "--ignore 255" in str(
        refused.value
    )


@pytest.mark.parametrize("labels", [None, "classes", "boundaries", "instances"])
def test_noise_is_refused_with_any_labels_option(labels: str | None) -> None:
    masks = [scattered(scattered(mask, 254), 1, seed=1) for mask in areas([255])]
    with pytest.raises(LayoutError, match=r"\.png: the masks hold the values 0, 1, 254, 255, but .*--threshold 127"):
        guess(census(masks), ImportOptions(labels=labels))  # type: ignore[arg-type]


def test_noise_that_is_named_is_a_class() -> None:
    masks = [scattered(scattered(mask, 254), 1, seed=1) for mask in areas([255])]
    meaning = guess(census(masks), ImportOptions(names={1: "dust", 2: "scratch"}))
    assert meaning.names == {0: "background", 1: "dust", 2: "scratch", 3: "class 3"}


@pytest.mark.parametrize("count", [3, 4000])
@pytest.mark.parametrize("small", [[1], [1, 2], [1, 2, 3]])
def test_255_is_not_ignored_by_guess(count: int, small: list[int]) -> None:
    masks = areas(small)
    masks[0].flat[:count] = 255
    with pytest.raises(LayoutError, match="--ignore 255"):
        guess(census(masks), ImportOptions())
    assert len(guess(census(masks), ImportOptions(ignore=255)).names) == len(small) + 1
    foreground = [scattered(mask, value) for mask in areas([255]) for value in small]
    with pytest.raises(LayoutError, match="--threshold 127"):
        guess(census(foreground), ImportOptions())


@pytest.mark.parametrize("values", [[1], [1, 2], [1, 3]])
def test_specks_of_a_further_small_value_are_refused(values: list[int]) -> None:
    masks = first_only(areas(values), lambda mask: scattered(mask, 5, 4))
    with pytest.raises(LayoutError, match=r"5 \(4 px\) is rare .*to keep this value as a class, add --class 5=NAME"):
        guess(census(masks), ImportOptions())
    assert guess(census(masks), ImportOptions(names={3: "a", 4: "b", 5: "speck"})).names[5] == "speck"


def crack(mask: np.ndarray, value: int, width: int = 1) -> np.ndarray:
    found = mask.copy()
    for x in range(10, 60):
        found[40 + x // 7 : 40 + x // 7 + width, x] = value
    return found


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize(
    ("drawn", "rare"), [([1, 2], 3), ([1], 2), ([2, 3], 1), ([100, 200], 50), ([128, 255], 60), ([85, 170, 255], 130)]
)
def test_a_rare_class_of_lines_or_spots_is_a_class(width: int, drawn: list[int], rare: int) -> None:
    masks = areas(drawn, 20)
    masks[0][30:], masks[1][30:] = 0, 0
    masks[0] = crack(masks[0], rare, width)
    masks[1][60:63, 60:63] = rare
    assert guess(census(masks), ImportOptions()).labels == "classes"


@pytest.mark.parametrize(
    "masks",
    [
        areas([1, 2, 3, 4, 5]),
        areas([50, 100, 150, 200, 250]),
        areas([85, 170, 255]),
        areas([0x1000, 0x2000], dtype=np.uint16),
        areas(range(1, 20)),
    ],
)
def test_clean_classes_are_taken(masks: Masks) -> None:
    meaning = guess(census(masks), ImportOptions())
    assert meaning.labels == "classes"
    assert len(meaning.names) == len(np.unique(masks))


def test_a_ring_between_two_values_is_a_class() -> None:
    """Background 0, border 128 two pixels wide, cell 255: the border is all edge, but it is drawn."""
    masks = []
    for mask in areas([255]):
        cells = mask > 0
        masks.append(
            np.where(cells, np.where(ndimage.binary_erosion(cells, iterations=2), 255, 128), 0).astype(np.uint8)
        )
    assert len(guess(census(masks), ImportOptions()).names) == 3


@pytest.mark.parametrize("top", [40, 250, 3000])
@pytest.mark.parametrize("side", [1, 2, 5])
def test_objects_of_any_size_are_not_noise(top: int, side: int) -> None:
    masks = []
    for seed in range(4):
        ids = np.random.default_rng(seed).choice(top, 36, replace=False) + 1
        mask = np.zeros((60, 60), np.uint16)
        for place, number in enumerate(ids):
            y, x = divmod(place, 6)
            mask[10 * y : 10 * y + side, 10 * x : 10 * x + side + place % 3] = number
        masks.append(mask)
    assert guess(census(masks), ImportOptions(labels="instances")).labels == "instances"
    if side > 1:
        assert guess(census(masks), ImportOptions()).labels == "instances"
