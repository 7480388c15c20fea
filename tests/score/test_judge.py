"""Judges: tables made by hand, scikit-learn's AUC, scipy's box mean, and laws of ranks."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import uniform_filter
from sklearn.metrics import roc_auc_score

from segline.score import judge

CLASSES = {0: "background", 1: "cell"}
TRUTH = np.array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 0, 1]], np.uint8)
OBJECTS = np.array([[0, 0, 0, 0], [0, 1, 0, 2], [0, 1, 0, 2]], np.int32)


def test_a_table_made_by_hand() -> None:
    """Two images: one perfect, one with the right cell missed and one background pixel predicted as cell."""
    wrong = TRUTH.copy()
    wrong[1:, 3] = 0
    wrong[0, 0] = 1
    missed = np.where(OBJECTS == 2, 0, OBJECTS)
    missed[0, 0] = 3
    scores = [
        judge.score(TRUTH, TRUTH, 2, objects=(OBJECTS, OBJECTS)),
        judge.score(TRUTH, wrong, 2, objects=(OBJECTS, missed)),
    ]
    whole = judge.total(scores, CLASSES)
    assert whole["confusion"] == [[15, 1], [2, 6]]
    assert whole["iou"] == {"background": 15 / 18, "cell": 6 / 9}
    assert whole["dice"] == {"background": 30 / 33, "cell": 12 / 15}
    assert whole["mean_iou"] == 6 / 9
    assert whole["pixel_error"] == 3 / 24
    assert whole["ap_50"] == 3 / (3 + 1 + 1)
    assert whole["ap_50_by_image"] == pytest.approx((2 / 2 + 1 / 3) / 2)
    assert whole["seg"] == (1 + 1 + 1 + 0) / 4
    assert whole["pq"] == 3 / (3 + 1 / 2 + 1 / 2)
    assert whole["images"] == 2
    assert "v_rand" not in whole
    assert judge.row(scores[1], CLASSES) == {
        "mean_iou": 2 / 5,
        "pixel_error": 3 / 12,
        "ap_50": 1 / 3,
        "seg": 1 / 2,
        "pq": 1 / 2,
        "iou_background": 7 / 10,
        "iou_cell": 2 / 5,
        "tp": 1,
        "fp": 1,
        "fn": 1,
    }


def test_segments_are_scored_if_borders_are_labelled() -> None:
    cells = np.zeros((20, 20), np.uint8)
    cells[:, :9] = cells[:, 12:] = 1
    true = np.where(cells > 0, np.arange(20) // 10 + 1, 0)
    perfect = judge.score(cells, cells, 2, segments=(true, true))
    merged = judge.score(cells, np.ones_like(cells), 2, segments=(true, np.ones_like(true)))
    assert perfect.v_rand == perfect.v_info == 1
    assert judge.total([perfect, merged], CLASSES)["v_rand"] == pytest.approx((1 + (merged.v_rand or 0)) / 2)
    assert (merged.v_rand or 1) < 0.8


def test_ignored_pixels_are_not_counted() -> None:
    truth, predicted = TRUTH.copy(), TRUTH.copy()
    truth[1:, 3] = 255
    predicted[1:, 3] = 0
    score = judge.score(truth, predicted, 2, 255, objects=(OBJECTS, np.where(OBJECTS == 2, 0, OBJECTS)))
    whole = judge.total([score], CLASSES)
    assert whole["pixel_error"] == 0
    assert whole["ap_50"] == 1


def test_detection_scores_rate_whether_an_image_contains_foreground() -> None:
    """Three images: with a cell, without a cell, and with an ignored cell."""
    empty, ignored = np.zeros_like(TRUTH), np.where(TRUTH == 1, 255, TRUTH).astype(np.uint8)
    sure, unsure = np.where(TRUTH == 1, np.float32(0.9), np.float32(0.1)), np.full(TRUTH.shape, 0.1, np.float32)
    full = judge.score(TRUTH, TRUTH, 2, 255, foreground=sure)
    others = [
        judge.score(empty, TRUTH, 2, 255, foreground=unsure),
        judge.score(ignored, TRUTH, 2, 255, foreground=np.where(ignored == 255, 1, unsure)),
    ]
    assert judge.total([full, *others], CLASSES)["detection_auc"] == 1
    assert judge.total([full, full], CLASSES)["detection_auc"] is None
    assert judge.total(others, CLASSES)["detection_auc"] is None
    row = judge.row(full, CLASSES)
    assert row["detection_score"] == full.detection_score
    assert "detection_auc" not in row
    assert "detection_auc" not in judge.total([judge.score(TRUTH, TRUTH, 2)], CLASSES)


def test_a_metric_without_a_value_is_null_in_json() -> None:
    empty = np.zeros((3, 3), np.uint8)
    whole = judge.total([judge.score(empty, empty, 2, objects=(empty, empty))], CLASSES)
    assert whole["mean_iou"] is None
    assert whole["ap_50"] is None
    assert "NaN" not in json.dumps(whole)


def test_a_score_survives_json() -> None:
    full = judge.score(TRUTH, TRUTH, 2, objects=(OBJECTS, OBJECTS), segments=(TRUTH * 0, TRUTH), foreground=TRUTH)
    for one in (full, judge.score(TRUTH, TRUTH, 2)):
        again = judge.Score.from_dict(json.loads(json.dumps(one.as_dict())))
        assert repr(again) == repr(one)  # it holds nan
        assert judge.total([again], CLASSES) == judge.total([one], CLASSES)


# Few distinct scores, so that there are ties.
rated = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40).filter(
    lambda images: len({present for _, present in images}) == 2
)
maps = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.floats(0, 1, width=32))


@given(rated)
def test_auc_agrees_with_scikit_learn(images: list[tuple[int, bool]]) -> None:
    scores, present = zip(*images, strict=True)
    assert judge.detection_auc(scores, present) == pytest.approx(roc_auc_score(present, scores), abs=1e-12)


@given(rated)
def test_auc_depends_only_on_the_order_of_the_scores(images: list[tuple[int, bool]]) -> None:
    scores, present = zip(*images, strict=True)
    assert judge.detection_auc([math.exp(score) for score in scores], present) == judge.detection_auc(scores, present)
    assert judge.detection_auc(scores, [not p for p in present]) == pytest.approx(
        1 - judge.detection_auc(scores, present)
    )


def test_auc_counts_ties_half() -> None:
    """Of four pairs one is in order, two are ties and one is not in order."""
    assert judge.detection_auc([0.5, 0.9, 0.5, 0.9], [True, True, False, False]) == 0.5
    assert judge.detection_auc([0.9, 0.5, 0.5], [True, True, False]) == 0.75


@pytest.mark.parametrize("present", [[], [True, True], [False]])
def test_auc_is_nan_without_both_kinds_of_images(present: list[bool]) -> None:
    assert math.isnan(judge.detection_auc([0.3] * len(present), present))


@given(maps)
def test_the_detection_score_is_the_largest_box_mean(foreground: np.ndarray) -> None:
    # mode="mirror" of scipy equals BORDER_REFLECT_101 of OpenCV.
    means = uniform_filter(foreground.astype(np.float64), judge.DETECTION_BOX, mode="mirror")
    assert judge.detection_score(foreground) == pytest.approx(means.max(), abs=1e-6)


def test_one_noisy_pixel_is_not_detected_as_an_object() -> None:
    noise, blob = np.zeros((2, 40, 40), np.float32)
    noise[10, 10] = 1
    blob[10:17, 10:17] = 0.6
    assert judge.detection_score(noise) == pytest.approx(1 / judge.DETECTION_BOX**2)
    assert judge.detection_score(blob) == pytest.approx(0.6)


def test_the_detection_score_accepts_float16_and_float64() -> None:
    foreground = np.full((8, 8), 0.25)
    assert judge.detection_score(foreground) == judge.detection_score(foreground.astype(np.float16)) == 0.25
