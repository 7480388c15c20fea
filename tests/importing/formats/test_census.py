"""Statistics of masks, judged by scipy and by counting all masks at once."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from segline.importing.formats.census import Census, counts_of, pixel_counts
from segline.importing.layout import MaskSource


def mask(array: np.ndarray, name: str = "a.png") -> MaskSource:
    return MaskSource(Path(name), lambda: array)


def test_counts_of_a_small_mask() -> None:
    found = counts_of(mask(np.array([[1, 0, 1, 2], [0, 0, 2, 2], [3, 0, 0, 0]], np.uint8)))
    assert found.pixels == {0: 6, 1: 2, 2: 3, 3: 1}
    assert (found.whole, found.pieces, found.net, found.blurred) == (2, 3, 1, 3)
    assert found.share == 0.5


@settings(max_examples=30)
@given(arrays(np.uint8, (7, 9), elements=st.integers(0, 5)))
def test_counts_equal_those_of_scipy(array: np.ndarray) -> None:
    found = counts_of(mask(array))
    assert found.pieces == ndimage.label(array)[1]
    assert found.whole == sum(ndimage.label(array == value)[1] == 1 for value in np.unique(array) if value)
    padded = np.pad(array.astype(int), 1, constant_values=-1)
    around = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
    alone = (around != array).all(axis=0)
    before, after = around[[0, 2]], around[[1, 3]]
    inside = (before >= 0) & (after >= 0)
    rising = (inside & ((before < array) & (array < after) | (before > array) & (array > after))).any(axis=0)
    assert found.blurred == np.count_nonzero((array > 0) & (alone | rising))


@settings(max_examples=20)
@given(arrays(np.int32, (4, 5), elements=st.integers(0, 2**31 - 1)))
def test_values_beyond_16_bits_are_counted(array: np.ndarray) -> None:
    values, counts = np.unique(array, return_counts=True)
    assert pixel_counts(array) == dict(zip(values.tolist(), counts.tolist(), strict=True))
    small = array % 7
    values, counts = np.unique(small, return_counts=True)
    assert pixel_counts(small) == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_census_is_the_sum() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 4, (8, 8)).astype(np.uint8) for _ in range(5)]
    census = Census.of(counts_of(mask(array, f"{index}.png")) for index, array in enumerate(masks))
    everything = np.stack(masks)
    assert census.masks == 5 and census.first == Path("0.png")
    assert census.pixels == pixel_counts(everything)
    assert census.share / 5 == np.count_nonzero(everything) / everything.size
    soft = [np.count_nonzero(array) for array in masks]
    assert census.softest == (max(soft), Path(f"{np.argmax(soft)}.png"))


def test_the_census_of_many_ids_stays_small() -> None:
    ids = np.arange(1, 40_001).reshape(200, 200)
    census = Census.of(counts_of(mask(ids + 40_000 * index)) for index in range(5))
    assert len(census.pixels) <= 2 * 65_536
