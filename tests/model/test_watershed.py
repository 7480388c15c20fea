"""Test the watershed: independent of the number of rows per band, and compared with scikit-image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from skimage.measure import label
from skimage.morphology import h_maxima, local_maxima, reconstruction
from skimage.segmentation import watershed

from segline.model.images import ImageError
from segline.model.watershed import Watershed

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
LANDSCAPES = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=10), elements=st.integers(-1, 6))


def objects(heights: np.ndarray, step: int, rows: int, lowest: int = 0, neck: float = 0.0) -> np.ndarray:
    """Find the objects (H, W) of a landscape, added `rows` at a time; 0 where the landscape is negative."""
    padded = np.pad(heights, ((1, 1), (0, 0)), constant_values=-1).astype(np.int32)
    subject = Watershed()
    ids = [subject.add(padded[top : min(top + rows, len(heights)) + 2]) for top in range(0, len(heights), rows)]
    return subject.objects(step, lowest, neck)[np.concatenate(ids)]


def numbered(parts: np.ndarray) -> np.ndarray:
    """Number the parts by their first pixels, row by row."""
    _, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].reshape(parts.shape)


@settings(max_examples=300)
@given(LANDSCAPES, st.integers(0, 4), st.integers(1, 9), st.integers(0, 3))
def test_the_number_of_rows_per_band_changes_nothing(heights: np.ndarray, step: int, rows: int, lowest: int) -> None:
    whole, banded = objects(heights, step, len(heights), lowest), objects(heights, step, rows, lowest)
    np.testing.assert_array_equal(numbered(whole), numbered(banded))


@settings(max_examples=300)
@given(LANDSCAPES, st.integers(0, 4))
def test_there_are_as_many_objects_as_extended_maxima(heights: np.ndarray, step: int) -> None:
    """Each extended maximum of scikit-image lies in exactly one object."""
    segmented = objects(heights, step, 3)
    np.testing.assert_array_equal(segmented > 0, heights >= 0)
    ground = np.pad(heights, 1, constant_values=-1) * 2  # in halves, for a step between two whole numbers
    ground[ground < 0] = floor = -2 * step - 9
    flooded = reconstruction(np.maximum(ground - 2 * step - 1, floor), ground, footprint=CROSS)
    peaks = label(local_maxima(flooded, connectivity=1)[1:-1, 1:-1] & (heights >= 0), connectivity=1)
    pairs = {pair for pair in zip(peaks.ravel().tolist(), segmented.ravel().tolist(), strict=True) if pair[0]}
    assert (
        len(pairs) == peaks.max() == len({object_ for _, object_ in pairs}) == len(np.unique(segmented[segmented > 0]))
    )
    for number in np.unique(segmented[segmented > 0]):
        assert label(segmented == number, connectivity=1).max() == 1


@pytest.mark.parametrize("seed", range(5))
def test_objects_agree_with_scikit_image(seed: int) -> None:
    """scikit-image breaks ties by the order of its queue, so lines may differ on level ground."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(200, 300)), 5)
    heights = np.rint(1000 * smooth / smooth.std()).astype(np.int32) + 1000
    heights[heights < 0] = -1
    ours = objects(heights, 200, 64)
    peaks = label(h_maxima(np.maximum(heights, -1), 201, footprint=CROSS), connectivity=1) * (heights >= 0)
    theirs = watershed(-heights, peaks, connectivity=1, mask=heights >= 0)
    mapped = np.zeros(peaks.max() + 1, np.int64)
    mapped[peaks] = ours
    assert (mapped[theirs] == ours)[heights >= 0].mean() > 0.99


@settings(max_examples=300)
@given(LANDSCAPES, st.integers(0, 4), st.integers(0, 5))
def test_below_the_lowest_height_objects_grow_but_do_not_change(heights: np.ndarray, step: int, lowest: int) -> None:
    """From this height on, the objects are those of a landscape without the rest; what is lower joins one of them."""
    segmented = objects(heights, step, 3, lowest)
    above = heights >= lowest
    np.testing.assert_array_equal(
        numbered(np.where(above, segmented, 0)), numbered(objects(np.where(above, heights, -1), step, 3))
    )
    np.testing.assert_array_equal(segmented > 0, heights >= 0)
    parts = label(heights >= 0, connectivity=1)
    alone = set(np.unique(parts[parts > 0])) - set(np.unique(parts[above]))
    assert len(np.unique(segmented[segmented > 0])) == len(np.unique(segmented[above & (segmented > 0)])) + len(alone)
    for number in np.unique(segmented[segmented > 0]):
        assert label(segmented == number, connectivity=1).max() == 1


def test_more_ids_than_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segline.model.watershed.LARGEST_ID", 3)
    spots = np.where(np.indices((5, 5)).sum(axis=0) % 2 == 0, 7, -1)
    with pytest.raises(ImageError, match="the image has more than 3 separate parts; cut the image"):
        objects(spots, 1, 5)


def rises(heights: np.ndarray) -> list[tuple[int, int]]:
    """Return each peak's height, and its rise above the highest path to a higher peak, by flooding level by level."""
    found, known, peak_of = [], np.zeros(heights.shape, int), [0]
    for level in range(heights.max(), -1, -1):
        islands = label(heights >= level, connectivity=1)
        merged = np.zeros_like(known)
        for number in range(1, islands.max() + 1):
            inside = islands == number
            peaks = sorted(set(known[inside]) - {0}, key=lambda peak: (-peak_of[peak], peak))
            if not peaks:
                peak_of.append(level)
                peaks = [len(peak_of) - 1]
            found += [(peak_of[peak], peak_of[peak] - level) for peak in peaks[1:]]
            merged[inside] = peaks[0]
        known = merged
    alone = set(known.ravel()) - {0}
    return found + [(peak_of[peak], peak_of[peak] + 9) for peak in alone]


@settings(max_examples=300)
@given(LANDSCAPES, st.integers(0, 3), st.sampled_from([0.0, 0.2, 0.34, 0.5, 0.9]))
def test_a_neck_is_judged_by_the_height_of_the_lower_peak(heights: np.ndarray, step: int, neck: float) -> None:
    segmented = objects(heights, step, 3, neck=neck)
    expected = sum(rise > max(step, neck * peak) for peak, rise in rises(heights))
    assert len(np.unique(segmented[segmented > 0])) == expected
