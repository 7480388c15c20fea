from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from segline.params import Schedule, Train
from segline.train import schedule

STEPS, EPOCHS, RATE = 7, 20, 0.3


def settings(kind: str, **more: Any) -> Train:
    return Train(epochs=EPOCHS, learning_rate=RATE, schedule=Schedule(kind=kind, **more))  # type: ignore[arg-type]


def rates(of: Train, losses: tuple[float, ...] = ()) -> list[float]:
    return [schedule.learning_rate(of, s, STEPS, losses[: s // STEPS]) for s in range(EPOCHS * STEPS)]


def torch_rates(make: Any, per_epoch: bool) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    other = make(optimizer)
    result = []
    for step in range(EPOCHS * STEPS):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < EPOCHS * STEPS and (not per_epoch or (step + 1) % STEPS == 0):
            other.step()
    return result


@pytest.mark.parametrize(
    ("of", "make", "per_epoch"),
    [
        (settings("constant"), lambda o: lr_scheduler.ConstantLR(o, factor=1), True),
        (settings("step", step_epochs=6, gamma=0.3), lambda o: lr_scheduler.StepLR(o, 6, 0.3), True),
        (settings("exponential", gamma=0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9), True),
        (settings("poly", power=0.9), lambda o: lr_scheduler.PolynomialLR(o, EPOCHS * STEPS, 0.9), False),
        (settings("cosine"), lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS), False),
        (
            settings("one_cycle", warmup_percent=25),
            lambda o: lr_scheduler.OneCycleLR(
                o, RATE, total_steps=EPOCHS * STEPS, pct_start=0.25, cycle_momentum=False
            ),
            False,
        ),
    ],
    ids=lambda value: value.schedule.kind if isinstance(value, Train) else "",
)
def test_learning_rates_agree_with_torch(of: Train, make: Any, per_epoch: bool) -> None:
    assert rates(of) == pytest.approx(torch_rates(make, per_epoch), rel=1e-9, abs=1e-12)


def test_plateau_drops_agree_with_torch() -> None:
    losses = (5, 4, 4, 4, 4, 3, 3.5, 3, 3, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1, 1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    other = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0)
    expected = []
    for loss in losses:
        expected.append(optimizer.param_groups[0]["lr"])
        other.step(loss)
    ours = rates(settings("plateau", patience=2, gamma=0.5), tuple(map(float, losses)))
    assert ours[::STEPS] == pytest.approx(expected)


def test_one_cycle_peaks_at_the_learning_rate_and_ends_low() -> None:
    ours = rates(settings("one_cycle", warmup_percent=25))
    assert max(ours) == RATE
    assert ours[0] == pytest.approx(RATE / 25)
    assert ours[-1] == pytest.approx(RATE / 25e4)


@pytest.mark.parametrize("kind", ["constant", "step", "exponential", "poly", "cosine", "plateau"])
def test_the_first_learning_rate_is_the_configured_one(kind: str) -> None:
    assert rates(settings(kind))[0] == RATE


@pytest.mark.parametrize("percent", [1.0, 0.5, 50.0, 99.0])
def test_one_cycle_survives_a_warm_up_shorter_than_a_step(percent: float) -> None:
    short = Train(epochs=1, learning_rate=RATE, schedule=Schedule(kind="one_cycle", warmup_percent=percent))
    for steps in (1, 2, 3, 10):
        got = [schedule.learning_rate(short, s, steps, ()) for s in range(steps)]
        assert all(0 < rate <= RATE * (1 + 1e-12) for rate in got)


def test_momentum_rises_linearly_and_then_stays() -> None:
    of = Train(epochs=10, momentum=0.99, momentum_start=0.9, momentum_warmup_percent=20)
    got = [schedule.momentum(of, step, 10) for step in range(100)]
    assert got[0] == 0.9
    assert got[10] == pytest.approx(0.945)
    assert got[20:] == [0.99] * 80
    none = Train(momentum_warmup_percent=0)
    assert schedule.momentum(none, 0, 10) == none.momentum


def test_momentum_never_starts_above_its_value() -> None:
    of = Train(epochs=2, momentum=0.5, momentum_start=0.9)
    assert [schedule.momentum(of, step, 5) for step in range(10)] == [0.5] * 10


def test_one_step_of_one_cycle_runs_at_the_peak() -> None:
    of = Train(epochs=1, learning_rate=RATE, schedule=Schedule(kind="one_cycle"))
    assert schedule.learning_rate(of, 0, 1, ()) == RATE


@pytest.mark.parametrize("kind", ["constant", "step", "exponential", "poly", "cosine", "one_cycle"])
def test_a_shortened_training_has_the_same_learning_rate_at_the_same_fraction(kind: str) -> None:
    whole = settings(kind, step_epochs=8, gamma=0.5)
    short = schedule.shortened(whole, EPOCHS // 4)
    assert short.epochs == 5
    assert short.schedule.step_epochs == 2
    expected = rates(whole)
    shortened = [schedule.learning_rate(short, step, STEPS, ()) for step in range(short.epochs * STEPS)]
    # Rates at the start of each epoch; one_cycle turns one step early.
    assert shortened[::STEPS] == pytest.approx(expected[:: 4 * STEPS], rel=0.2 if kind == "one_cycle" else 1e-9)


def test_step_epochs_and_patience_are_shortened_to_at_least_one_epoch() -> None:
    whole = settings("plateau", patience=6, step_epochs=1)
    short = schedule.shortened(whole, 5)
    assert (short.schedule.patience, short.schedule.step_epochs) == (2, 1)
    assert schedule.shortened(whole, EPOCHS) == whole
