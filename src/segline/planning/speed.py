"""Measure how fast this machine trains a network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from segline import failure
from segline.model import geometry, nets
from segline.params import Amp, Model, Train
from segline.train.device import DeviceError, precision_warning
from segline.train.loop import train_step
from segline.train.setup import initial_state

WARM, TIMED = 2, 5  # number of untimed warm-up steps, and of timed steps
GAIN = 1.1  # a lower precision must be faster by this factor, because times vary


class NoMemoryError(RuntimeError):
    """A training step needs more memory than the device has; the message says what to change."""


@dataclass(frozen=True)
class Speed:
    """Seconds per training step for each timed precision; `off` is full precision."""

    seconds: dict[Amp, float]

    @property
    def amp(self) -> Amp:
        """Return the fastest precision: `off`, unless another one is clearly faster."""
        fastest = min(self.seconds, key=lambda amp: self.seconds[amp])
        return fastest if GAIN * self.seconds[fastest] < self.seconds.get("off", math.inf) else "off"


def measure(
    model: Model, train: Train, channels: int, classes: int, device: str, *, precisions: Sequence[Amp]
) -> Speed:
    """Time training steps of a network in each of `precisions`; the fastest of several steps counts.

    Raises
    ------
    NoMemoryError
        The memory of the device is too small.
    """
    try:
        return Speed(
            {
                amp: _seconds(model, train.model_copy(update={"amp": amp}), channels, classes, device)
                for amp in precisions
            }
        )
    except (RuntimeError, MemoryError) as error:
        if not failure.is_out_of_memory(error):
            raise
        raise NoMemoryError(
            f"a training step with train.batch_size = {train.batch_size}, train.tile = {train.tile} and model.width = "
            f"{model.width} needs more memory than {device} has; lower one of these settings in params.yaml"
        ) from None


def _seconds(model: Model, settings: Train, channels: int, classes: int, device: str) -> float:
    """Return the seconds of a training step."""
    rng = torch.Generator().manual_seed(0)
    out = geometry.of(**model.network).output(settings.tile)
    batch: tuple[Tensor, ...] = (
        torch.randn(settings.batch_size, channels, settings.tile, settings.tile, generator=rng),
        torch.randint(classes, (settings.batch_size, out, out), generator=rng, dtype=torch.uint8),
        torch.ones(settings.batch_size, out, out),
    )
    if model.object_map:
        batch += (torch.rand(settings.batch_size, out, out, generator=rng),)
    state = initial_state(nets.build(channels, classes, **model.network), settings, device)
    times = []
    for _ in range(WARM + TIMED):
        start = perf_counter()
        float(train_step(state, batch, settings).cross_entropy)  # reading the number waits until a GPU has finished
        times.append(perf_counter() - start)
    return min(times[WARM:])


def precisions(device: str) -> list[Amp]:
    """Return the precisions that `device` supports without emulation, full precision first."""
    own: list[Amp] = ["off"]
    lower: tuple[Amp, ...] = ("bf16", "fp16")
    for amp in lower:
        try:
            if precision_warning(amp, device) is None:
                own.append(amp)
        except DeviceError:
            continue
    return own[:2]  # where there is bf16, fp16 is not timed: it is as fast, but needs scaling of the loss
