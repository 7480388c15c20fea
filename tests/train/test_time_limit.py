"""train.minutes: a training on a slow machine has fewer epochs, and its schedule ends with it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from segline.params import Schedule
from segline.train import checkpoint, loop

COSINE = Schedule(kind="cosine")
EPOCH = 6.0  # planned duration of an epoch, s
OPTIONS: dict[str, Any] = {"epochs": 20, "minutes": 20 * EPOCH / 60, "schedule": COSINE, "momentum_warmup_percent": 0}


class Clock:
    """A clock for the training loop: epoch number n takes `EPOCH` * factor(n) seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.factor: Callable[[int], float] = lambda _: 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, train_step = Clock(), loop.train_step

    def step(state: Any, batch: Any, settings: Any) -> Any:
        clock.now += EPOCH * clock.factor(state.epoch + 1) / loop.steps_per_epoch(settings)
        return train_step(state, batch, settings)

    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(loop, "perf_counter", lambda: clock.now)
    return clock


def test_a_machine_as_fast_as_planned_trains_all_epochs(training: Callable[..., Any], clock: Clock) -> None:
    limited, free = training(**OPTIONS), training(**OPTIONS | {"minutes": 0})
    for slower in (1, 1.05):
        clock.factor = lambda _, slower=slower: slower  # type: ignore[misc]
        assert len(training(**OPTIONS).run()) == 20
    assert limited.run()[-1].learning_rate == free.run()[-1].learning_rate
    assert all(torch.equal(a, b) for a, b in zip(limited.weights().values(), free.weights().values(), strict=True))


@pytest.mark.parametrize("slower_from", [1, 2, 6, 15, 20])
@pytest.mark.parametrize("factor", [1.5, 4, 40])
def test_a_machine_that_becomes_slower_keeps_to_the_time(
    training: Callable[..., Any], clock: Clock, slower_from: int, factor: float
) -> None:
    clock.factor = lambda epoch: factor if epoch >= slower_from else 1
    epochs, limit, slow = training(**OPTIONS).run(), 20 * EPOCH, factor * EPOCH
    assert clock.now <= 1.15 * limit + slow / 3  # three steps in an epoch
    assert clock.now >= min(0.9 * limit, limit - slow)
    if len(epochs) > slower_from + 2:  # the schedule is that of a training of this length
        assert epochs[-1].learning_rate < 0.1 * epochs[0].learning_rate


def test_a_single_slow_epoch_costs_only_its_own_time(training: Callable[..., Any], clock: Clock) -> None:
    clock.factor = lambda epoch: 4 if epoch == 1 else 1
    epochs = training(**OPTIONS).run()
    assert len(epochs) == 17  # the first epoch takes the time of four
    assert epochs[1].learning_rate < epochs[2].learning_rate  # after the first epoch, five epochs were expected


@pytest.mark.parametrize("steps", [1, 4, 9, 14, 19])
def test_a_resumed_training_has_the_length_of_an_uninterrupted_one(
    training: Callable[..., Any], clock: Clock, steps: int
) -> None:
    clock.factor = lambda epoch: 3 if epoch >= 3 else 1
    uninterrupted, former, resumed = (training(**OPTIONS) for _ in range(3))
    number = len(uninterrupted.run())
    assert number < 20
    clock.now, taken, moments = 0.0, 0, loop.moments(former.state, former.tiles, former.validation, former.settings)
    while taken < steps:
        taken += isinstance(next(moments), loop.Step)
    saved = checkpoint.take(former.state, former.settings).copy()
    clock.now += 1e6  # the interruption does not count
    checkpoint.give(saved, resumed.state)
    resumed.run()
    assert resumed.state.epoch == number
    for own, other in zip(uninterrupted.weights().values(), resumed.weights().values(), strict=True):
        assert torch.equal(own, other)
