"""Judges: all pairs of pixels counted, scikit-learn's mutual information, tables made by hand, and ISBI 2012."""

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.stats import rankdata
from skimage.segmentation import watershed
from sklearn.metrics import normalized_mutual_info_score

from segline.score.boundaries import best_thresholds, segments, sweep, thin, v_info, v_rand

pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.int32, shape, elements=st.integers(0, 3))] * 2)
)
Pair = tuple[np.ndarray, np.ndarray]


def counted(truth: np.ndarray, predicted: np.ndarray) -> Pair:
    """The pixels that count, in a row; those on predicted borders get ids of their own."""
    inside = truth > 0
    rows = predicted[inside].astype(np.int64)
    rows[rows == 0] = 1000 + np.arange(np.sum(rows == 0))
    return truth[inside], rows


@given(pairs)
def test_v_rand_counts_all_pairs_of_pixels(pair: Pair) -> None:
    truth, predicted = counted(*pair)
    if not truth.size:
        assert math.isnan(v_rand(*pair))
        return
    same_truth = truth[:, np.newaxis] == truth
    same_predicted = predicted[:, np.newaxis] == predicted
    expected = 2 * np.sum(same_truth & same_predicted) / (np.sum(same_truth) + np.sum(same_predicted))
    assert v_rand(*pair) == expected


@given(pairs)
def test_v_info_agrees_with_scikit_learn(pair: Pair) -> None:
    truth, predicted = counted(*pair)
    if not truth.size:
        assert math.isnan(v_info(*pair))
        return
    expected = normalized_mutual_info_score(truth, predicted, average_method="arithmetic")
    assert v_info(*pair) == pytest.approx(expected, abs=1e-12)


@given(pairs, st.permutations(range(1, 4)), st.permutations(range(1, 4)))
def test_other_ids_change_nothing(pair: Pair, first: list[int], second: list[int]) -> None:
    renamed = np.array([0, *first])[pair[0]], np.array([0, *second])[pair[1]] * 1000
    np.testing.assert_equal(v_rand(*renamed), v_rand(*pair))
    np.testing.assert_equal(v_info(*renamed), v_info(*pair))


@given(pairs)
def test_what_is_predicted_on_a_true_border_does_not_count(pair: Pair) -> None:
    truth, predicted = pair
    other = np.where(truth == 0, 7, predicted)
    np.testing.assert_equal(v_rand(truth, other), v_rand(truth, predicted))
    np.testing.assert_equal(v_info(truth, other), v_info(truth, predicted))


@given(pairs)
def test_truth_as_prediction_is_perfect(pair: Pair) -> None:
    truth = pair[0] + 1
    assert v_rand(truth, truth) == 1
    assert v_info(truth, truth) == 1


def test_a_table_made_by_hand() -> None:
    # n = 10. Segment 1 (6 px) is split 4 + 2; segment 2 (4 px) loses 2 to a line and the others join the piece of 2.
    truth = np.array([[1, 1, 1, 1, 1, 1, 0, 2, 2, 2, 2]])
    predicted = np.array([[5, 5, 5, 5, 9, 9, 9, 9, 9, 0, 0]])
    together = 4**2 + 2**2 + 2**2 + 2  # the 2 singletons once each: z / n = 0.2 / 10 = 2 / n^2
    assert v_rand(truth, predicted) == 2 * together / ((6**2 + 4**2) + (4**2 + 4**2 + 2))
    h_truth = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    h_predicted = -(2 * 0.4 * math.log(0.4) + 2 * 0.1 * math.log(0.1))
    h_both = -(0.4 * math.log(0.4) + 2 * 0.2 * math.log(0.2) + 2 * 0.1 * math.log(0.1))
    information = h_truth + h_predicted - h_both
    assert v_info(truth, predicted) == pytest.approx(2 * information / (h_truth + h_predicted))


def test_nothing_but_border_predicted_makes_every_pixel_a_segment() -> None:
    truth = np.array([[1, 1, 0, 2, 2]])
    nothing = np.zeros_like(truth)
    assert v_rand(truth, nothing) == 2 * 4 / (8 + 4)
    assert v_info(truth, nothing) == pytest.approx(2 * math.log(2) / (math.log(2) + math.log(4)))


def test_one_segment_on_both_sides_agrees_and_one_for_all_says_nothing() -> None:
    one, two = np.ones((1, 4), int), np.array([[1, 1, 2, 2]])
    assert (v_rand(one, one), v_info(one, one)) == (1, 1)
    assert (v_rand(two, one), v_info(two, one)) == (2 * 8 / (8 + 16), 0)


def test_no_true_segment_has_no_score() -> None:
    nothing, one = np.zeros((2, 2), int), np.ones((2, 2), int)
    assert math.isnan(v_rand(nothing, one))
    assert math.isnan(v_info(nothing, one))


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


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.6])
def test_thinning_agrees_with_scikit_image_beside_the_line(threshold: float) -> None:
    (probability,), _ = random_slices(np.random.default_rng(3), [(160, 130)])
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


def random_slices(rng: np.random.Generator, sizes: list[tuple[int, int]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    probabilities = [cv2.GaussianBlur(rng.random(size, dtype=np.float32), (0, 0), 2) for size in sizes]
    probabilities = [(p - p.min()) / (p.max() - p.min()) for p in probabilities]
    return probabilities, [segments(p + rng.normal(0, 0.1, p.shape) > 0.45) for p in probabilities]


def test_sweep_is_the_mean_of_the_slices_at_each_threshold() -> None:
    probabilities, truths = random_slices(np.random.default_rng(0), [(40, 30), (24, 50)])
    thresholds = [0.2, 0.5, 0.8]
    rows = sweep(probabilities, truths, thresholds)
    assert [row["threshold"] for row in rows] == thresholds
    for row in rows:
        thinned = [thin(p, row["threshold"]) for p in probabilities]
        for name, score in (("v_rand", v_rand), ("v_info", v_info)):
            assert row[name] == pytest.approx(np.mean([score(t, s) for t, s in zip(truths, thinned, strict=True)]))
        wrong = [(p > row["threshold"]) != (t > 0) for p, t in zip(probabilities, truths, strict=True)]
        assert row["pixel_error"] == np.concatenate([w.ravel() for w in wrong]).mean()


def test_sweep_leaves_ignored_pixels_out() -> None:
    (probability,), (truth,) = random_slices(np.random.default_rng(1), [(32, 32)])
    mask = np.zeros(truth.shape, bool)
    mask[:, 20:] = True
    spoilt = np.where(mask, 99, truth)
    (row,) = sweep([probability], [spoilt], [0.5], ignored=[mask])
    assert row["v_rand"] == v_rand(np.where(mask, 0, truth), thin(probability, 0.5))
    assert row["pixel_error"] == np.mean((probability > 0.5)[~mask] != (truth > 0)[~mask])


def test_sweep_skips_slices_without_a_true_segment() -> None:
    (probability,), (truth,) = random_slices(np.random.default_rng(2), [(32, 32)])
    nothing = np.zeros_like(truth)
    (alone,) = sweep([probability], [truth], [0.5])
    (both,) = sweep([probability, probability], [truth, nothing], [0.5])
    (none,) = sweep([probability], [nothing], [0.5])
    assert both["v_rand"] == alone["v_rand"]
    assert both["pixel_error"] == pytest.approx((alone["pixel_error"] + none["pixel_error"]) / 2)
    assert math.isnan(none["v_rand"])
    assert math.isnan(none["v_info"])


def test_sweep_refuses_what_does_not_go_in_pairs() -> None:
    probability, truth = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.int32)
    with pytest.raises(ValueError, match="2 probabilities, but 1 true"):
        sweep([probability, probability], [truth], [0.5])
    with pytest.raises(ValueError, match=r"probabilities have shape \(2, 4, 4\)"):
        sweep([np.stack([probability, probability])], [truth], [0.5])


def isbi(folder: str) -> list[np.ndarray]:
    if "SEGLINE_TEST_DATA" not in os.environ:
        pytest.skip("SEGLINE_TEST_DATA is not set: no ISBI 2012 slices to score")
    files = sorted((Path(os.environ["SEGLINE_TEST_DATA"]) / "isbi2012" / folder).glob("*.png"))
    return [
        cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        for file in files
        if file.stem in {"06", "07", "08", "21", "22", "23"}
    ]


def test_the_truth_of_isbi_2012_scores_one() -> None:
    masks = isbi("masks")
    truths = [segments(mask > 0) for mask in masks]
    (row,) = sweep([mask / np.float32(255) for mask in masks], truths, [0.5])
    assert row == {"threshold": 0.5, "v_rand": 1, "v_info": 1, "pixel_error": 0}


def test_blur_and_rank_scores_on_isbi_2012_what_it_is_known_to() -> None:
    truths = [segments(mask > 0) for mask in isbi("masks")]
    ranks = [blurred_ranks(image) for image in isbi("images")]
    rows = sweep(ranks, truths, [0.25, 0.4, 0.45])
    assert max(row["v_rand"] for row in rows) == pytest.approx(0.885, abs=0.01)
    assert max(row["v_info"] for row in rows) == pytest.approx(0.935, abs=0.01)
    assert min(row["pixel_error"] for row in rows) == pytest.approx(0.168, abs=0.01)


def blurred_ranks(image: np.ndarray) -> np.ndarray:
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2)
    return (rankdata(blurred, method="ordinal").reshape(blurred.shape) / blurred.size).astype(np.float32)


def test_each_figure_has_its_own_best_threshold() -> None:
    nan = float("nan")
    rows = [(0.2, nan, 0.3), (0.4, 0.8, 0.1), (0.5, 0.8, 0.2), (0.7, 0.9, 0.1), (0.9, 0.9, nan)]
    scored = [{"threshold": t, "v_rand": v, "v_info": v, "pixel_error": p} for t, v, p in rows]
    assert best_thresholds(scored) == (0.4, 0.7)
    assert best_thresholds(scored[:1]) == (0.2, 0.2)
