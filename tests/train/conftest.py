"""A training that is small enough to finish within a second."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from segline.data.tile_sampler import TrainingTiles
from segline.model.normalisation import Statistics
from segline.model.unet import UNet
from segline.params import Augment, Train
from segline.train import loop
from segline.train.setup import initial_state

STATISTICS = Statistics("uint8", 1, (0.5,), (0.3,))
SIDE = 16


def settings(**changes: Any) -> Train:
    """Settings of a small and quick training."""
    few: dict[str, Any] = {
        "epochs": 4,
        "tiles_per_epoch": 5,
        "batch_size": 2,
        "tile": SIDE,
        "learning_rate": 0.05,
        "momentum": 0.99,
        "optimizer": "sgd",
    }
    return Train(**(few | changes))


def data(settings: Train) -> TrainingTiles:
    """Make tiles of bright squares on dark noise."""
    rng = np.random.default_rng(0)
    images, targets = [], []
    for _ in range(3):
        target = np.zeros((40, 36), np.uint8)
        row, column = rng.integers(4, 16, 2)
        target[row : row + 16, column : column + 14] = 1
        images.append((target * 120 + rng.integers(0, 100, target.shape)).astype(np.uint8)[..., None])
        targets.append(target)
    weights = [np.ones(target.shape, np.float32) for target in targets]
    return TrainingTiles(
        images,
        targets,
        weights,
        statistics=[STATISTICS] * len(images),
        settings=Augment(elastic_sigma=1),
        tile=settings.tile,
        output=settings.tile,
        tiles_per_epoch=settings.tiles_per_epoch,
        seed=settings.seed,
    )


class Training:
    """A training state with its tiles and validation batches."""

    def __init__(self, **changes: Any) -> None:
        self.settings = settings(**changes)
        torch.manual_seed(self.settings.seed)
        network = UNet(1, 2, width=4, depth=1, padding="same", norm="batch", dropout=0.3)
        self.state = initial_state(network, self.settings, "cpu")
        self.tiles = data(self.settings)
        self.validation = [next(iter(torch.utils.data.DataLoader(self.tiles, batch_size=4)))]

    def run(self) -> list[loop.Epoch]:
        """Train the remaining epochs."""
        return list(loop.fit(self.state, self.tiles, self.validation, self.settings))

    def step_epochs(self, count: int) -> list[loop.Epoch]:
        """Train the next `count` epochs."""
        epochs = loop.fit(self.state, self.tiles, self.validation, self.settings)
        return [next(epochs) for _ in range(count)]

    def weights(self) -> dict[str, torch.Tensor]:
        """Copy the weights of the network."""
        return {name: tensor.clone() for name, tensor in self.state.network.state_dict().items()}


@pytest.fixture
def training() -> Callable[..., Training]:
    """Return the class of trainings; keyword arguments change the settings."""
    return Training
