"""The floors, judged by a table made by hand."""

import json

import pytest

from segline.params import Gate
from segline.track.gate import floors

GATE = Gate(min_mean_iou=0.7, max_pixel_error=0.1)


@pytest.mark.parametrize(
    ("figures", "passed"),
    [
        ({"mean_iou": 0.8, "pixel_error": 0.05}, (True, True)),
        ({"mean_iou": 0.7, "pixel_error": 0.1}, (True, True)),
        ({"mean_iou": 0.6999, "pixel_error": 0.05}, (False, True)),
        ({"mean_iou": 0.8, "pixel_error": 0.1001}, (True, False)),
        ({"mean_iou": float("nan"), "pixel_error": 0.05}, (False, True)),
        ({"mean_iou": None, "pixel_error": None}, (False, False)),
        ({}, (False, False)),
        ({"mean_iou": 1, "pixel_error": 0, "v_rand": 0.1}, (True, True)),
    ],
)
def test_floors(figures: dict[str, float | None], passed: tuple[bool, bool]) -> None:
    verdict = floors(figures, GATE)
    assert tuple(check.passed for check in verdict.checks) == passed
    assert verdict.passed == all(passed)


def test_verdict_is_strict_json() -> None:
    verdict = floors({"mean_iou": float("nan"), "pixel_error": 0.05}, GATE)
    assert json.loads(json.dumps(verdict.as_dict(), allow_nan=False)) == {
        "passed": False,
        "checks": [
            {"name": "mean_iou", "value": None, "limit": 0.7, "passed": False},
            {"name": "pixel_error", "value": 0.05, "limit": 0.1, "passed": True},
        ],
    }
