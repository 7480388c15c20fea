"""A training before its first step: network, tiles and validation tiles, as the settings say."""

from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from segline.data.dataset import IGNORE
from segline.data.prepared import Prepared
from segline.data.sampler import TrainingTiles, ValidationTiles
from segline.model.inference import Description
from segline.params import Tuned
from segline.train import loop


@dataclass(frozen=True)
class Training:
    """What `loop.fit` needs; ``description`` says what the network is for."""

    state: loop.State
    tiles: TrainingTiles
    validation: DataLoader[loop.Batch]
    description: Description


def begin(prepared: Prepared, tuned: Tuned, device: str) -> Training:
    """A training on `prepared` that has not begun; the same settings give the same one."""
    dataset, settings = prepared.dataset, tuned.train
    description = Description(tuned.model.model_dump(), dataset.classes, dataset.labels, prepared.statistics)
    torch.manual_seed(settings.seed)
    state = loop.start(description.build(), settings, device)
    output = state.network.geometry.output(settings.tile)
    tiles = TrainingTiles(
        *prepared.tile_sources("train"),
        statistics=prepared.statistics,
        settings=tuned.augment,
        tile=settings.tile,
        output=output,
        tiles_per_epoch=settings.tiles_per_epoch,
        seed=settings.seed,
        ignore=IGNORE,
        density=prepared.density(),
    )
    judged = ValidationTiles(
        *prepared.tile_sources("validation"),
        statistics=prepared.statistics,
        tile=settings.tile,
        output=output,
        most=settings.validation_tiles,
        ignore=IGNORE,
    )
    validation: DataLoader[loop.Batch] = DataLoader(judged, batch_size=settings.batch_size)  # type: ignore[arg-type]
    return Training(state, tiles, validation, description)
