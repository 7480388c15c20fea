import math
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from segline.params import Schedule
from segline.train import loop

OPTIMIZERS = ["sgd", "adagrad", "rmsprop", "adam", "adamw"]
RATES = {"sgd": 0.05, "adagrad": 0.05, "rmsprop": 0.001, "adam": 0.01, "adamw": 0.01}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns(training: Callable[..., Any], optimizer: str) -> None:
    epochs = training(optimizer=optimizer, epochs=8, momentum=0.9, learning_rate=RATES[optimizer]).run()
    assert [e.epoch for e in epochs] == list(range(1, 9))
    assert epochs[-1].validation_loss < 0.8 * epochs[0].validation_loss


def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(training: Callable[..., Any]) -> None:
    a, b, c = training(), training(), training(seed=1)
    history = [[e.loss for e in t.run()] for t in (a, b, c)]
    assert history[0] == history[1] != history[2]
    assert same(a.weights(), b.weights())
    assert not same(a.weights(), c.weights())


def test_the_first_learning_rate_of_the_optimizer_is_the_configured_one(training: Callable[..., Any]) -> None:
    epochs = training(learning_rate=0.0123, schedule=Schedule(kind="cosine"), momentum_warmup_percent=0).run()
    assert epochs[0].learning_rate == 0.0123
    assert epochs[0].momentum == 0.99
    assert epochs[2].learning_rate == pytest.approx(0.0123 / 2)


@pytest.mark.parametrize(("optimizer", "expected"), [("sgd", 0.9), ("adamw", 0.9), ("rmsprop", 0.9), ("adagrad", 0.0)])
def test_momentum_is_set_in_every_optimizer(training: Callable[..., Any], optimizer: str, expected: float) -> None:
    (epoch,) = training(optimizer=optimizer, epochs=1, learning_rate=1e-4, momentum_start=0.9).run()
    assert epoch.momentum == expected


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 5), (2, 3), (5, 1), (99, 1)])
def test_steps_by_batch_size(training: Callable[..., Any], batch_size: int, steps: int) -> None:
    tiny = training(batch_size=batch_size, epochs=1)
    taken: list[int] = []
    tiny.state.optimizer.register_step_post_hook(lambda *_: taken.append(1))
    tiny.run()
    assert len(taken) == steps


def test_the_last_smaller_batch_is_not_dropped(training: Callable[..., Any]) -> None:
    tiny = training(batch_size=2, tiles_per_epoch=5, epochs=1)
    seen: list[int] = []
    tiny.state.network.register_forward_pre_hook(lambda _m, inputs: seen.append(len(inputs[0])))
    tiny.run()
    assert seen == [2, 2, 1, 4]  # three training batches, one validation batch


def test_gradient_clipping_limits_the_global_norm(training: Callable[..., Any]) -> None:
    def longest(clipping: float) -> float:
        tiny = training(gradient_clipping=clipping, epochs=1)
        norms: list[float] = []

        def measure(optimizer: torch.optim.Optimizer, *_: object) -> None:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
            norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))

        tiny.state.optimizer.register_step_pre_hook(measure)
        tiny.run()
        return max(norms)

    assert longest(0.01) == pytest.approx(0.01, rel=1e-3)
    assert longest(0) > 0.1


def test_rmsprop_may_start_without_momentum(training: Callable[..., Any]) -> None:
    training(optimizer="rmsprop", momentum_start=0.0, learning_rate=1e-4).run()


@pytest.mark.parametrize("amp", ["bf16"])
def test_mixed_precision_learns_too(training: Callable[..., Any], amp: str) -> None:
    epochs = training(amp=amp, epochs=6).run()
    assert epochs[-1].validation_loss < epochs[0].validation_loss


def test_a_loss_that_is_not_finite_stops_the_training_with_advice(training: Callable[..., Any]) -> None:
    with pytest.raises(loop.TrainingError, match=r"epoch 1, step \d.*lower train.learning_rate \(now 1e\+30\)"):
        training(learning_rate=1e30, gradient_clipping=0).run()


def test_evaluating_does_not_change_the_network(training: Callable[..., Any]) -> None:
    tiny = training()
    weights = tiny.weights()
    confusions = np.zeros((2, 2, 2), np.int64)
    first, second = (
        list(loop.evaluate(tiny.state.network, tiny.validation, tiny.settings, confusion)) for confusion in confusions
    )
    assert first == second
    assert same(weights, tiny.weights())
    assert confusions[0].sum() == confusions[1].sum() == 4 * 16 * 16


def test_other_settings_judge_the_validation_loss_but_do_not_train(training: Callable[..., Any]) -> None:
    own, judged, judge = training(epochs=1), training(epochs=1), training(dice_weight=3.0).settings
    (plain,) = own.run()
    (epoch,) = loop.fit(judged.state, judged.tiles, judged.validation, judged.settings, judged_by=judge)
    assert same(own.weights(), judged.weights())
    assert epoch.loss == plain.loss
    *_, expected = loop.evaluate(judged.state.network, judged.validation, judge, np.zeros((2, 2), np.int64))
    assert epoch.validation_loss == expected != plain.validation_loss


def test_channels_last_changes_only_rounding(training: Callable[..., Any]) -> None:
    a, b = training(epochs=1), training(epochs=1, channels_last=False)
    for tiny in (a, b):  # dropout draws its mask in memory order
        tiny.state.network.dropout.p = 0.0
    assert a.run()[0].loss == pytest.approx(b.run()[0].loss, rel=1e-4)


def test_a_killed_worker_raises_an_error_only_when_its_tiles_are_needed(
    training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a process where no other loader has started workers.
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    tiny, former = training(tiles_per_epoch=40), psutil.Process().children()
    moments = loop.moments(tiny.state, tiny.tiles, tiny.validation, tiny.settings, workers=1)
    next(moments)
    (worker,) = set(psutil.Process().children()) - set(former)
    worker.kill()
    time.sleep(0.2)  # torch's own handler would raise an error at this point
    with pytest.raises(RuntimeError, match="worker"):
        list(moments)
