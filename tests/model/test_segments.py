import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.segmentation import watershed

from segline.model.objects import cut, segments, thin


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_segments_are_the_components_of_scipy(cells: np.ndarray) -> None:
    ours, theirs = segments(cells), ndimage.label(cells)[0]
    assert ours.dtype == np.int32
    pairs = set(zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True))
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    assert np.array_equal(ours > 0, cells)


def test_segments_touch_by_their_sides_only() -> None:
    assert segments(np.array([[1, 0, 1], [0, 1, 1]], bool)).tolist() == [[1, 0, 2], [0, 2, 2]]


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_thinning_grows_every_segment_and_joins_none(cells: np.ndarray) -> None:
    seeds, grown = segments(cells), thin(cells.astype(np.float32), 0.5)
    assert grown.dtype == np.int32
    assert np.array_equal(grown[cells], seeds[cells])
    for number in range(1, seeds.max() + 1):
        assert segments(grown == number).max() == 1
    for y, x in np.ndindex(grown.shape):
        touched = [grown[v, u] for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)) if inside(grown, v, u)]
        others = set(touched) - {0, grown[y, x]}
        if grown[y, x]:
            assert not others, "segments are parted"
        else:
            assert len(others) != 1, "the line is one pixel wide"


def inside(image: np.ndarray, y: int, x: int) -> bool:
    return 0 <= y < image.shape[0] and 0 <= x < image.shape[1]


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)), st.floats(0, 1))
def test_a_cut_divides_segments_and_joins_none(cells: np.ndarray, neck: float) -> None:
    parts, whole = cut(cells, neck), segments(cells)
    assert np.array_equal(parts, segments(parts > 0)), "a line parts all that a cut divides"
    assert not (parts[~cells]).any()
    assert {whole[parts == number].min() for number in range(1, parts.max() + 1)} == set(range(1, whole.max() + 1))


@pytest.mark.parametrize("half", [8, 20])
@pytest.mark.parametrize(("neck", "number"), [(0.3, 2), (0.9, 1)])
def test_a_neck_is_measured_in_half_widths_of_the_cell(half: int, neck: float, number: int) -> None:
    """Two squares are joined by a bridge half as wide as they are: its depth is half their half width."""
    cells = np.zeros((2 * half + 11, 6 * half + 10), bool)
    cells[5 : 5 + 2 * half, 5 : 5 + 2 * half] = cells[5 : 5 + 2 * half, 5 + 4 * half : 5 + 6 * half] = True
    cells[5 + half // 2 : 5 + half // 2 + half, 5 : 5 + 6 * half] = True
    assert cut(cells, neck).max() == number
    assert thin(cells.astype(np.float32), 0.5, neck).max() == number
    assert thin(cells.astype(np.float32), 0.5).max() == 1


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.6])
def test_thinning_agrees_with_scikit_image_beside_the_line(threshold: float) -> None:
    probability = cv2.GaussianBlur(np.random.default_rng(3).random((160, 130), dtype=np.float32), (0, 0), 2)
    probability = (probability - probability.min()) / (probability.max() - probability.min())
    seeds, grown = segments(probability > threshold), thin(probability, threshold)
    expected = watershed(np.zeros(seeds.shape, np.uint8), seeds, watershed_line=True)
    away = ndimage.minimum_filter((expected > 0) & (grown > 0), 3)
    assert np.mean(grown[away] == expected[away]) > 0.998
    assert np.sum(grown == 0) == pytest.approx(np.sum(expected == 0), rel=0.05)


@pytest.mark.parametrize("width", [1, 3, 5, 9])
def test_a_border_is_thinned_to_its_middle(width: int) -> None:
    probability = np.ones((6, 20 + width), np.float32)
    probability[:, 10 : 10 + width] = 0.2
    line = np.flatnonzero(thin(probability, 0.5)[3] == 0)
    assert line.tolist() == [10 + width // 2]


def test_borders_that_part_nothing_vanish() -> None:
    probability = np.ones((9, 9), np.float32)
    probability[4, :6] = 0  # comes in from the rim and ends inside
    probability[6:8, 7] = 0  # an island
    assert thin(probability, 0.5).tolist() == np.ones((9, 9), int).tolist()


def test_thresholds_at_the_ends() -> None:
    probability = np.array([[0.1, 1.0]], np.float32)
    assert thin(probability, 1.0).tolist() == [[0, 0]]
    assert thin(probability, 0.0).tolist() == [[1, 1]]


def test_a_threshold_is_the_same_number_from_numpy_and_from_a_file() -> None:
    # float32 0.1 is above float64 0.1: the comparison must not depend on the type that the threshold came in.
    probability = np.array([[0.1, 0.0]], np.float32)
    assert thin(probability, 0.1).max() == thin(probability, np.float64(0.1)).max() == 0
