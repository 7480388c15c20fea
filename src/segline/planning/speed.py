"""Measure how fast this machine trains a network."""

from dataclasses import dataclass
from time import perf_counter

import torch

from segline.data.dataset import IGNORE
from segline.model.unet import UNet
from segline.params import Amp, Model, Train
from segline.train.loop import train_step
from segline.train.setup import initial_state

WARM, TIMED = 2, 5  # steps that are not timed, and steps that are


@dataclass(frozen=True)
class Speed:
    """Seconds of a training step for each precision; ``amp`` is the fastest."""

    seconds: dict[Amp, float]

    @property
    def amp(self) -> Amp:
        """Return the fastest precision."""
        return min(self.seconds, key=lambda amp: self.seconds[amp])


def measure(model: Model, train: Train, channels: int, classes: int, device: str) -> Speed:
    """Time training steps of the planned network in full precision and in bf16; return the fastest time of each."""
    rng = torch.Generator().manual_seed(0)
    shape = (train.batch_size, channels, train.tile, train.tile)
    batch = (
        torch.randn(shape, generator=rng),
        torch.randint(classes, (shape[0], *shape[2:]), generator=rng, dtype=torch.uint8),
        torch.ones(shape[0], *shape[2:]),
    )
    assert classes <= IGNORE
    seconds: dict[Amp, float] = {}
    precisions: tuple[Amp, ...] = ("off", "bf16")
    for amp in precisions:
        settings = train.model_copy(update={"amp": amp})
        network = UNet(channels, classes, **model.model_dump(exclude={"input_norm"}))
        state = initial_state(network, settings, device)
        times = []
        for _ in range(WARM + TIMED):
            start = perf_counter()
            float(train_step(state, batch, settings).cross_entropy)  # a number, so that a GPU has finished
            times.append(perf_counter() - start)
        seconds[amp] = min(times[WARM:])
    return Speed(seconds)
