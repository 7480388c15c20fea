"""The training loop, as a generator: `for epoch in fit(...)`. It neither logs nor saves; whoever runs it does."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segline.data.dataset import IGNORE
from segline.data.sampler import TrainingTiles, training_loader
from segline.model.unet import UNet
from segline.params import Train
from segline.score import counts
from segline.train import schedule
from segline.train.collapse import collapsed
from segline.train.device import PRECISIONS
from segline.train.loss import LossSums

Batch = Sequence[Tensor]  # image (b, C, n, n), target (b, m, m), weights (b, m, m)

TINY = 1e-12
CHECK_EVERY = 16  # steps between two looks at the loss: each one waits for the GPU


class TrainingError(RuntimeError):
    """Training cannot go on; the message says what to change."""


@dataclass
class State:
    """All that a training is at the end of an epoch; random numbers follow from (seed, epoch, index)."""

    network: UNet
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0  # finished epochs
    losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave. Rates are read back from the optimizer at its first step.

    ``collapsed``: the class that every validation pixel was given, although the truth has several.
    """

    epoch: int
    loss: float
    validation_loss: float
    validation_mean_iou: float
    validation_pixel_error: float
    validation_predicted_classes: int
    learning_rate: float
    momentum: float
    tiles_per_second: float
    collapsed: int | None = None


def start(network: UNet, settings: Train, device: str) -> State:
    """A training that has not begun."""
    network = network.to(device)
    if settings.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's annotations
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=settings.amp == "fp16")
    return State(network, make_optimizer(network, settings), scaler)


def make_optimizer(network: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """The optimizer that the settings name; `momentum` is the first beta of adam and adamw, and unused by adagrad."""
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


def fit(
    state: State, tiles: TrainingTiles, validation: Iterable[Batch], settings: Train, workers: int = 0
) -> Iterator[Epoch]:
    """Train `state` to its last epoch, in place, and yield after each.

    Parameters
    ----------
    tiles:
        Training tiles, each a function of (seed, epoch, index).
    validation:
        The batches judged after each epoch, always the same.
    workers:
        Processes that prepare tiles; the batches do not depend on it.

    Raises
    ------
    TrainingError
        The loss is not finite.
    """
    epochs = range(state.epoch, settings.epochs)
    batches = iter(training_loader(tiles, batch_size=settings.batch_size, epochs=epochs, workers=workers))
    steps = math.ceil(settings.tiles_per_epoch / settings.batch_size)
    while state.epoch < settings.epochs:
        # Dropout draws from torch's own generator: this makes it a function of (seed, epoch) too.
        torch.manual_seed(int(np.random.SeedSequence((settings.seed, state.epoch)).generate_state(1)[0]))
        began = perf_counter()
        rates: tuple[float, float] | None = None
        total: LossSums | None = None
        state.network.train()
        for number, batch in enumerate(islice(batches, steps)):
            set_rates(state, settings, state.epoch * steps + number, steps)
            rates = rates or read_rates(state.optimizer)
            sums = train_step(state, batch, settings)
            total = sums if total is None else total + sums
            if number % CHECK_EVERY == 0 or number == steps - 1:
                refuse_not_finite(total, state.epoch, number, settings)
        assert total is not None and rates is not None
        seconds = perf_counter() - began
        validation_loss, confusion = judge(state.network, validation, settings)
        loss = float(total.loss(settings.dice_weight))
        state.epoch += 1
        state.losses.append(loss)
        state.validation_losses.append(validation_loss)
        yield Epoch(
            epoch=state.epoch,
            loss=loss,
            validation_loss=validation_loss,
            validation_mean_iou=counts.mean_iou(confusion),
            validation_pixel_error=counts.pixel_error(confusion),
            validation_predicted_classes=int(np.count_nonzero(confusion.sum(axis=0))),
            learning_rate=rates[0],
            momentum=rates[1],
            tiles_per_second=settings.tiles_per_epoch / seconds,
            collapsed=collapsed(confusion),
        )


def set_rates(state: State, settings: Train, step: int, steps_per_epoch: int) -> None:
    """Write the learning rate and momentum of `step` into the optimizer."""
    momentum = schedule.momentum(settings, step, steps_per_epoch)
    for group in state.optimizer.param_groups:
        group["lr"] = schedule.learning_rate(settings, step, steps_per_epoch, state.validation_losses)
        if "momentum" in group:
            # rmsprop makes its buffer only if there is momentum at the first step.
            group["momentum"] = max(momentum, TINY) if settings.momentum else 0.0
        elif "betas" in group:
            group["betas"] = (momentum, group["betas"][1])


def read_rates(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """Learning rate and momentum (first beta; 0 where there is none) that the optimizer really uses."""
    group = optimizer.param_groups[0]
    return group["lr"], group.get("momentum", group.get("betas", (0.0,))[0])


def train_step(state: State, batch: Batch, settings: Train) -> LossSums:
    """One step of the optimizer; returns the sums of its batch, without gradient."""
    state.optimizer.zero_grad(set_to_none=True)
    sums = forward(state.network, batch, settings)
    state.scaler.scale(sums.loss(settings.dice_weight)).backward()  # type: ignore[no-untyped-call]
    if settings.gradient_clipping:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), settings.gradient_clipping)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return LossSums(*(value.detach() for value in vars(sums).values()))


def forward(network: UNet, batch: Batch, settings: Train, confusion: npt.NDArray[np.int64] | None = None) -> LossSums:
    """Sums of the loss over `batch`; adds to `confusion` (K, K) where it is given."""
    device = next(network.parameters()).device
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    image = batch[0].to(device, memory_format=memory_format, non_blocking=True)
    target, weights = (part.to(device, non_blocking=True) for part in batch[1:])
    with autocast(device, settings):
        logits: Tensor = network(image)
    if confusion is not None:
        predicted = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
        confusion += counts.confusion(batch[1].numpy(), predicted, len(confusion), IGNORE)
    return LossSums.of(logits, target, weights)


def autocast(device: torch.device, settings: Train) -> torch.autocast:
    """The precision that `train.amp` names."""
    return torch.autocast(device.type, dtype=PRECISIONS.get(settings.amp), enabled=settings.amp != "off")


def judge(network: UNet, batches: Iterable[Batch], settings: Train) -> tuple[float, npt.NDArray[np.int64]]:
    """Loss and confusion (K, K) over all of `batches`."""
    network.eval()
    classes = network.classes
    confusion = np.zeros((classes, classes), np.int64)
    total: LossSums | None = None
    with torch.inference_mode():
        for batch in batches:
            sums = forward(network, batch, settings, confusion)
            total = sums if total is None else total + sums
    assert total is not None
    return float(total.loss(settings.dice_weight)), confusion


def refuse_not_finite(sums: LossSums, epoch: int, step: int, settings: Train) -> None:
    """Stop a training that has diverged."""
    if torch.isfinite(sums.cross_entropy):
        return
    advice = [f"lower train.learning_rate (now {settings.learning_rate:g}), for example to a tenth"]
    if not settings.gradient_clipping:
        advice.append("set train.gradient_clipping to 1")
    if settings.amp == "fp16":
        advice.append("set train.amp to bf16 or off")
    if settings.momentum_warmup_percent == 0 and settings.momentum > 0.9:
        advice.append("set train.momentum_warmup_percent to 20")
    raise TrainingError(f"the loss is not finite in epoch {epoch + 1}, step {step + 1}: " + ", or ".join(advice))
