"""Choose settings from the fingerprint of a dataset and the speed of a machine. Each choice has its reason.

Some settings depend on others. If one of these has a value in params.yaml, the choice follows from that value. In all
functions, `fixed` holds the values in params.yaml by full name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, sqrt

from segline.model import geometry
from segline.params import Augment, Model
from segline.planning.fingerprint import Fingerprint
from segline.planning.speed import NoMemoryError, Speed

# Settings and sections of params.yaml that other choices depend on, or that the time of a training step depends on.
INPUTS = (
    "model",
    "augment.extra",
    *(f"train.{name}" for name in ("amp", "batch_size", "channels_last", "epochs", "optimizer", "tile")),
    *("train.tiles_per_epoch", "train.validation_tiles", "tune.epochs", "tune.trials", "weights.kind"),
)
# Settings that are chosen from the speed of the machine.
TIMED = (
    "model.width",
    "train.amp",
    "train.epochs",
    "train.tiles_per_epoch",
    "train.validation_tiles",
    "tune.epochs",
    "tune.trials",
)

# Limits that follow from the choices of `TIMED`. No plan reads the user's limits: another limit makes no new plan.
LIMITS = ("train.minutes", "tune.minutes")

# If the user fixed all settings of one of these sets, the resolution does not fall: the time would not change, or the
# tile would need a network of another depth.
KEPT = (
    {"train.epochs", "train.tiles_per_epoch"},
    *({name} for name in ("train.tile", "model.padding", "model.depth", "model.reduction")),
)

# Settings that decide which tiles fit.
SHAPE = tuple(f"model.{name}" for name in ("name", "encoder", "padding", "depth", "upsampling", "reduction"))

VARIED = (
    0.75  # variation of brightness between images, in units of that within images, above which each is normalised alone
)
DIRECTED = 0.3  # strength of a significant common direction of edges above which tiles are hardly rotated
CHANCE = 2.15  # without a common direction, the strength exceeds CHANCE / sqrt(number of images) in 1 % of cases
TOUCHING = 0.05  # fraction of touching objects above which a border weight map is worth its time
RARE = 0.01  # frequency below which a class is rare
CROWDED = 0.6  # fraction of touching objects above which an object map and a high border term are better
LARGE = 128  # diameter of large objects above which reduction is 2, px
SMALL = 20  # diameter of small objects above which reduction is 2, px: half the resolution still shows them
THIN = 12  # mean width of areas below which reduction stays 1, px
LEAST = 128  # smallest tile, px
SIDES = (96, 256)  # smallest and largest tile, px, divided by the reduction
DEEP = 192  # side of a tile with reduction 1 from which the network has four poolings, px
BATCH = 4  # tiles of a batch
WIDTHS = (16, 32, 64)  # possible numbers of channels at the first level
ENOUGH = 20_000  # a network wider than the narrowest is chosen only if there is time for this number of tiles
FEW = 4_000  # the resolution falls until there is time for this number of tiles
REDUCTIONS = (1, 2, 4)  # lowest reductions that are tried, until there is time for `FEW` tiles
SHARE = 0.8  # share of the time for training steps; the rest is for tiles, validation, pictures and checkpoints
EPOCHS = 30  # epochs of a training run, if time allows; more and shorter ones if a trial would have less than one
FEWEST = 10  # smallest number of steps in an epoch
SEARCH = 0.25  # share of the steps spent on the search
TRIALS = 3  # trials of a search; more trials would be shorter, and a trial that is too short misleads
TRIAL = 50  # a search whose trials have fewer steps tells nothing


FIXED = "your value"


@dataclass(frozen=True)
class Choice:
    """A planned setting: its full name, its value, and the reason."""

    setting: str
    value: object
    reason: str


Fixed = Mapping[str, object]


def choose(data: Fingerprint, fixed: Fixed, least: int = 1) -> list[Choice]:
    """Choose the settings that follow from the dataset alone, whatever the machine.

    `least` : lowest possible reduction; above 1 if training at a higher resolution takes too long.
    """
    network = [*_network(data, fixed, least)]
    decided = {choice.setting: choice.value for choice in network} | dict(fixed)
    side, reason = tile(data, decided, fixed)
    return [
        *network,
        *_weights(data, fixed),
        *_augmentation(data, side),
        *_extra(data, fixed),
        Choice("train.tile", side, reason),
        *_training(data, decided),
        *_evaluation(data),
    ]


def complete(
    data: Fingerprint, fixed: Fixed, minutes: float, speed_of: Callable[[Sequence[Choice], int], Speed]
) -> list[Choice]:
    """Choose all settings, so that search and training together take `minutes`.

    Where there is not even time for `FEW` tiles at the resolution that suits the objects, the resolution is lower.

    `speed_of` measures a network with the given choices and width.
    """
    width, batch_size = fixed.get("model.width", WIDTHS[0]), fixed.get("train.batch_size", BATCH)
    assert isinstance(width, int)
    assert isinstance(batch_size, int)
    for least in REDUCTIONS:
        choices = choose(data, fixed, least)
        if fixed.get("model.encoder", "none") != "none" or any(chosen <= fixed.keys() for chosen in KEPT):
            break
        if _tiles(speed_of(choices, width), minutes, batch_size) >= FEW:
            break
    return choices + timed(partial(speed_of, choices), minutes, batch_size, fixed)


def reduction(data: Fingerprint) -> int:
    """Return the setting model.reduction that suits the objects."""
    if data.kind == "boundaries" or not data.diameters or data.width < THIN:
        return 1
    return 2 if data.diameters[0] > SMALL or data.diameters[-1] > LARGE else 1


def wanted_side(data: Fingerprint, factor: int) -> tuple[int, str]:
    """Return the side of a training tile that suits the images and objects, px, and the reason for it.

    `factor` is the reduction that suits the objects, or the user's.
    """
    step = 32 * factor
    lowest, highest = max(LEAST, SIDES[0] * factor), SIDES[1] * factor
    image = step * max(2, ceil(data.side / step))
    wanted = step * ceil(4 * data.diameters[-1] / step) if data.diameters else highest
    if image < min(max(wanted, lowest), highest):
        return image, f"the median of the shorter sides of the images is {data.side} px"
    if not data.diameters:
        return highest, "there are no objects to measure, so the tile is the largest that is worth its time"
    large = f"one object in ten is wider than {data.diameters[-1]:.0f} px"
    if wanted > highest:
        return highest, f"{large}, but larger tiles are not worth their time"
    return max(wanted, lowest), f"{large}; a tile four times as wide shows such an object with its surroundings"


def tile(data: Fingerprint, decided: Fixed, fixed: Fixed) -> tuple[int, str]:
    """Return the setting train.tile, px, and the reason for it. `decided` holds the settings of the network.

    Unless the user fixed the tile, it is the next size that the network can take.
    """
    if "train.tile" in decided:
        side = decided["train.tile"]
        assert isinstance(side, int)
        return side, FIXED
    model = _model(decided)
    side, reason = wanted_side(data, _scale(data, model.reduction, fixed))
    sizes = geometry.of(**model.network)
    return sizes.at_least(side + 2 * sizes.margin), reason


def _model(settings: Fixed) -> Model:
    """Return those of `settings` that decide which tiles fit; the other settings have their defaults."""
    return Model.model_validate({name.removeprefix("model."): settings[name] for name in SHAPE if name in settings})


def _scale(data: Fingerprint, factor: int, fixed: Fixed) -> int:
    """Return the reduction that decides the size of a tile.

    A reduction that saves time does not make tiles larger, because that would cost this time again.
    """
    return factor if "model.reduction" in fixed else min(factor, reduction(data))


def _shape(data: Fingerprint, fixed: Fixed, least: int) -> tuple[int, int]:
    """Return model.reduction and model.depth: the preferred values, if any, that allow the tile set by the user.

    A fixed depth or reduction is taken as it is.
    """
    own = _model(fixed)
    wanted = max(least, reduction(data))
    factors = [n for n in reversed(REDUCTIONS) if n <= wanted]
    if "model.reduction" in fixed or own.encoder != "none":
        factors = [own.reduction]
    tiles = {n: fixed.get("train.tile", wanted_side(data, _scale(data, n, fixed))[0]) for n in factors}
    shapes = []
    for factor, side in tiles.items():
        assert isinstance(side, int)
        deepest = 4 if side / factor >= DEEP else 3
        if own.encoder != "none":
            deepest = 4 if own.encoder in geometry.VGG else 5
        depths = [own.depth] if "model.depth" in fixed else range(deepest, 0, -1)
        shapes += [(factor, depth, side) for depth in depths]
    if "train.tile" in fixed:
        for factor, depth, side in shapes:
            model = own.model_copy(update={"depth": depth, "reduction": factor})
            if geometry.of(**model.network).legal(side):
                return factor, depth
    return shapes[0][:2]


def _network(data: Fingerprint, fixed: Fixed, least: int) -> Iterator[Choice]:
    yield Choice("model.padding", "same", "padded convolutions learn from every pixel of a tile")
    factor, depth = _shape(data, fixed, least)
    side = fixed.get("train.tile", wanted_side(data, _scale(data, factor, fixed))[0])
    assert isinstance(side, int)
    yield Choice(
        "model.depth", depth, f"after {depth} poolings a tile of {side} px is {side // factor // 2**depth} px wide"
    )
    yield _reduction(data, fixed, factor, side)
    encoder = fixed.get("model.encoder", "none")
    varied = data.variety > VARIED
    reason = f"the brightness varies {data.variety:.2g} times as much between images as within them"
    yield Choice("model.input_norm", "image" if varied else "dataset", reason)
    if encoder != "none":
        yield Choice("model.norm", "batch", f"{encoder} learns best with batch norm")
    elif varied or data.kind == "classes":
        yield Choice("model.norm", "weight", "learns as fast as a norm of the values, but does not depend on the batch")
    else:
        yield Choice("model.norm", "batch", "where images are alike, it gives the most exact outlines of objects")
    yield Choice("model.upsampling", "transposed", "the paper's up-sampling, whose weights are learned")
    if data.kind == "instances":
        crowded = data.contact > CROWDED
        yield Choice("model.object_map", crowded, f"{data.contact:.0%} of the objects touch another or nearly do")
    else:
        yield Choice("model.object_map", False, f"the labels are {data.kind}, not objects to tell apart")
    yield Choice("model.dropout", 0.0, "augmentation gives enough variety in a short training run")


def _reduction(data: Fingerprint, fixed: Fixed, factor: int, side: int) -> Choice:
    """Choose the resolution. `factor` : the reduction; `side` : the tile, px."""
    if "model.reduction" in fixed:
        return Choice("model.reduction", factor, FIXED)
    if fixed.get("model.encoder", "none") != "none":
        return Choice("model.reduction", 1, "an encoder starts at the resolution of the image")
    if factor > reduction(data):
        return Choice("model.reduction", factor, "at a higher resolution, plan.minutes are too short for a training")
    if factor > 1 and data.diameters[-1] > LARGE:
        return Choice("model.reduction", factor, f"one object in ten is wider than {data.diameters[-1]:.0f} px")
    if factor > 1:
        small = f"nine objects in ten are wider than {data.diameters[0]:.0f} px"
        return Choice("model.reduction", factor, f"{small}, so half the resolution suffices, and training is faster")
    if reduction(data) > 1:
        return Choice("model.reduction", 1, f"a tile of {side} px fits no larger reduction")
    if data.kind == "boundaries" or data.width < THIN:
        return Choice("model.reduction", 1, "the labels have lines or thin areas, where every pixel counts")
    return Choice("model.reduction", 1, f"at half the resolution, objects under {SMALL} px would be hard to see")


def _weights(data: Fingerprint, fixed: Fixed) -> Iterator[Choice]:
    if "weights.kind" in fixed:
        kind, reason = fixed["weights.kind"], FIXED
    elif data.kind == "instances":
        kind = "falk2019" if data.contact > CROWDED else "paper" if data.contact > TOUCHING else "none"
        reason = f"{data.contact:.0%} of the objects touch another or nearly do"
    else:
        kind, reason = "none", f"the labels are {data.kind}, not objects to keep apart"
    yield Choice("weights.kind", kind, reason)
    w0, sigma = (50.0, 6.0) if kind == "falk2019" else (10.0, 5.0)
    yield Choice("weights.w0", w0, "the height with which this kind of weight map was published")
    yield Choice("weights.sigma", sigma, "the width with which this kind of weight map was published")
    yield Choice("weights.background", 1.0, "background far from objects counts in full, so that it stays empty")
    yield Choice("weights.background_sigma", 10.0, "without effect, because background far from objects counts in full")
    rarest = min(data.frequencies[1:])
    rare = f"the rarest class covers {rarest:.2%} of the pixels"
    if data.kind == "boundaries":
        yield Choice("weights.class_balance", 0.0, "a threshold chosen on validation separates lines from cells")
    elif data.kind == "instances":
        yield Choice("weights.class_balance", 0.5, rare)
    else:
        yield Choice("weights.class_balance", 0.25 if rarest < RARE else 0.0, rare)
    empty = f"{data.empty:.0%} of the images have no foreground"
    balance = 0.4 if rarest < RARE or data.empty > 0.1 else 0.0
    yield Choice("weights.density_balance", balance, f"{rare}, and {empty}")
    yield Choice("weights.density_border", 0.0, "the border weight map is enough")


def _augmentation(data: Fingerprint, side: int) -> Iterator[Choice]:
    limit = max(DIRECTED, CHANCE / sqrt(data.images))
    directed = data.direction > limit
    strength = f"the common direction of edges has a strength of {data.direction:.2f}"
    reason = f"{strength}, {'above' if directed else 'not above'} the limit of {limit:.2f}"
    yield Choice("augment.rotation", 5.0 if directed else 180.0, reason)
    yield Choice("augment.mirror", True, "a mirror image is as likely as the original")
    yield Choice("augment.elastic_grid", 3, "the paper's grid")
    sigma = round(side / (96 if directed else 48), 1)
    yield Choice("augment.elastic_sigma", sigma, f"a mild deformation for a tile of {side} px")
    spread = data.diameters[-1] / data.diameters[0] if data.diameters else 1.0
    if data.kind == "instances" and spread > 3:
        low, high, reason = 0.7, 1.4, f"large objects are {spread:.1f} times as wide as small ones"
    else:
        low, high, reason = 0.85, 1.15, "a mild zoom; nothing suggests several magnifications"
    yield from (Choice("augment.min_scale", low, reason), Choice("augment.max_scale", high, reason))
    yield Choice("augment.contrast", 0.2, "exposures differ a little in every series of images")
    reason = f"the brightness within an image has a standard deviation of {data.contrast:.1%} of the range"
    default = Augment()
    brightness = _rounded(0.3 * data.contrast) if data.contrast else default.brightness
    noise = _rounded(0.1 * data.contrast) if data.contrast else default.noise
    yield from (Choice("augment.brightness", brightness, reason), Choice("augment.noise", noise, reason))


def _extra(data: Fingerprint, fixed: Fixed) -> Iterator[Choice]:
    """Choose transforms of albumentations that imitate another camera or stain."""
    if "augment.extra" in fixed:
        yield Choice("augment.extra", fixed["augment.extra"], FIXED)
        yield Choice("augment.extra_probability", 1.0, "your transforms are applied to every tile")
        return
    if data.dtype.startswith("float"):
        yield Choice("augment.extra", [], "albumentations would clip the values of float images")
    elif data.channels == 3:
        colours = {"brightness": [1, 1], "contrast": [1, 1], "saturation": [0.8, 1.25], "hue": [-0.03, 0.03]}
        yield Choice("augment.extra", [{"ColorJitter": colours}], "stains and cameras differ a little in colour")
    else:
        gamma = [{"RandomGamma": {"gamma_limit": [80, 125]}}]
        yield Choice("augment.extra", gamma, "cameras differ a little in how they show brightness")
    yield Choice("augment.extra_probability", 0.3, "most tiles keep the look of the training images")


def _training(data: Fingerprint, decided: Fixed) -> Iterator[Choice]:
    yield Choice("train.batch_size", BATCH, "a small batch gives many steps")
    yield Choice("train.optimizer", "adamw", "the optimizer that learns most in a short training run")
    if decided.get("model.encoder_weights"):
        yield Choice("train.learning_rate", 0.001, "a higher learning rate would spoil the pretrained weights")
    elif decided["model.norm"] == "none":
        yield Choice("train.learning_rate", 0.0015, "as high as a network without norm permits")
    else:
        yield Choice("train.learning_rate", 0.003, "a norm permits a high learning rate")
    yield Choice("train.momentum", 0.9, "the usual first beta of AdamW")
    yield Choice("train.momentum_start", 0.9, "the momentum stays constant")
    yield Choice("train.weight_decay", 0.0001, "a little, as usual with AdamW")
    yield Choice(
        "train.schedule.kind", "one_cycle", "the learning rate ends near 0, so the last epochs are usually the best"
    )
    yield Choice("train.schedule.warmup_percent", 30.0, "the usual share of the steps for the warm-up")
    yield Choice("train.dice_weight", 1.0, "soft Dice counts every class alike, however rare it is")
    yield Choice("train.gradient_clipping", 1.0, "keeps a single tile from spoiling the network")
    rare = min(data.frequencies[1:]) < RARE
    reason = "the IoU of a rare class on a few tiles is mostly chance" if rare else "the metric that is reported"
    if data.kind == "boundaries":
        gaps = "gaps in lines close until the end, and pixels do not show it; the learning rate ends near 0"
        yield Choice("train.monitor", "last", gaps)
    else:
        yield Choice("train.monitor", "loss" if rare else "mean_iou", reason)
    yield Choice("tune.objective", "minimize loss" if rare else "maximize mean_iou", reason)


def _evaluation(data: Fingerprint) -> Iterator[Choice]:
    if data.kind == "boundaries":
        yield Choice("evaluate.views", 8, "a gap in a line joins two cells; more views leave fewer gaps")
    else:
        yield Choice("evaluate.views", 4, "the mean over mirror images is more accurate than one prediction")
    yield Choice("evaluate.tile", 0, "the largest tile that memory allows")


def timed(speed_of: Callable[[int], Speed], minutes: float, batch_size: int, fixed: Fixed) -> list[Choice]:
    """Choose the width, the precision and the length of training and search, so that both together take `minutes`.

    `speed_of` measures a network of a given width.
    """
    chosen, speed = _width(speed_of, minutes, batch_size, fixed)
    return [chosen, *_length(speed, minutes, batch_size, fixed)]


def _width(speed_of: Callable[[int], Speed], minutes: float, batch_size: int, fixed: Fixed) -> tuple[Choice, Speed]:
    """Choose the number of channels at the first level: the widest network that can be trained on `ENOUGH` tiles."""
    own = fixed.get("model.width")
    if isinstance(own, int):
        return Choice("model.width", own, FIXED), speed_of(own)
    if fixed.get("model.encoder", "none") != "none":
        usual = "the usual number of channels behind an encoder, for the expanding path"
        return Choice("model.width", WIDTHS[0], usual), speed_of(WIDTHS[0])
    chosen, speed = WIDTHS[0], speed_of(WIDTHS[0])
    for wider in WIDTHS[1:]:
        if _tiles(speed, minutes, batch_size) < ENOUGH:
            break
        try:
            slower = speed_of(wider)
        except NoMemoryError:
            break
        if _tiles(slower, minutes, batch_size) < ENOUGH:
            break
        chosen, speed = wider, slower
    tiles = _tiles(speed, minutes, batch_size)
    return Choice("model.width", chosen, f"{minutes:g} minutes are enough for {tiles:,} tiles at this width"), speed


def _tiles(speed: Speed, minutes: float, batch_size: int) -> int:
    return int(SHARE * 60 * minutes / speed.seconds[speed.amp]) * batch_size


def _length(speed: Speed, minutes: float, batch_size: int, fixed: Fixed) -> Iterator[Choice]:
    """Choose the precision, and the number of steps of training and search."""
    seconds = speed.seconds[speed.amp]
    rates = " and ".join(f"{batch_size / step:.2g} tiles/s {in_words(amp)}" for amp, step in speed.seconds.items())
    yield Choice("train.amp", speed.amp, f"this machine trains on {rates}")
    own = {name: value for name, value in fixed.items() if isinstance(value, int)}
    if "train.tiles_per_epoch" in own:
        own["train.tiles_per_epoch"] = ceil(own["train.tiles_per_epoch"] / batch_size) * batch_size
    steps = SHARE * 60 * minutes / seconds
    wanted = own.get("tune.trials", TRIALS)
    length = Length.of(steps, batch_size, wanted, own)
    too_short = length.trials > 0 and "tune.trials" not in own and not length.is_worth_its_time(steps)
    if too_short:
        length = Length.of(steps, batch_size, 0, own)
    took = length.steps * seconds / SHARE / 60
    reason = f"about {took:.2g} minutes on this machine" + (", the search included" if length.trials else "")
    yield Choice("train.epochs", length.epochs, reason)
    yield Choice("train.tiles_per_epoch", length.per_epoch * batch_size, reason)
    tiles = min(64, max(8, length.per_epoch * batch_size // 4))
    yield Choice("train.validation_tiles", tiles, "validation then takes about a tenth of the time")
    if length.trials:
        reason = f"each of {length.trials} trials then has {length.in_trial * length.per_epoch} steps"
    elif too_short:
        reason = f"{wanted} trials would be too short or take too much of the time; increase plan.minutes for a search"
    else:
        reason = "there is no search"
    yield Choice("tune.trials", length.trials, reason)
    yield Choice("tune.epochs", own.get("tune.epochs", length.in_trial), reason)
    of_search = length.trials * length.in_trial * length.per_epoch * seconds / SHARE / 60
    yield from limits(max(minutes, took) - of_search, of_search, own)


def limits(of_training: float, of_search: float, fixed: Fixed) -> Iterator[Choice]:
    """Choose the longest times of training and search, which are expected to take the given times, min.

    Where the user chose the length, there is no limit.
    """
    yield _limit("train.minutes", of_training, ("train.epochs",), fixed)
    yield _limit("tune.minutes", of_search, ("tune.trials", "tune.epochs"), fixed)


def _limit(setting: str, minutes: float, length: Sequence[str], fixed: Fixed) -> Choice:
    """Choose a longest time. `length` : the settings that decide the length of the training or search."""
    if all(name in fixed for name in length):
        return Choice(setting, 0.0, f"no limit, because you chose {' and '.join(length)}")
    if not minutes:
        return Choice(setting, 0.0, "there is no search")
    # Three significant digits, because a short time must not become 0, which means no limit.
    return Choice(setting, float(f"{minutes:.3g}"), "keeps to plan.minutes even if this machine becomes slower")


@dataclass(frozen=True)
class Length:
    """Length of training and search: epochs, steps of an epoch, trials, and epochs of a trial."""

    epochs: int
    per_epoch: int
    trials: int
    in_trial: int

    @classmethod
    def of(cls, steps: float, batch_size: int, trials: int, own: Mapping[str, int]) -> "Length":
        """Return the length that uses up `steps`, the number of steps for training and search; each part is at least 1.

        `own` : the user's values of the settings that decide the length; these are kept.
        """
        share = SEARCH if trials else 0.0
        if "train.tiles_per_epoch" in own:
            per_epoch = own["train.tiles_per_epoch"] // batch_size
            total = steps / per_epoch  # epochs of training and search
            in_trial = own.get("tune.epochs", max(1, int(share * total / max(1, trials))))
            epochs = total / (1 + trials) if in_trial == 0 else total - trials * in_trial
            epochs = own.get("train.epochs", max(1, int(epochs)))
            return cls(epochs, per_epoch, trials, in_trial or epochs)
        # A trial has at least one epoch, so train for enough epochs to keep the search within its share of the time.
        epochs = max(1, min(EPOCHS, int(steps / FEWEST)), ceil(trials * (1 - share) / share) if trials else 1)
        epochs = own.get("train.epochs", epochs)
        in_trial = own.get("tune.epochs", max(1, int(share * epochs / ((1 - share) * max(1, trials))))) or epochs
        return cls(epochs, max(1, int(steps / (epochs + trials * in_trial))), trials, in_trial)

    @property
    def steps(self) -> int:
        """Number of steps of training and search."""
        return (self.epochs + self.trials * self.in_trial) * self.per_epoch

    def is_worth_its_time(self, steps: float) -> bool:
        """Return whether a trial is long enough to be judged, and the search keeps to its share of the time."""
        in_trial = self.in_trial * self.per_epoch
        return in_trial >= TRIAL and self.trials * in_trial <= 1.01 * SEARCH * steps


def in_words(amp: str) -> str:
    """Return a phrase for a value of the setting train.amp."""
    return "in full precision" if amp == "off" else f"in {amp}"


def _rounded(value: float) -> float:
    """Round to two significant digits."""
    return float(f"{value:.2g}")
