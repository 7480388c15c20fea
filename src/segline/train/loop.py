"""Run the training loop as a generator: `for epoch in fit(...)`. The caller does the logging and saving.

`moments` is the same loop, but also yields after each step, so that the caller can show progress, save or stop.
"""

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segline.data.dataset import IGNORE
from segline.data.tile_sampler import TrainingTiles, training_loader
from segline.model.network import Network
from segline.params import Train
from segline.process import without_torch_sigchld
from segline.score import counts
from segline.train import schedule
from segline.train.collapse import collapsed
from segline.train.device import PRECISIONS
from segline.train.loss import LossSums
from segline.train.setup import Batch, State

TINY = 1e-12
TOLERANCE = 0.1  # the number of epochs stays if their expected time differs by this fraction of train.minutes
OVERTIME = 1.15  # training and search end at once after this many times their limits; validation stays within 1.2
CHECK_EVERY = 16  # steps between two checks that the loss is finite; a check is slow, because it waits for the GPU


class TrainingError(RuntimeError):
    """The training cannot continue; the message says what to change."""


@dataclass(frozen=True)
class Step:
    """Event after a training step or a validation batch. `steps` is the number of training steps in an epoch.

    After a validation batch, `step` is equal to `steps`.
    """

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class Epoch:
    """Metrics of one epoch. The learning rate and momentum are those of the epoch's first optimizer step.

    ``collapsed``: the class predicted for every validation pixel, although the ground truth has several classes.
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

    def metrics(self) -> dict[str, float]:
        """Return the logged metrics by name."""
        return {name: value for name, value in asdict(self).items() if name not in ("epoch", "collapsed")}

    def summary(self) -> str:
        """Return the main metrics as one line of text for the terminal."""
        return (
            f"loss {self.loss:.4f} validation {self.validation_loss:.4f} mean IoU {self.validation_mean_iou:.3f} "
            f"pixel error {self.validation_pixel_error:.3f} {self.tiles_per_second:.1f} tiles/s"
        )


def fit(
    state: State,
    tiles: TrainingTiles,
    validation: Iterable[Batch],
    settings: Train,
    workers: int = 0,
    *,
    judged_by: Train | None = None,
    check: Callable[[], None] = lambda: None,
) -> Generator[Epoch]:
    """Train `state` in place until `settings.epochs` epochs are done; yield the metrics of each epoch.

    If this takes longer than `settings.minutes`, there are fewer epochs.

    Parameters
    ----------
    tiles:
        Training tiles; (seed, epoch, index) determines each tile.
    validation:
        Batches on which the network is evaluated after each epoch. They are the same for every epoch.
    workers:
        Number of processes that prepare tiles. The batches do not depend on this number.
    judged_by:
        The validation loss has the `dice_weight` of these settings; default: `settings`.
    check:
        Called after each step and each validation batch; an exception that it raises stops the training.

    Raises
    ------
    TrainingError
        The loss is not finite.
    """
    for moment in moments(state, tiles, validation, settings, workers, judged_by=judged_by):
        check()
        if isinstance(moment, Epoch):
            yield moment


def moments(
    state: State,
    tiles: TrainingTiles,
    validation: Iterable[Batch],
    settings: Train,
    workers: int = 0,
    *,
    judged_by: Train | None = None,
) -> Iterator[Step | Epoch]:
    """Train like `fit`, but also yield a Step after each step and each validation batch.

    The caller may save `state` at each Step.
    """
    epochs = range(state.epoch, settings.epochs)
    loader = training_loader(tiles, batch_size=settings.batch_size, epochs=epochs, workers=workers, skip=state.step)
    with without_torch_sigchld():
        batches = iter(loader)
    steps = steps_per_epoch(settings)
    started = perf_counter() - state.time_spent
    while state.epoch < state.last_epoch:
        current = schedule.shortened(settings, state.last_epoch)
        set_rates(state, current, state.epoch * steps, steps)
        rates = read_rates(state.optimizer)
        seed_generators(state, current)
        for step in _train(state, batches, current):
            state.time_spent = perf_counter() - started
            yield step
            if is_overtime(state, settings):
                break
        confusion = np.zeros((state.network.classes, state.network.classes), np.int64)
        validation_loss = math.nan
        for loss in evaluate(state.network, validation, judged_by or settings, confusion):
            validation_loss = loss
            yield Step(state.epoch + 1, steps, steps)
        epoch = _close(state, settings, validation_loss, confusion, rates)
        state.time_spent = perf_counter() - started
        state.last_epoch = last_epoch_in_time(state, settings)
        state.epoch_began = state.time_spent
        yield epoch


def last_epoch_in_time(state: State, settings: Train) -> int:
    """Return the number of the last epoch that ends within train.minutes, at most train.epochs.

    The next epochs are expected to take as long as the latest one. Because that one may have been slow by chance, a
    training that was shortened becomes longer again if there is time.
    """
    limit, latest = 60 * settings.minutes, state.time_spent - state.epoch_began
    expected = state.time_spent + latest * (state.last_epoch - state.epoch)
    if not limit or abs(expected - limit) <= TOLERANCE * limit:
        return state.last_epoch
    return min(settings.epochs, state.epoch + max(0, int((limit - state.time_spent) / latest)))


def is_overtime(state: State, settings: Train) -> bool:
    """Return whether the training must end at once, within an epoch, because train.minutes is exceeded too far."""
    return 0 < OVERTIME * 60 * settings.minutes < state.time_spent


def steps_per_epoch(settings: Train) -> int:
    """Return the number of steps in an epoch; the batch of the last step may be smaller."""
    return math.ceil(settings.tiles_per_epoch / settings.batch_size)


def seed_generators(state: State, settings: Train) -> None:
    """Set torch's random generators (for dropout) to the states in `state.random`, or, if it is empty, to a seed."""
    torch.manual_seed(int(np.random.SeedSequence((settings.seed, state.epoch)).generate_state(1)[0]))
    device = next(state.network.parameters()).device
    if "cpu" in state.random:
        torch.set_rng_state(state.random["cpu"])
    if "cuda" in state.random and device.type == "cuda":
        torch.cuda.set_rng_state(state.random["cuda"], device)
    state.random = {}


def _train(state: State, batches: Iterator[Batch], settings: Train) -> Iterator[Step]:
    """Train for the remaining steps of the epoch; yield a Step after each one."""
    state.network.train()
    steps = steps_per_epoch(settings)
    while state.step < steps:
        start = perf_counter()
        batch = next(batches)
        set_rates(state, settings, state.epoch * steps + state.step, steps)
        sums = train_step(state, batch, settings)
        state.sums = sums if state.sums is None else state.sums + sums
        if state.step % CHECK_EVERY == 0 or state.step == steps - 1:
            refuse_not_finite(state.sums, state.epoch, state.step, settings)
        state.step += 1
        state.seconds += perf_counter() - start
        yield Step(state.epoch + 1, state.step, steps)


def _close(
    state: State, settings: Train, validation_loss: float, confusion: npt.NDArray[np.int64], rates: tuple[float, float]
) -> Epoch:
    """Finish the current epoch and return its metrics."""
    assert state.sums is not None
    loss = float(state.sums.loss(settings.dice_weight))
    epoch = Epoch(
        epoch=state.epoch + 1,
        loss=loss,
        validation_loss=validation_loss,
        validation_mean_iou=counts.mean_iou(confusion),
        validation_pixel_error=counts.pixel_error(confusion),
        validation_predicted_classes=int(np.count_nonzero(confusion.sum(axis=0))),
        learning_rate=rates[0],
        momentum=rates[1],
        tiles_per_second=min(settings.tiles_per_epoch, state.step * settings.batch_size) / state.seconds,
        collapsed=collapsed(confusion),
    )
    state.epoch, state.step, state.sums, state.seconds = epoch.epoch, 0, None, 0.0
    state.losses.append(loss)
    state.validation_losses.append(validation_loss)
    return epoch


def set_rates(state: State, settings: Train, step: int, steps_per_epoch: int) -> None:
    """Set the optimizer's learning rate and momentum to the scheduled values for `step`."""
    momentum = schedule.momentum(settings, step, steps_per_epoch)
    for group in state.optimizer.param_groups:
        group["lr"] = schedule.learning_rate(settings, step, steps_per_epoch, state.validation_losses)
        if "momentum" in group:
            # Use TINY, not 0, because rmsprop allocates its momentum buffer only if the first momentum is above 0.
            group["momentum"] = max(momentum, TINY) if settings.momentum else 0.0
        elif "betas" in group:
            group["betas"] = (momentum, group["betas"][1])


def read_rates(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """Return the optimizer's learning rate and momentum.

    For adam and adamw, the momentum is the first beta; for adagrad, it is 0.
    """
    group = optimizer.param_groups[0]
    return group["lr"], group.get("momentum", group.get("betas", (0.0,))[0])


def train_step(state: State, batch: Batch, settings: Train) -> LossSums:
    """Take one optimizer step on `batch`; return the `LossSums` of the batch, detached from the autograd graph."""
    state.optimizer.zero_grad(set_to_none=True)
    sums = forward(state.network, batch, settings)
    state.scaler.scale(sums.loss(settings.dice_weight)).backward()  # type: ignore[no-untyped-call]
    if settings.gradient_clipping:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), settings.gradient_clipping)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return LossSums(*(value.detach() for value in vars(sums).values()))


def forward(
    network: Network, batch: Batch, settings: Train, confusion: npt.NDArray[np.int64] | None = None
) -> LossSums:
    """Return the `LossSums` of `batch`. If a matrix `confusion` (K, K) is given, add the predictions to its counts."""
    device = next(network.parameters()).device
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    image = batch[0].to(device, memory_format=memory_format, non_blocking=True)
    targets = [part.to(device, non_blocking=True) for part in batch[1:]]
    with autocast(device, settings):
        logits: Tensor = network(image)
    if confusion is not None:
        predicted = logits[:, : network.classes].argmax(dim=1).to(torch.uint8).cpu().numpy()
        confusion += counts.confusion(batch[1].numpy(), predicted, len(confusion), IGNORE)
    return LossSums.of(logits, *targets)


def autocast(device: torch.device, settings: Train) -> torch.autocast:
    """Return the autocast context for the precision `train.amp`."""
    return torch.autocast(device.type, dtype=PRECISIONS.get(settings.amp), enabled=settings.amp != "off")


def evaluate(
    network: Network, batches: Iterable[Batch], settings: Train, confusion: npt.NDArray[np.int64]
) -> Iterator[float]:
    """After each batch, add its predictions to `confusion` (K, K), and yield the loss over all batches so far."""
    network.eval()
    total: LossSums | None = None
    for batch in batches:
        # Enter inference mode for each batch separately: the caller of this generator must run outside inference mode.
        with torch.inference_mode():
            sums = forward(network, batch, settings, confusion)
            total = sums if total is None else total + sums
            loss = float(total.loss(settings.dice_weight))
        yield loss


def refuse_not_finite(sums: LossSums, epoch: int, step: int, settings: Train) -> None:
    """Raise TrainingError with advice if the loss is inf or nan."""
    if torch.isfinite(sums.cross_entropy):
        return
    advice = [f"lower train.learning_rate (now {settings.learning_rate:g}), for example to a tenth"]
    if not settings.gradient_clipping:
        advice.append("set train.gradient_clipping to 1")
    if settings.amp == "fp16":
        advice.append("set train.amp to 'bf16' or 'off'")
    if settings.momentum_warmup_percent == 0 and settings.momentum > 0.9:
        advice.append("set train.momentum_warmup_percent to 20")
    raise TrainingError(f"the loss is not finite in epoch {epoch + 1}, step {step + 1}; " + ", or ".join(advice))
