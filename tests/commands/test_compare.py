"""Compare models that consist of one threshold each."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from segline.cli import main as segline
from segline.commands import compare
from segline.gate.heldout import HeldOutError
from segline.model.images import decode
from segline.score.judge import Score

NUMBERS = {"perfect": "1", "false on a": "5", "other classes": "8"}


def compared(first: str, second: str, *, as_json: bool = False) -> str:
    """Return the output of compare."""
    shown = StringIO()
    compare.main(
        NUMBERS[first],
        NUMBERS[second],
        "",
        out=Path("comparison"),
        as_json=as_json,
        console=Console(file=shown, width=200),
        say=lambda line: print(line, file=shown),
    )
    return shown.getvalue()


def test_compare_writes_metrics_and_pictures_of_differences(judged: Path) -> None:
    content = json.loads(compared("false on a", "perfect", as_json=True))
    assert [version["version"] for version in content["versions"]] == [5, 1]
    assert content["test"]["images"] == 11
    value, low, high = content["metrics"]["mean_iou"]["gain"]
    assert 0 < low < value < high < 1
    assert content["metrics"]["mean_iou"]["second"] == [1, 1, 1]
    assert set(content["metrics"]) == {"mean_iou", "pixel_error", "ap_50", "ap_50_by_image", "seg", "pq"}
    assert {name: group["images"] for name, group in content["groups"].items()} == {"a": 8, "b": 2, "c": 1}
    assert content["groups"]["b"]["metrics"]["mean_iou"]["gain"] == [0, 0, 0]
    folder = judged / "comparison" / "5-1"
    pictures = sorted(folder.glob("*.png"))
    # The versions do not differ on groups b and c.
    assert [picture.name[:3] for picture in pictures] == [f"{number}_a" for number in range(1, 9)]
    assert json.loads((folder / "comparison.json").read_text()) == content
    height, width = decode(pictures[0].read_bytes()).shape[:2]
    assert width > 2.5 * height


def test_compare_prints_tables(judged: Path) -> None:
    shown = compared("perfect", "false on a")
    assert "cells: 11 test images, 95% intervals" in shown
    assert "1.0000 (1.0000 to 1.0000)" in shown
    assert "mean_iou of group" in shown
    again = compared("perfect", "perfect")
    assert "both versions have the same scores on every image" in again
    assert not [*(judged / "comparison" / "1-1").glob("*.png")]


def test_compare_refuses_a_version_with_other_classes(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HeldOutError, match="version 8: the value of classes is"):
        compared("perfect", "other classes")
    monkeypatch.setattr("sys.argv", ["segline", "models", "compare", "1", "8"])
    with pytest.raises(SystemExit) as ended:
        segline()
    assert ended.value.code == 2
    assert not (judged / "comparison").exists()


def test_images_with_the_greatest_difference_come_first() -> None:
    first = [Score(np.array([[0, 0], [wrong, 1000 - wrong]])) for wrong in range(0, 200, 10)]
    second = [Score(np.array([[0, 0], [104, 896]]))] * 20
    assert compare.most_different((first, second), "mean_iou") == [0, 1, 19, 2, 18, 3, 17, 4]
