"""The timing of training steps: it takes the fastest of several, and never the first ones."""

from itertools import count

import pytest
import torch

from segline.params import Model, Train
from segline.planning import speed
from segline.train.device import DeviceError


def test_the_fastest_warm_step_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = {"off": [0, 0, 5, 4, 3, 4, 5], "bf16": [0, 0, 9, 2, 9, 9, 9]}
    clock, calls = [0.0], count()
    monkeypatch.setattr(speed, "perf_counter", lambda: clock[0])

    class Sums:
        cross_entropy = 0.0

    def step(_state: object, _batch: object, settings: Train) -> Sums:
        clock[0] += durations[settings.amp][next(calls) % 7]
        return Sums()

    monkeypatch.setattr(speed, "train_step", step)
    timed = speed.measure(Model(width=2, depth=1), Train(tile=16), 1, 2, "cpu", precisions=["off", "bf16"])
    assert timed.seconds == {"off": 3, "bf16": 2}
    assert timed.amp == "bf16"


@pytest.mark.parametrize(("seconds", "amp"), [(2.6, "bf16"), (2.8, "off"), (4, "off")])
def test_a_lower_precision_must_be_clearly_faster(seconds: float, amp: str) -> None:
    assert speed.Speed({"off": 3, "bf16": seconds}).amp == amp
    assert speed.Speed({"off": 3}).amp == "off"
    assert speed.Speed({"fp16": 3}).amp == "fp16"


def test_an_emulated_or_impossible_precision_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(amp: str, _device: str) -> str | None:
        if amp == "bf16":
            raise DeviceError("impossible")
        return None

    monkeypatch.setattr(speed, "precision_warning", warn)
    assert speed.precisions("mps") == ["off", "fp16"]
    monkeypatch.setattr(speed, "precision_warning", lambda *_: "only emulates it")
    assert speed.precisions("cpu") == ["off"]


def test_real_steps_take_time() -> None:
    for model in (Model(width=2, depth=1, input_norm="image"), Model(width=2, depth=1, padding="valid")):
        timed = speed.measure(model, Train(tile=32, batch_size=2), 3, 4, "cpu", precisions=["off"])
        assert [*timed.seconds] == ["off"]
        assert 0 < timed.seconds["off"] < 60


@pytest.mark.parametrize("changes", [{"batch_size": 10**8}, {"batch_size": 2**62}, {"tile": 2**30}])
def test_a_step_that_is_too_large_for_any_machine_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(speed.NoMemoryError, match=r"model\.width = 2 needs more memory than cpu has"):
        speed.measure(
            Model(width=2, depth=1), Train(tile=2**14).model_copy(update=changes), 1, 2, "cpu", precisions=["off"]
        )


def test_a_gpu_without_enough_memory_is_an_error_that_names_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(speed, "train_step", fail)
    with pytest.raises(
        speed.NoMemoryError,
        match=r"train\.batch_size = 4, train\.tile = 16 and model\.width = 2 needs more memory than cpu",
    ):
        speed.measure(Model(width=2, depth=1), Train(tile=16), 1, 2, "cpu", precisions=["off"])
