"""Judges: confusion matrices and epochs made by hand, and a real training with a rare class."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from segline.data.borders import class_weights
from segline.data.density import Density, cells
from segline.data.tile_sampler import ValidationTiles
from segline.params import Train
from segline.train.collapse import Watch, collapsed

CLASSES = {0: "background", 1: "cell", 2: "rare"}


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        ([[90, 0], [10, 0]], 0),
        ([[0, 90], [0, 10]], 1),
        ([[80, 0, 0], [15, 0, 0], [5, 0, 0]], 0),
        ([[0, 0, 0], [15, 0, 0], [5, 0, 0]], 0),  # the truth has no background, the prediction nothing else
        ([[89, 1], [10, 0]], None),  # one pixel of another class prevents a collapse, even if it is wrong
        ([[90, 0], [9, 1]], None),
        ([[100, 0], [0, 0]], None),  # the truth has a single class
        ([[0, 100], [0, 0]], None),  # all wrong, but the truth has a single class
        ([[0, 0], [0, 100]], None),
        ([[0, 0], [0, 0]], None),  # no pixel counted
    ],
)
def test_collapsed_is_one_predicted_class_of_several_true_ones(
    confusion: list[list[int]], expected: int | None
) -> None:
    assert collapsed(np.array(confusion)) == expected


def watch_epochs(*class_ids: int | None) -> tuple[Watch, list[str | None]]:
    """Pass a collapsed class per epoch to a watch; return the watch and its messages."""
    watch = Watch(CLASSES, Train(learning_rate=0.003, epochs=20))
    return watch, [watch.update(epoch, class_id) for epoch, class_id in enumerate(class_ids, 1)]


def test_a_collapse_is_reported_at_its_start_and_in_the_verdict() -> None:
    watch, messages = watch_epochs(None, None, 0, 0, 0)
    onset = (
        "epoch 3: every validation pixel is predicted as background (class 0), but the ground truth has other classes"
    )
    assert messages == [None, None, onset, None, None]
    assert watch.verdict(2) == (
        "every validation pixel is predicted as background (class 0) in epochs 3 to 5 of 5 (epoch 2 is used); "
        "try weights.density_balance: 1, a higher weights.class_balance (up to 1), "
        "a lower train.learning_rate (now 0.003) or more train.epochs (now 20)"
    )


def test_a_recovery_is_reported_and_clears_the_verdict() -> None:
    watch, messages = watch_epochs(0, 0, None, None)
    assert messages[1:] == [None, "epoch 3: the validation predictions contain several classes again", None]
    assert watch.verdict(3) is None
    assert watch_epochs(None, None)[0].verdict(1) is None


def test_the_verdict_reports_a_used_epoch_within_a_collapse() -> None:
    watch, _ = watch_epochs(None, 1, None)
    verdict = watch.verdict(2)
    assert verdict is not None
    assert "predicted as cell (class 1) in epoch 2 of 3 (epoch 2 is used)" in verdict


def test_a_collapse_to_another_class_is_reported_again() -> None:
    watch, messages = watch_epochs(0, 0, 2, None, 0)
    assert [line and line.split(":")[0] for line in messages] == ["epoch 1", None, "epoch 3", "epoch 4", "epoch 5"]
    verdict = watch.verdict(1)
    assert verdict is not None
    assert "background (class 0) in epochs 1 to 2 and background (class 0) in epoch 5 of 5" in verdict


def with_rare_class(training: Any, *, density_balance: float, class_balance: float) -> Any:
    """Give `training` images with 9 object pixels in 3,600; all of them are validation images too."""
    rng = np.random.default_rng(0)
    targets = [np.zeros((60, 60), np.uint8) for _ in range(3)]
    for target in targets:
        row, column = rng.integers(10, 50, 2)
        target[row : row + 3, column : column + 3] = 1
    images = [(target * 120 + rng.integers(0, 100, target.shape)).astype(np.uint8)[..., None] for target in targets]
    pixels = np.bincount(np.concatenate(targets, axis=None)).tolist()
    of_class = class_weights(pixels, density_balance)
    weights = [class_weights(pixels, class_balance)[target].astype(np.float32) for target in targets]
    training.tiles.images, training.tiles.targets, training.tiles.weights = images, targets, weights
    training.tiles.density = Density(of_class, targets, [cells(target, 0.0, of_class) for target in targets])
    whole = ValidationTiles(images, targets, weights, statistics=training.tiles.statistics, tile=20, output=20, most=99)
    training.validation = list(torch.utils.data.DataLoader(whole, batch_size=9))  # type: ignore[arg-type]
    training.state.network.dropout.p = 0.0
    return training


def test_the_advice_against_a_collapse_works_for_a_rare_class(training: Callable[..., Any]) -> None:
    rates = {"optimizer": "adamw", "learning_rate": 0.01, "momentum": 0.9, "dice_weight": 0}
    amount = {"epochs": 16, "tiles_per_epoch": 20, "batch_size": 4}
    uniform = with_rare_class(training(**rates, **amount), density_balance=0, class_balance=0).run()[-1]
    assert (uniform.collapsed, uniform.validation_predicted_classes, uniform.validation_mean_iou) == (0, 1, 0)
    balanced = with_rare_class(training(**rates, **amount), density_balance=1, class_balance=0.5).run()[-1]
    assert (balanced.collapsed, balanced.validation_predicted_classes) == (None, 2)
    assert balanced.validation_mean_iou > 0.3  # measured: 0.6; with other seeds 0.5
