"""Build all parts of a training run before its first step: network, optimizer, training tiles, validation tiles."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segline.data.dataset import IGNORE
from segline.data.prepared import Prepared
from segline.data.tile_sampler import TrainingTiles, ValidationTiles
from segline.model.inference import Description
from segline.model.network import Network
from segline.params import Train, Tuned
from segline.train import pretrained
from segline.train.loss import LossSums

# image (b, C, n, n), target (b, m, m), weights (b, m, m), and object map (b, m, m) if the network predicts it
Batch = Sequence[Tensor]


@dataclass
class State:
    """State of a training run between two steps.

    Between epochs, (seed, epoch, index) determines all later random numbers. Within an epoch, these numbers also depend
    on torch's random generators. The generators have advanced since the start of the epoch.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    last_epoch: int  # number of the last epoch: train.epochs, or less to keep to train.minutes
    epoch: int = 0  # finished epochs
    time_spent: float = 0.0  # since the start of the training, without interruptions, s
    epoch_began: float = 0.0  # `time_spent` at the start of the current epoch
    losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    step: int = 0  # finished steps of the current epoch
    sums: LossSums | None = None  # loss sums over these steps
    seconds: float = 0.0  # time spent on these steps
    random: dict[str, Tensor] = field(default_factory=dict)  # states of torch's random generators to restore


@dataclass(frozen=True)
class Training:
    """Arguments for `loop.fit`, and the description of the network."""

    state: State
    tiles: TrainingTiles
    validation: DataLoader[Batch]
    description: Description


def build(prepared: Prepared, tuned: Tuned, device: str, judged_by: Train | None = None) -> Training:
    """Build a training run on the prepared dataset. Equal settings and data give an equal training run.

    `judged_by` : validation tiles are those of these settings; default: those of `tuned`.
    """
    dataset, settings = prepared.dataset, tuned.train
    description = Description(
        tuned.model.network,
        dataset.classes,
        dataset.labels,
        prepared.statistics,
        tuned.model.input_norm,
    )
    torch.manual_seed(settings.seed)
    network = description.build()
    if tuned.model.encoder_weights:
        pretrained.load(network, pretrained.FOLDER / tuned.model.encoder_weights)
    state = initial_state(network, settings, device)
    tiles = TrainingTiles(
        *prepared.tile_sources("train"),
        statistics=prepared.input_statistics("train", tuned.model.input_norm),
        settings=tuned.augment,
        tile=settings.tile,
        output=state.network.geometry.output(settings.tile),
        tiles_per_epoch=settings.tiles_per_epoch,
        seed=settings.seed,
        ignore=IGNORE,
        density=prepared.density(),
        object_maps=prepared.object_maps("train") if tuned.model.object_map else None,
    )
    judge = judged_by or settings
    validation_tiles = ValidationTiles(
        *prepared.tile_sources("validation"),
        statistics=prepared.input_statistics("validation", tuned.model.input_norm),
        tile=judge.tile,
        output=state.network.geometry.output(judge.tile),
        most=judge.validation_tiles,
        ignore=IGNORE,
        object_maps=prepared.object_maps("validation") if tuned.model.object_map else None,
    )
    validation: DataLoader[Batch] = DataLoader(validation_tiles, batch_size=settings.batch_size)  # type: ignore[arg-type]
    return Training(state, tiles, validation, description)


def initial_state(network: Network, settings: Train, device: str) -> State:
    """Move `network` to `device`, and return the state before the first step."""
    network = network.to(device)
    if settings.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's annotations
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=settings.amp == "fp16")
    return State(network, make_optimizer(network, settings), scaler, settings.epochs)


def make_optimizer(network: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """Make the optimizer. For adam and adamw, the first beta is `momentum`. adagrad has no momentum."""
    rate, decay, momentum = settings.learning_rate, settings.weight_decay, settings.momentum
    parameters = network.parameters()
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay)
        case "adagrad":
            return torch.optim.Adagrad(parameters, lr=rate, weight_decay=decay)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=rate, momentum=momentum, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, betas=(momentum, 0.999), weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, betas=(momentum, 0.999), weight_decay=decay)
