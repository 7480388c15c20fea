"""Judges: tables made by hand, scikit-learn, and the law that the counts of parts add up to the whole."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from segline.score.counts import confusion, dice, iou, mean_iou, pixel_error

CLASSES = 4
pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.uint8, shape, elements=st.integers(0, CLASSES - 1))] * 2)
)

# rows: truth, columns: predicted. Class 2 is only true, class 3 only predicted, class 4 neither.
TABLE = np.array([[50, 5, 0, 0, 0], [2, 20, 0, 3, 0], [4, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])


def test_the_table_made_by_hand() -> None:
    truth = np.array([[0, 0, 1], [1, 2, 2]], np.uint8)
    predicted = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
    table = confusion(truth, predicted, 3)
    assert table.dtype == np.int64
    assert table.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]


@given(pairs)
def test_counts_agree_with_scikit_learn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = pair
    expected = confusion_matrix(truth.ravel(), predicted.ravel(), labels=range(CLASSES))
    assert np.array_equal(confusion(truth, predicted, CLASSES), expected)


@given(pairs)
def test_scores_agree_with_scikit_learn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = pair
    table = confusion(truth, predicted, CLASSES)
    options = {"labels": range(CLASSES), "average": None, "zero_division": np.nan}
    np.testing.assert_allclose(iou(table), jaccard_or_nan(truth, predicted))
    np.testing.assert_allclose(dice(table), f1_score(truth.ravel(), predicted.ravel(), **options))
    assert pixel_error(table) == np.mean(truth != predicted)


def jaccard_or_nan(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Replace the scores of absent classes by nan, which scikit-learn does not support."""
    scores = jaccard_score(truth.ravel(), predicted.ravel(), labels=range(CLASSES), average=None, zero_division=0)
    present = [np.any(truth == k) or np.any(predicted == k) for k in range(CLASSES)]
    return np.where(present, scores, np.nan)


@given(pairs)
def test_halves_add_up_to_the_whole(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = pair
    halves = [confusion(truth[part], predicted[part], CLASSES) for part in (np.s_[::2], np.s_[1::2])]
    assert np.array_equal(halves[0] + halves[1], confusion(truth, predicted, CLASSES))


@given(pairs, st.data())
def test_ignored_pixels_are_not_counted(pair: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    truth, predicted = pair
    mask = data.draw(hnp.arrays(np.bool_, truth.shape))
    marked = np.where(mask, 255, truth).astype(np.uint8)
    strange = np.where(mask, 255, predicted).astype(np.uint8)
    expected = confusion(truth[~mask], predicted[~mask], CLASSES)
    assert np.array_equal(confusion(marked, predicted, CLASSES, ignore=255), expected)
    assert np.array_equal(confusion(marked, strange, CLASSES, ignore=255), expected)


def test_an_ignore_id_that_is_a_class_empties_only_its_row() -> None:
    truth, predicted = np.array([[0, 1, 1]]), np.array([[0, 0, 1]])
    assert confusion(truth, predicted, 2, ignore=0).tolist() == [[0, 0], [1, 1]]


def test_many_classes_do_not_wrap_around_in_uint8() -> None:
    ids = np.arange(250, dtype=np.uint8).reshape(25, 10)
    assert np.array_equal(confusion(ids, ids, 250), np.eye(250))


def test_scores_of_a_table_made_by_hand() -> None:
    np.testing.assert_allclose(iou(TABLE), [50 / 61, 20 / 30, 0, 0, np.nan])
    np.testing.assert_allclose(dice(TABLE), [100 / 111, 40 / 50, 0, 0, np.nan])
    assert mean_iou(TABLE) == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert pixel_error(TABLE) == 14 / 84


def test_a_perfect_prediction_of_an_empty_tile_does_not_lower_the_mean() -> None:
    cells, nothing = np.array([[0, 1], [1, 0]]), np.zeros((2, 2), np.int64)
    empty = confusion(nothing, nothing, 2)
    assert math.isnan(mean_iou(empty))
    assert pixel_error(empty) == 0
    assert mean_iou(empty + confusion(cells, cells, 2)) == 1


def test_metrics_without_pixels_are_nan() -> None:
    table = confusion(np.full((2, 2), 255), np.zeros((2, 2), np.int64), 2, ignore=255)
    assert table.sum() == 0
    assert np.isnan(iou(table)).all()
    assert np.isnan(dice(table)).all()
    assert math.isnan(mean_iou(table))
    assert math.isnan(pixel_error(table))


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), r"truth has shape \(2, 2\), but predicted has shape \(2, 3\)"),
        (np.full((1, 1), 255), np.zeros((1, 1), int), "truth contains class id 255; the 3 classes .* ignore id"),
        (np.zeros((1, 1), int), np.full((1, 1), 3), "predicted contains class id 3"),
        (np.full((1, 1), -1), np.zeros((1, 1), int), "truth contains class id -1"),
        (np.zeros((1, 1), int), np.zeros((1, 1)), "predicted has type float64"),
    ],
)
def test_arrays_that_cannot_be_counted_are_refused(truth: np.ndarray, predicted: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion(truth, predicted, 3)
