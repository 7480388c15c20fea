"""Compute learning rate and momentum without hidden state, so that a resumed training equals an uninterrupted one."""

import math
from collections.abc import Sequence

from segline.params import Train

ONE_CYCLE_START = 25  # one_cycle starts at learning_rate / 25
ONE_CYCLE_END = 1e4  # one_cycle ends at its first learning rate / 10,000 (Smith and Topin 2018)


def learning_rate(settings: Train, step: int, steps_per_epoch: int, validation_losses: Sequence[float]) -> float:
    """Return the learning rate of step number `step`, counted from 0.

    Schedule `constant` never changes the rate. Schedules `step`, `exponential` and `plateau` change the rate between
    epochs, all other schedules at every step. Only `plateau` needs `validation_losses`, one for each epoch.
    """
    schedule, peak = settings.schedule, settings.learning_rate
    epoch, total = step // steps_per_epoch, settings.epochs * steps_per_epoch
    progress = step / total
    match schedule.kind:
        case "constant":
            return peak
        case "step":
            return peak * math.pow(schedule.gamma, epoch // schedule.step_epochs)
        case "exponential":
            return peak * math.pow(schedule.gamma, epoch)
        case "poly":
            return peak * math.pow(1 - progress, schedule.power)
        case "cosine":
            return peak * (1 + math.cos(math.pi * progress)) / 2
        case "one_cycle":
            return _one_cycle(peak, step, total, schedule.warmup_percent / 100)
        case "plateau":
            return peak * math.pow(schedule.gamma, drops(validation_losses, schedule.patience))


def _one_cycle(peak: float, step: int, total: int, warmup: float) -> float:
    """Return the `one_cycle` learning rate of a step: a cosine rise to `peak`, then a cosine fall to nearly 0."""
    if total == 1:
        return peak
    turn = warmup * total - 1
    low, end = peak / ONE_CYCLE_START, peak / ONE_CYCLE_START / ONE_CYCLE_END
    if step < turn:
        return _cosine(low, peak, step / turn)
    return _cosine(peak, end, (step - turn) / (total - 1 - turn))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def drops(losses: Sequence[float], patience: int) -> int:
    """Count the plateaus of the loss: stretches of `patience` + 1 consecutive epochs without a new minimum.

    A stretch begins after a new minimum or after the previous stretch, so stretches do not overlap.
    """
    count, waited, best = 0, 0, math.inf
    for loss in losses:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited > patience:
            count, waited = count + 1, 0
    return count


def momentum(settings: Train, step: int, steps_per_epoch: int) -> float:
    """Return the momentum of step number `step`. The momentum rises linearly from momentum_start, then stays constant.

    The effective rate is learning_rate / (1 - momentum). At momentum 0.99 it is a hundred times the learning rate.
    That is too much for the first steps.
    """
    steps = settings.momentum_warmup_percent / 100 * settings.epochs * steps_per_epoch
    if step >= steps or settings.momentum_start >= settings.momentum:
        return settings.momentum
    return settings.momentum_start + (settings.momentum - settings.momentum_start) * step / steps


def shortened(settings: Train, epochs: int) -> Train:
    """Return the settings for a training of `epochs` epochs; the learning rate curve is scaled to this length.

    The scaled step_epochs and patience are rounded to whole epochs.
    """
    ratio, schedule = epochs / settings.epochs, settings.schedule
    changes: dict[str, float] = {
        "step_epochs": max(1, round(schedule.step_epochs * ratio)),
        "patience": round(schedule.patience * ratio),
    }
    if schedule.kind == "exponential":
        changes["gamma"] = math.pow(schedule.gamma, 1 / ratio)
    return settings.model_copy(update={"epochs": epochs, "schedule": schedule.model_copy(update=changes)})
