"""Judges: confusions and courses of trainings made by hand, and a real training whose rare class is hardly drawn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from segline.data.borders import class_weights
from segline.data.density import Density, cells
from segline.data.sampler import ValidationTiles
from segline.params import Train
from segline.train.collapse import Watch, collapsed

CLASSES = {0: "background", 1: "cell", 2: "rare"}


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        ([[90, 0], [10, 0]], 0),
        ([[0, 90], [0, 10]], 1),
        ([[80, 0, 0], [15, 0, 0], [5, 0, 0]], 0),
        ([[0, 0, 0], [15, 0, 0], [5, 0, 0]], 0),  # no background in the truth, nothing else in the prediction
        ([[89, 1], [10, 0]], None),  # one pixel of another class is no collapse, right or wrong
        ([[90, 0], [9, 1]], None),
        ([[100, 0], [0, 0]], None),  # a truth with one class only
        ([[0, 100], [0, 0]], None),  # wrong everywhere, but the truth has one class only
        ([[0, 0], [0, 100]], None),
        ([[0, 0], [0, 0]], None),  # nothing counted
    ],
)
def test_collapsed_is_one_class_where_the_truth_has_several(confusion: list[list[int]], expected: int | None) -> None:
    assert collapsed(np.array(confusion)) == expected


def course(*found: int | None) -> tuple[Watch, list[str | None]]:
    """A watch that saw these, epoch after epoch, and what it said."""
    watch = Watch(CLASSES, Train(learning_rate=0.003, epochs=20))
    return watch, [watch.see(epoch, class_id) for epoch, class_id in enumerate(found, 1)]


def test_a_collapse_is_said_once_when_it_begins_and_once_at_the_end() -> None:
    watch, said = course(None, None, 0, 0, 0)
    onset = "epoch 3: every validation pixel is predicted background (class 0); the truth has other classes"
    assert said == [None, None, onset, None, None]
    assert watch.verdict(2) == (
        "every validation pixel is predicted background (class 0) in epochs 3 to 5 of 5 (epoch 2 is used); "
        "try weights.density_balance: 1, a higher weights.class_balance (up to 1), "
        "a lower train.learning_rate (now 0.003) or more train.epochs (now 20)"
    )


def test_a_training_that_recovers_says_so_and_is_forgiven() -> None:
    watch, said = course(0, 0, None, None)
    assert said[1:] == [None, "epoch 3: the validation predictions hold several classes again", None]
    assert watch.verdict(3) is None
    assert course(None, None)[0].verdict(1) is None


def test_an_epoch_that_is_used_though_it_had_collapsed_is_not_forgiven() -> None:
    watch, _ = course(None, 1, None)
    verdict = watch.verdict(2)
    assert verdict is not None
    assert "predicted cell (class 1) in epoch 2 of 3 (epoch 2 is used)" in verdict


def test_another_class_is_another_collapse() -> None:
    watch, said = course(0, 0, 2, None, 0)
    assert [line and line.split(":")[0] for line in said] == ["epoch 1", None, "epoch 3", "epoch 4", "epoch 5"]
    verdict = watch.verdict(1)
    assert verdict is not None
    assert "background (class 0) in epochs 1 to 2 and background (class 0) in epoch 5 of 5" in verdict


def of_a_rare_class(one: Any, *, density_balance: float, class_balance: float) -> Any:
    """The training `one`, on images of which 9 pixels in 3,600 are an object; judged on all of them."""
    rng = np.random.default_rng(0)
    targets = [np.zeros((60, 60), np.uint8) for _ in range(3)]
    for target in targets:
        row, column = rng.integers(10, 50, 2)
        target[row : row + 3, column : column + 3] = 1
    images = [(target * 120 + rng.integers(0, 100, target.shape)).astype(np.uint8)[..., None] for target in targets]
    pixels = np.bincount(np.concatenate(targets, axis=None)).tolist()
    of_class = class_weights(pixels, density_balance)
    weights = [class_weights(pixels, class_balance)[target].astype(np.float32) for target in targets]
    one.tiles.images, one.tiles.targets, one.tiles.weights = images, targets, weights
    one.tiles.density = Density(of_class, targets, [cells(target, 0.0, of_class) for target in targets])
    whole = ValidationTiles(images, targets, weights, statistics=one.tiles.statistics, tile=20, output=20, most=99)
    one.validation = list(torch.utils.data.DataLoader(whole, batch_size=9))  # type: ignore[arg-type]
    one.state.network.dropout.p = 0.0
    return one


def test_a_rare_class_collapses_and_the_advice_leads_out_of_it(training: Callable[..., Any]) -> None:
    rates = {"optimizer": "adamw", "learning_rate": 0.01, "momentum": 0.9, "dice_weight": 0}
    amount = {"epochs": 16, "tiles_per_epoch": 20, "batch_size": 4}
    uniform = of_a_rare_class(training(**rates, **amount), density_balance=0, class_balance=0).run()[-1]
    assert (uniform.collapsed, uniform.validation_predicted_classes, uniform.validation_mean_iou) == (0, 1, 0)
    balanced = of_a_rare_class(training(**rates, **amount), density_balance=1, class_balance=0.5).run()[-1]
    assert (balanced.collapsed, balanced.validation_predicted_classes) == (None, 2)
    assert balanced.validation_mean_iou > 0.3  # 0.6; other seeds 0.5
