"""Choose settings from the fingerprint of a dataset. Each choice has its reason in one sentence."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from segline.params import Train, Tune
from segline.planning.fingerprint import Fingerprint
from segline.planning.speed import Speed

VARIED = 0.75  # variety above which images are normalised one by one
DIRECTED = 0.3  # direction above which tiles are hardly rotated
TOUCHING = 0.05  # contact above which a border weight map is worth its time
RARE = 0.01  # frequency below which a class is rare
LARGE = 128  # diameter above which the network looks at blocks of pixels, px
THIN = 4  # width below which it never does, px
SHARE = 0.8  # share of the time for training steps; the rest is for tiles, validation, pictures and checkpoints
EPOCHS = 30  # epochs of a training, if there is time for as many
FEWEST = 10  # smallest number of steps of an epoch
SEARCH = 0.3  # the search gets this share of the epochs that the training has, if it fits
SIDES = (128, 256)  # smallest and largest tile at reduction 1, px
DEEP = 192  # side of a tile at reduction 1 from which the network has four poolings, px


@dataclass(frozen=True)
class Choice:
    """A planned setting: its full name, its value, and the reason."""

    setting: str
    value: object
    reason: str


def choose(of: Fingerprint) -> list[Choice]:
    """Choose the settings that follow from the dataset alone, whatever the machine."""
    return [*_network(of), *_weights(of), *_augmentation(of), *_training(of), *_evaluation(of)]


def large(of: Fingerprint) -> float:
    """Return the diameter of the large objects, px; without objects, the shorter side of the images."""
    return of.diameters[-1] if of.diameters else of.side


def reduction(of: Fingerprint) -> int:
    """Return the side of the pixel blocks that become channels, px."""
    return 2 if large(of) > LARGE and of.width >= THIN and of.kind != "boundaries" else 1


def tile(of: Fingerprint) -> int:
    """Return the side of a training tile, px: a multiple of 32 for each pixel of a block."""
    step = 32 * reduction(of)
    lowest, highest = (side * reduction(of) for side in SIDES)
    wanted = min(max(4 * large(of), lowest), highest)
    return step * min(ceil(wanted / step), max(2, ceil(of.side / step)))


def _network(of: Fingerprint) -> Iterator[Choice]:
    blocks, side = reduction(of), tile(of)
    yield Choice("model.padding", "same", "padded convolutions keep the size, so every pixel of a tile is learned from")
    if side / blocks >= DEEP:
        yield Choice("model.depth", 4, f"tiles of {side} px are large enough for four poolings")
    else:
        yield Choice("model.depth", 3, f"tiles of {side} px leave nothing to see after three poolings")
    if blocks > 1:
        reason = f"a tenth of the objects are larger than {large(of):.0f} px, so the network must see far"
    elif of.width < THIN:
        reason = f"the thinnest areas are {of.width:.1f} px wide, so every pixel counts"
    else:
        reason = f"nine of ten objects are smaller than {max(large(of), LARGE):.0f} px, so the network sees far enough"
    yield Choice("model.reduction", blocks, reason)
    if of.variety > VARIED:
        reason = f"the brightness differs {of.variety:.1f} times as much between images as within them"
        yield Choice("model.input_norm", "image", reason)
    else:
        reason = f"the brightness differs only {of.variety:.2f} times as much between images as within them"
        yield Choice("model.input_norm", "dataset", reason)
    yield Choice("model.norm", "batch", "batch norm learns fastest, and keeps tiled prediction exact")


def _weights(of: Fingerprint) -> Iterator[Choice]:
    if of.kind == "instances" and of.contact > TOUCHING:
        yield Choice("weights.kind", "paper", f"{of.contact:.0%} of the objects touch another or nearly do")
    elif of.kind == "instances":
        yield Choice("weights.kind", "none", f"only {of.contact:.0%} of the objects touch another")
    else:
        yield Choice("weights.kind", "none", f"the labels are {of.kind}, not objects to keep apart")
    rarest = min(of.frequencies[1:])
    if of.kind == "boundaries":
        yield Choice("weights.class_balance", 0.0, "the thresholds decide between line and cell, not the weights")
    elif rarest < RARE:
        yield Choice("weights.class_balance", 0.25, f"the rarest class covers {rarest:.2%} of the pixels")
    elif of.kind == "instances":
        yield Choice("weights.class_balance", 0.5, "gaps between objects are rare, and must weigh more")
    else:
        yield Choice("weights.class_balance", 0.0, f"the rarest class covers {rarest:.0%} of the pixels")
    if rarest < RARE or of.empty > 0.1:
        reason = f"the rarest class covers {rarest:.2%} of the pixels, and {of.empty:.0%} of the images are empty"
        yield Choice("weights.density_balance", 0.4, reason)
    else:
        yield Choice("weights.density_balance", 0.0, "every class is in most tiles")


def _augmentation(of: Fingerprint) -> Iterator[Choice]:
    directed = of.direction > DIRECTED
    if directed:
        yield Choice("augment.rotation", 5.0, f"most edges have one direction ({of.direction:.2f} of 1)")
    else:
        yield Choice("augment.rotation", 180.0, f"edges have all directions ({of.direction:.2f} of 1)")
    sigma = round(tile(of) / (96 if directed else 48), 1)
    yield Choice("augment.elastic_sigma", sigma, f"a mild deformation for a tile of {tile(of)} px")
    spread = of.diameters[-1] / of.diameters[0] if of.diameters else 1.0
    if of.kind == "instances" and spread > 3:
        reason = f"large objects are {spread:.1f} times as wide as small ones"
        yield from (Choice("augment.min_scale", 0.7, reason), Choice("augment.max_scale", 1.4, reason))
    else:
        reason = "all images have about one magnification"
        yield from (Choice("augment.min_scale", 0.85, reason), Choice("augment.max_scale", 1.15, reason))
    reason = f"within an image, the brightness has a standard deviation of {of.contrast:.3f} of the type's range"
    yield Choice("augment.brightness", _rounded(0.3 * of.contrast), reason)
    yield Choice("augment.noise", _rounded(0.1 * of.contrast), reason)
    yield Choice("augment.contrast", 0.2, "exposures differ a little in every series of images")


def _training(of: Fingerprint) -> Iterator[Choice]:
    yield Choice("train.tile", tile(of), f"about four times the diameter of large objects, {large(of):.0f} px")
    yield Choice("train.batch_size", 4, "the smallest batch with reliable statistics for batch norm")
    yield Choice("train.optimizer", "adamw", "learns most in a short training")
    yield Choice("train.learning_rate", 0.003, "a high rate, which batch norm permits")
    yield Choice("train.schedule.kind", "one_cycle", "ends at a rate of 0 when the time is over")
    rare = min(of.frequencies[1:]) < RARE
    monitor = "loss" if rare else "mean_iou"
    reason = (
        "a rare class makes the IoU of an epoch a matter of chance" if rare else "the best epoch by what is reported"
    )
    yield Choice("train.monitor", monitor, reason)


def _evaluation(of: Fingerprint) -> Iterator[Choice]:
    if of.kind == "boundaries":
        yield Choice("evaluate.views", 8, "a broken line joins two cells, and eight views close most gaps")
    else:
        yield Choice("evaluate.views", 4, "the mean of the image and its mirror images is more certain than one answer")


def length(timed: Speed, minutes: float, train: Train, tune: Tune) -> list[Choice]:
    """Choose precision and length of a training that takes `minutes` together with its search.

    Parameters
    ----------
    timed : times of a training step on this machine.
    train : settings that are planned already; batch size and tile count here.
    tune : settings of the search; it has `tune.trials` trials, which are stopped early or run to their end.
    """
    steps = SHARE * 60 * minutes / timed.seconds[timed.amp]
    epochs = max(1, min(EPOCHS, int(steps / FEWEST)))
    trial = max(1, round(SEARCH * epochs / tune.trials)) if tune.trials else tune.epochs
    per_epoch = max(1, int(steps / (epochs + tune.trials * trial)))
    rates = " and ".join(
        f"{train.batch_size / seconds:.1f} tiles/s with {amp}" for amp, seconds in timed.seconds.items()
    )
    took = f"search and training then take about {minutes:g} minutes on this machine"
    chosen = [
        Choice("train.amp", timed.amp, f"this machine trains {rates}"),
        Choice("train.epochs", epochs, took),
        Choice("train.tiles_per_epoch", per_epoch * train.batch_size, took),
    ]
    if tune.trials:
        chosen.append(Choice("tune.epochs", trial, f"{tune.trials} trials then take about a third of the training"))
    return chosen


def _rounded(value: float) -> float:
    """Round to two significant digits."""
    return float(f"{value:.2g}")
