import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segline.train.keep import Kept, better
from segline.train.loop import Epoch


def epoch(number: int, loss: float, mean_iou: float) -> Epoch:
    return Epoch(number, 1.0, loss, mean_iou, 0.1, 2, 0.01, 0.9, 1.0)


EPOCHS = [epoch(1, 3.0, 0.2), epoch(2, 1.0, 0.9), epoch(3, 2.0, 0.9), epoch(4, 0.5, math.nan)]


@pytest.mark.parametrize(
    ("monitor", "keep_best", "expected"),
    [("mean_iou", 1, [4]), ("mean_iou", 3, [4, 2, 3]), ("mean_iou", 9, [4, 2, 3, 1]), ("loss", 2, [4, 2])],
)
def test_the_best_are_kept_and_the_earlier_of_equals(
    training: Callable[..., Any], tmp_path: Path, monitor: str, keep_best: int, expected: list[int]
) -> None:
    one = training(monitor=monitor, keep_best=keep_best)
    kept = Kept(tmp_path, one.settings)
    for each in EPOCHS:
        kept.offer(each, one.state)
    assert [each.epoch for each in kept.best] == expected
    assert {file.name for file in tmp_path.iterdir()} == {"last", *(f"best-{number:05d}" for number in expected)}
    assert kept.weights.read_bytes() == (tmp_path / f"best-{expected[0]:05d}" / "weights.safetensors").read_bytes()


def test_no_foreground_and_none_found_is_right(training: Callable[..., Any]) -> None:
    assert better(training().settings, EPOCHS[3]) == 1
