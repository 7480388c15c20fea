"""Judges: a loop over all pairs of pixels, scikit-learn's mutual information, tables made by hand, and ISBI 2012."""

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import rankdata
from sklearn.metrics import normalized_mutual_info_score

from segline.model.objects import segments, thin
from segline.score.boundaries import v_info, v_rand

pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.int32, shape, elements=st.integers(0, 3))] * 2)
)
Pair = tuple[np.ndarray, np.ndarray]


def counted(truth: np.ndarray, predicted: np.ndarray) -> Pair:
    """Return the counted pixels as a row; each pixel on a predicted border gets its own id."""
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
def test_the_score_does_not_depend_on_the_ids(pair: Pair, first: list[int], second: list[int]) -> None:
    renamed = np.array([0, *first])[pair[0]], np.array([0, *second])[pair[1]] * 1000
    np.testing.assert_equal(v_rand(*renamed), v_rand(*pair))
    np.testing.assert_equal(v_info(*renamed), v_info(*pair))


@given(pairs)
def test_predictions_on_a_true_border_do_not_count(pair: Pair) -> None:
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
    # n = 10. Segment 1 (6 px) is split 4 + 2; of segment 2 (4 px), 2 px are border and 2 join the piece of 2.
    truth = np.array([[1, 1, 1, 1, 1, 1, 0, 2, 2, 2, 2]])
    predicted = np.array([[5, 5, 5, 5, 9, 9, 9, 9, 9, 0, 0]])
    together = 4**2 + 2**2 + 2**2 + 2  # the 2 singletons once each: z / n = 0.2 / 10 = 2 / n^2
    assert v_rand(truth, predicted) == 2 * together / ((6**2 + 4**2) + (4**2 + 4**2 + 2))
    h_truth = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    h_predicted = -(2 * 0.4 * math.log(0.4) + 2 * 0.1 * math.log(0.1))
    h_both = -(0.4 * math.log(0.4) + 2 * 0.2 * math.log(0.2) + 2 * 0.1 * math.log(0.1))
    information = h_truth + h_predicted - h_both
    assert v_info(truth, predicted) == pytest.approx(2 * information / (h_truth + h_predicted))


def test_a_prediction_of_border_only_makes_every_pixel_a_segment() -> None:
    truth = np.array([[1, 1, 0, 2, 2]])
    nothing = np.zeros_like(truth)
    assert v_rand(truth, nothing) == 2 * 4 / (8 + 4)
    assert v_info(truth, nothing) == pytest.approx(2 * math.log(2) / (math.log(2) + math.log(4)))


def test_single_segments_agree_and_a_single_prediction_has_no_information() -> None:
    single, pair = np.ones((1, 4), int), np.array([[1, 1, 2, 2]])
    assert (v_rand(single, single), v_info(single, single)) == (1, 1)
    assert (v_rand(pair, single), v_info(pair, single)) == (2 * 8 / (8 + 16), 0)


def test_the_score_is_nan_without_true_segments() -> None:
    empty, single = np.zeros((2, 2), int), np.ones((2, 2), int)
    assert math.isnan(v_rand(empty, single))
    assert math.isnan(v_info(empty, single))


def isbi(folder: str) -> list[np.ndarray]:
    if "SEGLINE_TEST_DATA" not in os.environ:
        pytest.skip("SEGLINE_TEST_DATA is not set: no ISBI 2012 slices to score")
    images = Path(os.environ["SEGLINE_TEST_DATA"]) / "isbi2012" / folder
    return [
        cv2.imread(str(images / f"{name}.png"), cv2.IMREAD_GRAYSCALE) for name in ("06", "07", "08", "21", "22", "23")
    ]


def test_the_truth_of_isbi_2012_scores_1() -> None:
    masks = isbi("masks")
    for mask in masks:
        truth, thinned = segments(mask > 0), thin(mask, 0)
        assert v_rand(truth, thinned) == v_info(truth, thinned) == 1


def test_blur_and_rank_reaches_its_known_score_on_isbi_2012() -> None:
    truths = [segments(mask > 0) for mask in isbi("masks")]
    ranks = [blurred_ranks(image) for image in isbi("images")]
    cuts = [[thin(rank, threshold) for rank in ranks] for threshold in (0.4, 0.45)]
    for score, known in ((v_rand, 0.885), (v_info, 0.935)):
        best = max(np.mean([score(*pair) for pair in zip(truths, cut, strict=True)]) for cut in cuts)
        assert best == pytest.approx(known, abs=0.01)


def blurred_ranks(image: np.ndarray) -> np.ndarray:
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2)
    return (rankdata(blurred, method="ordinal").reshape(blurred.shape) / blurred.size).astype(np.float32)
