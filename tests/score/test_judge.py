import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from segline.score import curves, judge

CLASSES = {0: "background", 1: "cell"}
TRUTH = np.array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 0, 1]], np.uint8)
OBJECTS = np.array([[0, 0, 0, 0], [0, 1, 0, 2], [0, 1, 0, 2]], np.int32)


def test_a_table_made_by_hand() -> None:
    """Two images: one perfect, one where the right cell is missed and one background pixel is called cell."""
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


def test_segments_are_scored_where_borders_are_labelled() -> None:
    cells = np.zeros((20, 20), np.uint8)
    cells[:, :9] = cells[:, 12:] = 1
    true = np.where(cells > 0, np.arange(20) // 10 + 1, 0)
    perfect = judge.score(cells, cells, 2, segments=(true, true))
    merged = judge.score(cells, np.ones_like(cells), 2, segments=(true, np.ones_like(true)))
    assert perfect.v_rand == perfect.v_info == 1
    assert judge.total([perfect, merged], CLASSES)["v_rand"] == pytest.approx((1 + (merged.v_rand or 0)) / 2)
    assert (merged.v_rand or 1) < 0.8


def test_ignored_pixels_count_nowhere() -> None:
    truth, predicted = TRUTH.copy(), TRUTH.copy()
    truth[1:, 3] = 255
    predicted[1:, 3] = 0
    one = judge.score(truth, predicted, 2, 255, objects=(OBJECTS, np.where(OBJECTS == 2, 0, OBJECTS)))
    whole = judge.total([one], CLASSES)
    assert whole["pixel_error"] == 0
    assert whole["ap_50"] == 1


def test_an_image_is_asked_whether_it_holds_anything() -> None:
    """Three images: with a cell, without, and with a cell where nothing counts."""
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


def test_nothing_to_score_is_null_in_json_not_nan() -> None:
    empty = np.zeros((3, 3), np.uint8)
    whole = judge.total([judge.score(empty, empty, 2, objects=(empty, empty))], CLASSES)
    assert whole["mean_iou"] is None
    assert whole["ap_50"] is None
    assert "NaN" not in json.dumps(whole)


def test_curves_are_drawn_and_their_bytes_repeat(tmp_path: Path) -> None:
    columns = [column for of in curves.FIGURES.values() for column in of]
    history = pd.DataFrame({"epoch": [1, 2, 3]} | {name: [3.0, 2.0, 1.0] for name in columns})
    for name in ("a.png", "b.png"):
        curves.draw(history, 2, tmp_path / name)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1000, 600)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_score_is_the_same_after_json() -> None:
    full = judge.score(TRUTH, TRUTH, 2, objects=(OBJECTS, OBJECTS), segments=(TRUTH * 0, TRUTH), foreground=TRUTH)
    for one in (full, judge.score(TRUTH, TRUTH, 2)):
        again = judge.Score.from_dict(json.loads(json.dumps(one.as_dict())))
        assert repr(again) == repr(one)  # it holds nan
        assert judge.total([again], CLASSES) == judge.total([one], CLASSES)
