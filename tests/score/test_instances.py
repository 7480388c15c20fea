"""Judges: a Hungarian matching over dense IoUs, loops over all pairs of objects, and cases made by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from segline.score.instances import (
    LARGEST_ID,
    average_precision,
    matches,
    matches_of,
    only,
    overlaps,
    panoptic,
    panoptic_quality,
    seg,
)

pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=7).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.int32, shape, elements=st.integers(0, 4))] * 2)
)
Pair = tuple[np.ndarray, np.ndarray]


def ids(labels: np.ndarray) -> list[int]:
    return [int(number) for number in np.unique(labels) if number]


def dense_ious(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    table = np.zeros((len(ids(truth)), len(ids(predicted))))
    for row, i in enumerate(ids(truth)):
        for column, j in enumerate(ids(predicted)):
            table[row, column] = np.sum((truth == i) & (predicted == j)) / np.sum((truth == i) | (predicted == j))
    return table


@given(pairs)
def test_overlaps_are_the_non_zero_cells_of_a_dense_table(pair: Pair) -> None:
    truth, predicted = pair
    expected = {}
    for cell in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        expected[cell] = expected.get(cell, 0) + 1
    table = overlaps(truth, predicted)
    cells = zip(table.truth.tolist(), table.predicted.tolist(), strict=True)
    assert dict(zip(cells, table.pixels.tolist(), strict=True)) == expected
    assert table.truth_area.tolist() == [np.sum(truth == number) for number in table.truth]
    assert table.predicted_area.tolist() == [np.sum(predicted == number) for number in table.predicted]


@given(pairs, st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.6, 0.75, 1.0]))
def test_matches_agree_with_the_hungarian_method(pair: Pair, iou: float) -> None:
    good = dense_ious(*pair) >= iou
    tp = int(good[linear_sum_assignment(good, maximize=True)].sum())
    assert matches(*pair, iou) == (tp, good.shape[1] - tp, good.shape[0] - tp)


@given(pairs, st.floats(0.05, 1), st.integers(0, 2**16 - 1))
def test_only_equals_matching_without_the_dropped_objects(pair: Pair, iou: float, bits: int) -> None:
    truth, predicted = pair
    keep = np.array([bits >> number & 1 for number in range(int(predicted.max(initial=0)) + 1)], bool)
    keep[0] = False
    table = only(overlaps(truth, predicted), keep)
    assert matches_of(table, iou) == matches(truth, np.where(keep[predicted], predicted, 0), iou)


@given(pairs)
def test_seg_agrees_with_a_loop_over_all_pairs(pair: Pair) -> None:
    truth, predicted = pair
    expected = 0.0
    for i in ids(truth):
        for j in ids(predicted):
            shared = np.sum((truth == i) & (predicted == j))
            if shared > 0.5 * np.sum(truth == i):
                expected += shared / np.sum((truth == i) | (predicted == j))
    total, objects = seg(truth, predicted)
    assert total == pytest.approx(expected)
    assert objects == len(ids(truth))


@given(pairs)
def test_panoptic_agrees_with_dense_ious(pair: Pair) -> None:
    table = dense_ious(*pair)
    iou_sum, tp, fp, fn = panoptic(*pair)
    assert iou_sum == pytest.approx(table[table > 0.5].sum())
    assert (tp, tp + fp, tp + fn) == (np.sum(table > 0.5), table.shape[1], table.shape[0])


@given(pairs, st.randoms(use_true_random=False))
def test_the_score_does_not_depend_on_the_ids(pair: Pair, random: "st.random.Random") -> None:
    renumber = np.array([0, *random.sample(range(1, 100_000), 4)])
    renamed = renumber[pair[0]], renumber[pair[1]]
    assert matches(*renamed, 0.5) == matches(*pair, 0.5)
    assert seg(*renamed) == seg(*pair)
    assert panoptic(*renamed) == panoptic(*pair)


@given(pairs)
def test_truth_as_prediction_is_perfect(pair: Pair) -> None:
    truth, objects = pair[0], len(ids(pair[0]))
    assert matches(truth, truth, 1.0) == (objects, 0, 0)
    assert seg(truth, truth) == (objects, objects)
    assert panoptic(truth, truth) == (objects, objects, 0, 0)


def test_an_object_cut_into_equal_halves_matches_once() -> None:
    truth, predicted = np.array([[1, 1, 0]]), np.array([[1, 2, 0]])
    assert matches(truth, predicted, 0.5) == (1, 1, 0)
    assert matches(predicted, truth, 0.5) == (1, 0, 1)
    assert matches(truth, predicted, 0.51) == (0, 2, 1)
    assert seg(truth, predicted) == (0, 1), "exactly half is not more than half"
    assert panoptic(truth, predicted) == (0, 0, 2, 1)


@pytest.mark.parametrize(
    ("shared", "union", "iou"), [(1, 2, 0.5), (3, 5, 0.6), (7, 10, 0.7), (4, 5, 0.8), (9, 10, 0.9)]
)
def test_an_iou_equal_to_the_threshold_counts(shared: int, union: int, iou: float) -> None:
    truth, predicted = np.ones((1, union), np.int32), np.zeros((1, union), np.int32)
    predicted[0, :shared] = 1
    assert matches(truth, predicted, iou).tp == 1
    assert matches(truth, predicted, np.nextafter(iou, 1)).tp == 0


def test_metrics_without_objects_are_nan() -> None:
    nothing, cell = np.zeros((3, 3), np.int32), np.eye(3, dtype=np.int32)
    assert matches(nothing, nothing, 0.5) == (0, 0, 0)
    assert math.isnan(average_precision(0, 0, 0))
    assert math.isnan(panoptic_quality(0.0, 0, 0, 0))
    assert seg(nothing, cell) == (0, 0)
    assert matches(cell, nothing, 0.5) == (0, 0, 1)
    assert matches(nothing, cell, 0.5) == (0, 1, 0)


def test_metrics_divide_summed_counts() -> None:
    assert average_precision(3, 1, 2) == 0.5
    # Two objects matched at 0.8 and 0.6, one false, one missed (Kirillov et al. 2019, eq. 1).
    assert panoptic_quality(1.4, 2, 1, 1) == pytest.approx(1.4 / 3)


def test_the_largest_ids_need_no_table_of_their_size() -> None:
    truth = np.array([[LARGEST_ID, LARGEST_ID - 1, 0]], np.int64)
    assert matches(truth, truth.astype(np.uint64), 0.5) == (2, 0, 0)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((3, 2), int), r"truth has shape \(2, 2\), but predicted has shape \(3, 2\)"),
        (np.full((2, 2), -1), np.zeros((2, 2), int), "truth contains id -1"),
        (np.zeros((2, 2), int), np.full((2, 2), LARGEST_ID + 1), "predicted contains id 2147483648"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "truth has type float64"),
    ],
)
def test_an_invalid_label_image_is_refused(truth: np.ndarray, predicted: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlaps(truth, predicted)


@pytest.mark.parametrize("iou", [0, -0.5, 1.5, math.nan])
def test_a_threshold_outside_0_to_1_is_refused(iou: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        matches(np.ones((1, 1), int), np.ones((1, 1), int), iou)
