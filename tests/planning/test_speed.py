"""The timing of training steps: it takes the fastest of several, and never the first ones."""

from itertools import count

import pytest

from segline.params import Model, Train
from segline.planning import speed


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
    timed = speed.measure(Model(width=2, depth=1), Train(tile=16), 1, 2, "cpu")
    assert timed.seconds == {"off": 3, "bf16": 2}
    assert timed.amp == "bf16"


def test_real_steps_take_time() -> None:
    timed = speed.measure(Model(width=2, depth=1, input_norm="image"), Train(tile=32, batch_size=2), 3, 4, "cpu")
    assert set(timed.seconds) == {"off", "bf16"}
    assert all(0 < seconds < 60 for seconds in timed.seconds.values())
