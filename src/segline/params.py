"""Define every setting of segline: its type, default, limits and explanation.

Settings are immutable after loading. An invalid setting raises ParamsError with its full name.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from segline import names, parse, transforms
from segline.text import LONGEST, MESSAGE, cut, shown


class ParamsError(ValueError):
    """An invalid setting. The message names the file, the setting, the value, and what to do."""


class Section(BaseModel):
    """Base class of all sections of params.yaml. It refuses unknown keys. Its values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _planned_later(info: ValidationInfo, *names: str) -> bool:
    """Return whether a setting of `names` is `auto`, so that a default stands in for its value (see `check`)."""
    return any(name in (info.context or ()) for name in names)


Amp = Annotated[
    Literal["off", "bf16", "fp16"],
    # Accept False, because YAML 1.1 parsers read `off` without quotation marks as False.
    BeforeValidator(lambda value: "off" if value is False else value),
]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Data(Section):
    """The dataset to train on."""

    source: str = Field("data/raw/cells", description="dataset folder, written by `segline import` or by stage sample")


class Sample(Section):
    """The built-in default dataset: synthetic images of touching cells."""

    images: int = Field(24, ge=4, description="number of images to draw")
    min_size: int = Field(256, ge=64, description="smallest side of an image, px")
    max_size: int = Field(320, ge=64, description="largest side of an image, px")
    seed: int = Field(0, ge=0, description="seed of the drawing")

    @model_validator(mode="after")
    def _sizes_in_order(self) -> Self:
        if self.min_size > self.max_size:
            raise ValueError(f"min_size {self.min_size} is larger than max_size {self.max_size}; swap them")
        return self


class Prepare(Section):
    """The train, validation and test splits. Listed image names take precedence over percentages."""

    val_percent: float = Field(10, ge=0, lt=100, description="percentage of the images in the validation split")
    test_percent: float = Field(10, ge=0, lt=100, description="percentage of the images in the test split")
    validation: tuple[str, ...] = Field(
        (), description="images or groups of the validation split; empty: drawn by val_percent"
    )
    test: tuple[str, ...] = Field((), description="images or groups of the test split; empty: drawn by test_percent")
    seed: int = Field(0, ge=0, description="seed of the draw by percentage")


class Plan(Section):
    """The plan: it chooses a value for each setting that is `auto`, from the dataset and the speed of the machine."""

    minutes: float = Field(
        10, gt=0, le=100_000, description="time for search and training together, on the machine that makes the plan"
    )


class Weights(Section):
    """The border weight map w(x) of the loss, and the probability of each pixel to be a training tile's centre."""

    kind: Literal["paper", "falk2019", "none"] = Field(
        "paper", description="paper: Ronneberger 2015, eq. 2; falk2019: the released plugin; none: class balance only"
    )
    w0: NonNegative = Field(10, description="height of the border term (paper 10, falk2019 50)")
    sigma: Positive = Field(5, description="width of the border term, px (paper 5, falk2019 6)")
    background: Fraction = Field(0.1, description="falk2019 only: weight of background far from any object (v)")
    background_sigma: Positive = Field(
        10, description="falk2019 only: distance over which the weight rises to 1 near objects, px (s1)"
    )
    class_balance: Fraction = Field(
        0.5,
        description="weight ~ frequency ** -class_balance; 0: no balance, 1: equal total weight of all classes",
    )
    density_balance: Fraction = Field(
        0, description="tile density ~ frequency ** -density_balance; 0: uniform over pixels, 1: uniform over classes"
    )
    density_border: NonNegative = Field(
        0, description="extra tile density at the highest border term, as a multiple of the mean density; 0: none"
    )

    @model_validator(mode="after")
    def _border_to_draw_by(self, info: ValidationInfo) -> Self:
        if _planned_later(info, "weights.density_border", "weights.kind"):
            return self
        if self.density_border > 0 and self.kind == "none":
            raise ValueError(
                f"density_border {self.density_border:g} needs the border term, which kind 'none' does not compute; "
                "set density_border to 0, or set kind to 'paper' (with w0 = 0 if the loss must not contain "
                "the border term)"
            )
        return self


class Model(Section):
    """The network."""

    name: Literal["unet", "fcn32s", "fcn16s", "fcn8s"] = Field(
        "unet",
        description="unet: U-Net; fcn32s, fcn16s, fcn8s: fully convolutional networks, which need an encoder and have "
        "no width, depth and upsampling",
    )
    encoder: Literal["none", "vgg11", "vgg16", "resnet18", "resnet34", "resnet50"] = Field(
        "none",
        description="network that replaces the contracting path; none: the paper's 3x3 convolutions; others: only with "
        "padding same, reduction 1 and norm batch (VGG also none)",
    )
    encoder_weights: str = Field(
        "",
        pattern=r"^([^/\\]+\.(safetensors|pth|pt))?$",
        description="file in data/encoders with pretrained weights of the encoder, named as in torchvision, "
        ".safetensors or .pth; empty: random",
    )
    padding: Literal["valid", "same"] = Field(
        "same", description="valid: unpadded convolutions, cropped skip connections (the paper); same: padded"
    )
    width: int = Field(
        16,
        ge=1,
        description="channels of the first level, doubled at each level (paper 64); an encoder has its own channels",
    )
    depth: int = Field(3, ge=1, le=7, description="number of 2x2 poolings (paper 4); with an encoder at most 5")
    input_norm: Literal["dataset", "image"] = Field(
        "dataset",
        description="mean and deviation to normalise an image; dataset: of all training images; image: its own",
    )
    norm: Literal["none", "weight", "batch", "instance", "group"] = Field(
        "batch",
        description="normalisation at each 3x3 convolution; weight: of its kernel; batch, instance, group: of its "
        "output (paper none)",
    )
    upsampling: Literal["transposed", "bilinear"] = Field(
        "transposed", description="transposed: 2x2 convolution (the paper); bilinear: interpolation"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate at the end of the contracting path (paper 0.5)")
    reduction: Literal[1, 2, 4, 8] = Field(
        1, description="space-to-depth factor: side of the pixel blocks that become channels, px (paper 1)"
    )
    object_map: bool = Field(
        False,
        description="also predict a map that is 1 in the middle of each object and 0 at its border; instances only",
    )

    @model_validator(mode="after")
    def _encoder_fits(self, info: ValidationInfo) -> Self:
        if self.encoder == "none":
            if self.name != "unet":
                raise ValueError(
                    f"{self.name} needs an encoder; set model.encoder to vgg16, resnet34 or another encoder"
                )
            if self.encoder_weights:
                raise ValueError("there is no encoder for encoder_weights; set model.encoder, or leave the file out")
            return self
        vgg = self.encoder.startswith("vgg")
        allowed: dict[str, tuple[object, ...]] = {
            "padding": ("same",),
            "reduction": (1,),
            "norm": ("batch", "none") if vgg else ("batch",),
        }
        if self.name == "unet":
            allowed["depth"] = (5, 4, 3, 2, 1)
        for name, values in allowed.items():
            value = getattr(self, name)
            if value not in values and not _planned_later(info, f"model.{name}"):
                accepted = " or ".join(str(value) for value in values)
                raise ValueError(
                    f"encoder {self.encoder} does not go with {name} {value}; set model.{name} to {accepted}"
                )
        return self

    def leaves_open(self, name: str) -> bool:
        """Return whether the setting `name` of this section may have several values with this network."""
        if self.encoder == "none":
            return True
        decided = ("padding", "reduction", "norm")
        return name not in (decided if self.name == "unet" else (*decided, "width", "depth", "upsampling"))

    @property
    def network(self) -> dict[str, Any]:
        """Arguments of `nets.build`: the settings that this network uses."""
        if self.name != "unet":
            return self.model_dump(include={"name", "encoder", "norm", "dropout", "object_map"})
        unused = {"name", "input_norm", "encoder_weights"}
        if self.encoder == "none":
            return self.model_dump(exclude={*unused, "encoder"})
        return self.model_dump(exclude={*unused, "padding", "reduction"})


class Augment(Section):
    """Random changes of a training tile; all geometric changes are combined into one interpolation."""

    elastic_grid: int = Field(3, ge=2, description="control points per side of the random displacement field (paper 3)")
    elastic_sigma: NonNegative = Field(
        3, description="standard deviation of the displacement, px; 0: off (paper 10 on tiles of 572 px)"
    )
    rotation: float = Field(180, ge=0, le=180, description="largest rotation in either direction, degrees")
    mirror: bool = Field(True, description="mirror half of the tiles")
    min_scale: Positive = Field(0.9, description="smallest zoom factor")
    max_scale: Positive = Field(1.1, description="largest zoom factor")
    brightness: NonNegative = Field(
        0.05, description="largest brightness change in either direction, as a fraction of the data type's range"
    )
    contrast: float = Field(0.2, ge=0, lt=1, description="largest relative contrast change in either direction")
    noise: NonNegative = Field(
        0.02, description="largest standard deviation of the added noise, as a fraction of the data type's range"
    )
    extra: tuple[dict[str, dict[str, Any]], ...] = Field(
        (), description="albumentations transforms of pixel values, in this order: [{NAME: {ARGUMENT: VALUE}}]"
    )
    extra_probability: Fraction = Field(1, description="probability that the list extra is applied to a tile")

    @field_validator("extra", mode="before")
    @classmethod
    def _known_transforms(cls, entries: object) -> object:
        return transforms.checked(entries) if entries else ()

    @model_validator(mode="after")
    def _scales_in_order(self, info: ValidationInfo) -> Self:
        if _planned_later(info, "augment.min_scale", "augment.max_scale"):
            return self
        if self.min_scale > self.max_scale:
            raise ValueError(
                f"min_scale {self.min_scale} is larger than max_scale {self.max_scale}; lower one or raise the other"
            )
        return self


class Schedule(Section):
    """Decay schedule of the learning rate. Each kind of schedule uses only its own parameters."""

    kind: Literal["constant", "step", "exponential", "poly", "cosine", "one_cycle", "plateau"] = Field(
        "poly", description="shape of the schedule"
    )
    step_epochs: int = Field(10, ge=1, description="step: epochs between two drops")
    gamma: float = Field(
        0.5, gt=0, le=1, description="step, plateau: factor of each drop; exponential: factor of each epoch"
    )
    power: Positive = Field(0.9, description="poly: learning_rate * (1 - epoch / epochs) ** power")
    patience: int = Field(5, ge=0, description="plateau: epochs without a lower validation loss before a drop")
    warmup_percent: float = Field(
        30, gt=0, lt=100, description="one_cycle: percentage of the steps in which the rate rises"
    )


class Train(Section):
    """The training loop."""

    seed: int = Field(0, ge=0, description="seed of initial weights, tiles and augmentation")
    epochs: int = Field(20, ge=1, description="number of epochs, each followed by validation")
    tiles_per_epoch: int = Field(160, ge=1, description="training tiles per epoch")
    batch_size: int = Field(
        4, ge=1, description="tiles per optimizer step (paper 1); equal to tiles_per_epoch: full batch"
    )
    tile: int = Field(
        192,
        ge=1,
        description="side of the network's input, px; for valid padding at depth 4: 60 + a multiple of 16",
    )
    optimizer: Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"] = Field(
        "adamw", description="optimizer (paper sgd)"
    )
    learning_rate: Positive = Field(
        0.003, description="learning rate at the start of the schedule; one_cycle: at its peak"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd, rmsprop: momentum; adam, adamw: first beta (paper 0.99)")
    momentum_start: float = Field(0.9, ge=0, lt=1, description="momentum at the first step of the warm-up")
    momentum_warmup_percent: float = Field(
        20,
        ge=0,
        le=100,
        description="percentage of the steps in which momentum rises linearly to its value; 0: no warm-up",
    )
    weight_decay: NonNegative = Field(0.0001, description="L2 penalty; decoupled in adamw")
    schedule: Schedule = Schedule()
    dice_weight: NonNegative = Field(1, description="loss = cross entropy + dice_weight * (1 - soft Dice)")
    gradient_clipping: NonNegative = Field(1.0, description="largest global norm of the gradient; 0: no clipping")
    amp: Amp = Field("off", description="mixed precision: off, bf16 or fp16")
    channels_last: bool = Field(
        True, description="memory format; changes rounding and dropout masks, not the mathematics"
    )
    validation_tiles: int = Field(32, ge=1, description="largest number of validation tiles, the same after each epoch")
    monitor: Literal["loss", "mean_iou", "last"] = Field(
        "mean_iou", description="validation metric that selects the best epoch; last: the last epoch counts as the best"
    )
    save_checkpoint: bool = Field(True, description="store the best and the last checkpoint in the MLflow run")
    keep_best: int = Field(1, ge=1, description="number of best checkpoints to keep")
    minutes: NonNegative = Field(
        0, description="longest time of the training; on a slow machine, there are fewer epochs; 0: no limit"
    )


# Parameters that each decay schedule reads. In each trial, a search draws only the parameters of the trial's schedule.
SCHEDULE_READS = {
    "constant": (),
    "step": ("step_epochs", "gamma"),
    "exponential": ("gamma",),
    "poly": ("power",),
    "cosine": (),
    "one_cycle": ("warmup_percent",),
    "plateau": ("gamma", "patience"),
}
SEARCHABLE: dict[str, type[Section]] = {"model": Model, "augment": Augment, "train": Train}
_BEFORE = "belongs to a stage before the search; compare two values with `dvc exp run` instead"
_AFTER = "is used only after training, so it does not change a trial"
NOT_SEARCHABLE = {
    **dict.fromkeys(("data", "sample", "prepare", "plan", "weights"), _BEFORE),
    **dict.fromkeys(("evaluate", "registration", "gate"), _AFTER),
    "tune": "describes the search itself",
    "runtime": "never changes a result",
    "model.encoder_weights": "names a file; compare two files with `dvc exp run` instead",
    "augment.extra": "is a list; search augment.extra_probability instead",
    "train.seed": "would select a lucky seed, not a better setting",
    "train.epochs": "sets the length of a training; for trials set tune.epochs",
    "train.validation_tiles": "selects the validation tiles, so trials could not be compared",
    "train.monitor": "selects the best epoch; for trials set tune.objective",
    "train.save_checkpoint": "does not change a metric",
    "train.keep_best": "does not change a metric",
    "train.minutes": "limits the training after the search; for the search set tune.minutes",
}


class Axis(Section):
    """Values that a trial may draw for one setting: a range from low to high, or a list of choices."""

    name: str = Field(exclude=True, description="full name of the setting")
    low: float | None = Field(None, description="smallest value")
    high: float | None = Field(None, description="largest value")
    log: bool = Field(False, description="draw uniformly on a logarithmic scale")
    step: Positive | None = Field(None, description="distance between neighbouring values; the first value is low")
    choices: tuple[bool | int | float | str, ...] | None = Field(
        None, min_length=1, description="the values to choose from"
    )

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("needs either low and high, or choices")
        if self.choices is not None and (self.log or self.step):
            raise ValueError("cannot combine choices with log or step; remove log and step")
        if self.low is None or self.high is None:
            if self.choices is None:
                raise ValueError("needs both low and high")
            return self
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is larger than high {self.high:g}; swap them")
        if self.log and (self.low <= 0 or self.step):
            raise ValueError("`log` is allowed only if `low` is above 0 and `step` is not set")
        return self

    @model_validator(mode="after")
    def _fits_the_setting(self) -> Self:
        """Check that the limits or choices are valid values of the setting."""
        setting = field_of(self.name)
        if self.choices is None and not self.is_number:
            raise ValueError("is not a number, so it needs choices instead of low and high")
        accepted = TypeAdapter[object](Annotated[setting.annotation, setting])  # type: ignore[arg-type]  # known only here
        ends = [value for value in (self.low, self.high) if value is not None]
        if self.step and self.low is not None:
            ends.append(self.low + self.step)
        for value in self.choices or ends:
            try:
                accepted.validate_python(value)
            except ValidationError as error:
                raise ValueError(f"{value!r} is not a valid value of {self.name}: {error.errors()[0]['msg']}") from None
        return self

    @model_serializer
    def _as_written(self) -> dict[str, object]:
        """Return the range or the choices as written in params.yaml, without options that are not set."""
        options = {
            "low": self.low,
            "high": self.high,
            "log": self.log or None,
            "step": self.step,
            "choices": self.choices,
        }
        return {name: value for name, value in options.items() if value is not None}

    @property
    def whole(self) -> bool:
        """True if the setting is a whole number."""
        return field_of(self.name).annotation is int

    @property
    def is_number(self) -> bool:
        """True if the setting is a number."""
        return field_of(self.name).annotation in (int, float)


def field_of(name: str) -> FieldInfo:
    """Return the pydantic field of the setting with the full name `name`.

    Raises
    ------
    ValueError
        The setting does not exist, or a search cannot draw it; the message gives the cause.
    """
    section, *rest = name.split(".")
    for part in (section, name):
        if part in NOT_SEARCHABLE:
            raise ValueError(f"cannot be searched, because {part} {NOT_SEARCHABLE[part]}")
    if section not in SEARCHABLE:
        raise ValueError(f"{section} is not a searchable section; choose from {', '.join(SEARCHABLE)}")
    inner: type[BaseModel] | None = SEARCHABLE[section]
    field: FieldInfo | None = None
    for part in rest:
        if inner is None or part not in inner.model_fields:
            choices = f"; choose from {', '.join(_setting_names(inner))}" if inner else ""
            raise ValueError(f"{part} is not a setting{choices}")
        field = inner.model_fields[part]
        inner = _section_of(field)
    if field is None or inner is not None:
        raise ValueError("is a section; name one of its settings")
    return field


def _setting_names(section: type[BaseModel]) -> list[str]:
    """Return the names of the settings of a section."""
    return [name for name, field in section.model_fields.items() if not field.exclude]


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the Python class of the settings section that `field` declares; None if `field` declares no section.

    If `field` declares a dict of sections, return the class of these sections.
    """
    kind = field.annotation
    if get_origin(kind) is dict:
        kind = get_args(kind)[1]
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _add_names(space: object) -> object:
    """Set the `name` of each axis in `space` to the axis's key in `space`, which is the name of a setting.

    The validators of Axis need the name of the setting to check the values of the axis.
    """
    if not isinstance(space, dict):
        return space
    return {name: {**axis, "name": name} if isinstance(axis, dict) else axis for name, axis in space.items()}


Space = Annotated[dict[str, Axis], BeforeValidator(_add_names)]


def _default_space() -> dict[str, Axis]:
    return {
        axis.name: axis
        for axis in (
            Axis(name="train.learning_rate", low=0.0005, high=0.005, log=True),
            Axis(name="train.momentum", low=0.8, high=0.98),
            Axis(name="train.weight_decay", low=1e-6, high=0.01, log=True),
            Axis(name="train.schedule.kind", choices=("poly", "cosine", "one_cycle")),
            Axis(name="train.schedule.power", low=0.5, high=2),
            Axis(name="train.schedule.warmup_percent", low=10, high=40),
            Axis(name="train.tile", low=96, high=384, step=32),
            Axis(name="train.dice_weight", low=0.25, high=2, log=True),
            Axis(name="model.width", choices=(12, 16, 24, 32)),
            Axis(name="model.norm", choices=("none", "weight", "batch")),
            Axis(name="model.input_norm", choices=("dataset", "image")),
            Axis(name="augment.contrast", low=0, high=0.4),
            Axis(name="augment.extra_probability", low=0, high=1),
        )
    }


class Tune(Section):
    """The search for better settings, judged on the validation split. Trial 0 uses the settings before the search."""

    trials: int = Field(
        6,
        ge=0,
        le=100_000,
        description="total number of trials, including earlier trials of the same search; 0: no search",
    )
    minutes: NonNegative = Field(
        0, description="longest time of all trials together; on a slow machine, there are fewer trials; 0: no limit"
    )
    seed: int = Field(0, ge=0, description="seed of the search")
    epochs: int = Field(
        4, ge=0, description="epochs per trial, with the decay schedule shortened to match; 0: train.epochs"
    )
    objective: Literal["maximize mean_iou", "minimize loss"] = Field(
        "maximize mean_iou", description="direction and validation metric, taken from the best epoch of a trial"
    )
    sampler: Literal["tpe", "random"] = Field("tpe", description="tpe: learns from earlier trials; random: does not")
    startup_trials: int = Field(
        10, ge=1, description="tpe: number of random trials before it learns from earlier trials"
    )
    pruner: Literal["median", "hyperband", "none"] = Field("median", description="rule that stops trials early")
    pruner_startup_trials: int = Field(
        3, ge=0, description="median: number of finished trials before a trial may be stopped early"
    )
    pruner_warmup_epochs: int = Field(1, ge=0, description="median, hyperband: number of epochs that every trial runs")
    reduction_factor: int = Field(3, ge=2, description="hyperband: one in this many trials continues at each rung")
    space: Space = Field(
        default_factory=_default_space,
        description="settings to search, each {low, high, log, step} or {choices}; a trial skips settings "
        "that its schedule does not read",
    )

    @model_validator(mode="after")
    def _comparable(self, info: ValidationInfo) -> Self:
        if self.trials and not self.space and not _planned_later(info, "tune.trials"):
            raise ValueError("space is empty; add the settings that the search may vary, or set trials to 0")
        if "model.object_map" in self.space and self.metric == "loss":
            raise ValueError(
                "model.object_map changes the loss itself, so losses of different trials are not comparable; set "
                "objective to 'maximize mean_iou', or remove model.object_map from tune.space"
            )
        if kinds := self.space.get("train.schedule.kind"):
            for name in self.space:
                self._check_read_by_some(name, kinds.choices or ())
        return self

    def _check_read_by_some(self, name: str, kinds: tuple[object, ...]) -> None:
        if not reads_schedule(name, kinds):
            raise ValueError(
                f"{name} is not used by any schedule kind in tune.space ({', '.join(map(str, kinds))}); remove {name} "
                "from tune.space"
            )

    @property
    def metric(self) -> str:
        """Name of the validation metric that the search optimizes: mean_iou or loss."""
        return self.objective.split()[1]

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Whether the search maximizes or minimizes the metric."""
        return "maximize" if self.objective.startswith("maximize") else "minimize"


def reads_schedule(name: str, kinds: Iterable[object]) -> bool:
    """Return whether the setting `name` has an effect with at least one of the decay schedules `kinds`.

    A parameter of a schedule has an effect if one of these schedules reads it. Every other setting has an effect.
    """
    section, _, parameter = name.rpartition(".")
    return (
        section != "train.schedule"
        or parameter == "kind"
        or any(parameter in SCHEDULE_READS[str(kind)] for kind in kinds)
    )


class Evaluate(Section):
    """Prediction and evaluation with the trained network. Changing these settings does not trigger retraining."""

    threshold: Literal["auto", "argmax"] | Fraction = Field(
        "auto",
        description="probability above which a pixel is foreground; argmax: the likeliest class; auto: chosen on "
        "validation for instances, argmax for other labels",
    )
    segment_threshold: Literal["auto", "off"] | Fraction = Field(
        "auto",
        description="foreground probability that separates joined cells; auto: chosen on validation; off: never",
    )
    segment_neck: Literal["auto", "off"] | Fraction = Field(
        "auto",
        description="depth of necks that separate cells, as a fraction of the smaller cell's half width; auto: 0.4 "
        "for boundaries, unless validation is clearly better without; off: never",
    )
    watershed_depth: Literal["auto", "off"] | NonNegative = Field(
        "auto",
        description="depth of necks and lines that split objects, px; auto: chosen on validation; off: never",
    )
    watershed_neck: Literal["auto"] | Fraction = Field(
        "auto",
        description="least depth of necks and lines, as a fraction of the smaller object's half width; auto: chosen on "
        "validation",
    )
    min_area: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto", description="objects with fewer pixels are removed; auto: chosen on validation"
    )
    min_probability: Literal["auto"] | Fraction = Field(
        "auto", description="objects with a lower mean foreground probability are removed; auto: chosen on validation"
    )
    views: Literal[1, 4, 8] = Field(
        1,
        description="number of views to average; 4: the image and its mirror images; 8: also their quarter turns",
    )
    tile: int = Field(0, ge=0, description="side of the network's input, px; 0: the whole image if memory allows")


class Registration(Section):
    """The entry in the model registry."""

    name: str = Field("", description="name of the registered model; empty: the name of the dataset")

    @field_validator("name")
    @classmethod
    def _fit_for_a_model(cls, name: str) -> str:
        return names.check_model(name, "the name") if name else name


class Gate(Section):
    """Conditions that a model must meet to become champion."""

    min_mean_iou: Fraction = Field(
        0.5, description="lowest accepted mean IoU of the foreground classes on the test split"
    )
    max_pixel_error: Fraction = Field(0.5, description="highest accepted fraction of wrong pixels on the test split")
    metric: Literal["mean_iou", "pixel_error", "ap_50", "ap_50_by_image", "seg", "pq", "v_rand", "v_info"] = Field(
        "mean_iou", description="test metric by which the gate compares challenger and champion"
    )
    margin: Fraction = Field(
        0.01,
        description="largest accepted decline of the metric against the champion, at confidence gate.confidence",
    )
    group_margin: Fraction = Field(0.05, description="largest accepted decline on the images of one group")
    min_group_images: int = Field(
        2, ge=1, description="smallest number of test images with which a group is checked separately"
    )
    min_images: int = Field(2, ge=1, description="smallest number of test images with which the gate decides")
    confidence: float = Field(0.95, gt=0, lt=1, description="confidence level of the two-sided intervals")
    resamples: int = Field(10_000, ge=100, description="number of bootstrap resamples of the test images")
    seed: int = Field(0, ge=0, description="seed of the bootstrap resamples")
    max_seconds: NonNegative = Field(0, description="longest accepted time to answer the input example, s; 0: no limit")
    max_megabytes: NonNegative = Field(
        0, description="largest accepted size of the packaged model, 10^6 bytes; 0: no limit"
    )


class Runtime(Section):
    """Device, threads and display. These settings are not inputs of a stage, so a change does not rerun any stage."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps")
    workers: int = Field(
        0, ge=0, description="number of processes that prepare tiles; 0: the main process prepares them"
    )
    threads: int = Field(
        0, ge=0, description="number of CPU threads of torch; 0: OMP_NUM_THREADS if set, otherwise one per core"
    )
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", description="auto: a bar in a terminal, lines elsewhere"
    )
    tune_workers: int = Field(
        1,
        ge=1,
        description="number of processes that share the search; the search is reproducible bit for bit only with 1",
    )
    tune_storage: str = Field(
        "", description="database address of the search, without password; empty: a file in mlruns/studies"
    )


class Params(Section):
    """All sections of params.yaml."""

    data: Data = Data()
    sample: Sample = Sample()
    prepare: Prepare = Prepare()
    plan: Plan = Plan()
    weights: Weights = Weights()
    model: Model = Model()
    augment: Augment = Augment()
    train: Train = Train()
    tune: Tune = Tune()
    evaluate: Evaluate = Evaluate()
    registration: Registration = Registration()
    gate: Gate = Gate()
    runtime: Runtime = Runtime()


class Tuned(Section):
    """Content of data/tune/best.yaml, which the stage `train` reads."""

    model: Model
    augment: Augment
    train: Train
    searched: tuple[str, ...] = Field((), description="full names of the settings that the search chose")

    @model_validator(mode="after")
    def _searched_settings(self) -> Self:
        for name in self.searched:
            value: object = self.model_dump(exclude={"searched"})
            for part in name.split("."):
                if not isinstance(value, dict) or part not in value:
                    raise ValueError(
                        f"the list `searched` names {shown(name)}, which is not a setting; "
                        "run the DVC stage `tune` again"
                    )
                value = value[part]
            if isinstance(value, dict):
                raise ValueError(
                    f"the list `searched` names {shown(name)}, which is a section; run the DVC stage `tune` again"
                )
        return self


MOST_PROBLEMS = 20  # invalid settings listed in one message
PARAMS_FILE = Path("params.yaml")
PLAN_FILE = Path("data/plan/plan.yaml")
PLAN_REMEDY = "run `dvc repro`, which restores the plan or makes a new one"
TUNED_FILE = Path("data/tune/best.yaml")
AUTO = "auto"
# Settings that may be `auto` in params.yaml. The stage `plan` chooses a value for each of them.
PLANNED = (
    *(f"weights.{name}" for name in ("kind", "w0", "sigma", "background", "background_sigma")),
    *(f"weights.{name}" for name in ("class_balance", "density_balance", "density_border")),
    *(f"model.{name}" for name in ("padding", "width", "depth", "input_norm", "norm", "upsampling", "dropout")),
    "model.reduction",
    "model.object_map",
    *(f"augment.{name}" for name in ("elastic_grid", "elastic_sigma", "rotation", "mirror", "min_scale", "max_scale")),
    *(f"augment.{name}" for name in ("brightness", "contrast", "noise", "extra", "extra_probability")),
    *(f"train.{name}" for name in ("epochs", "tiles_per_epoch", "batch_size", "tile", "optimizer", "learning_rate")),
    *(f"train.{name}" for name in ("momentum", "momentum_start", "weight_decay", "dice_weight", "gradient_clipping")),
    *(f"train.{name}" for name in ("amp", "validation_tiles", "monitor", "minutes")),
    *(f"train.schedule.{name}" for name in ("kind", "warmup_percent")),
    *(f"tune.{name}" for name in ("trials", "minutes", "epochs", "objective")),
    *(f"evaluate.{name}" for name in ("views", "tile")),
)

S = TypeVar("S", bound=Section)


def read(section: type[S], file: Path = PARAMS_FILE) -> S:
    """Return one section of params.yaml after checking the whole file; planned values replace `auto`.

    Stages call this once for each section they use, and dvc.yaml declares exactly those sections.

    Raises
    ------
    ParamsError
        As `load`; or the section has settings that are `auto`, and data/plan/plan.yaml has no valid values for them.
    """
    content = _content(file)
    settings, name = check(Params, content, str(file)), section.__name__.lower()
    if open_settings := [setting for setting in automatic(content) if setting.startswith(f"{name}.")]:
        complete = merged(content, _planned(open_settings))
        try:
            settings = check(Params, complete, f"{file} with the values of {PLAN_FILE}")
        except ParamsError as error:
            raise ParamsError(f"{error}; set a value in {file}, or {PLAN_REMEDY}") from None
    value = getattr(settings, name)
    assert isinstance(value, section)
    return value


def read_fixed(names: Iterable[str], file: Path = PARAMS_FILE) -> dict[str, object]:
    """Return those of the settings `names` that have a value, by full name; settings that are `auto` are left out.

    `names` are full names of settings, or names of sections, which stand for all their settings.
    """
    content = _content(file)
    values = flat(check(Params, content, str(file)).model_dump(mode="json"))
    left_out = automatic(content)
    wanted = tuple(names)
    return {
        setting: value
        for setting, value in values.items()
        if setting not in left_out and (setting in wanted or setting.startswith(tuple(f"{name}." for name in wanted)))
    }


def read_tuned(file: Path = TUNED_FILE) -> Tuned:
    """Return the settings that the stage `tune` chose."""
    return load(Tuned, file)


def load(schema: type[S], file: Path) -> S:
    """Return the settings of `file`, validated with `schema`; for `auto` in params.yaml, return the default.

    Raises
    ------
    ParamsError
        The file is missing or is not YAML, or settings are unknown or invalid; the message lists them.
    """
    return check(schema, _content(file), str(file))


def _content(file: Path) -> Any:
    """Return the content of a YAML file that the user can edit."""
    try:
        return parse.from_yaml(parse.read(file, parse.YAML_SIZE))
    except FileNotFoundError:
        raise ParamsError(f"{file} is missing in {Path.cwd()}; run segline in the folder that holds it") from None
    except OSError as error:
        raise ParamsError(f"{file} cannot be read: {error}") from error
    except parse.ParseError as error:
        raise ParamsError(f"{file}{' is' if str(error).startswith('not') else ':'} {error}") from error


def _planned(names: Sequence[str]) -> dict[str, Any]:
    """Return the planned values of the settings `names`, by section."""
    if not PLAN_FILE.exists():
        raise ParamsError(
            f"{PARAMS_FILE}: {names[0]} is `auto`, but there is no plan yet; run `dvc repro`, which makes {PLAN_FILE}"
        )
    try:
        content = _content(PLAN_FILE)
    except ParamsError as error:
        raise ParamsError(f"{error}; {PLAN_REMEDY}") from error
    values = {name: value_at(content, name) for name in names}
    for name, value in values.items():
        if value is None or value == AUTO:
            raise ParamsError(f"{PLAN_FILE} has no value for {name}; {PLAN_REMEDY}")
        if isinstance(value, dict):
            raise ParamsError(f"{PLAN_FILE}: {name} = {shown(value)} is a mapping, not a value; {PLAN_REMEDY}")
    return nested(values)


def value_at(content: object, name: str) -> object:
    """Return the value of the setting with the full name `name` in nested sections; None if it is missing."""
    for part in name.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def automatic(content: object) -> list[str]:
    """Return the full names of the settings that are `auto` and that the plan chooses.

    `content` : sections of params.yaml, before validation.
    """
    return [name for name in PLANNED if value_at(content, name) == AUTO]


def check(schema: type[S], content: object, file: str) -> S:
    """Validate `content` against `schema`. A ParamsError names `file` as the source.

    For the schema `Params`, a setting that is `auto` and that the plan chooses gets its default value.
    """
    if not isinstance(content, dict):
        raise ParamsError(
            f"{file} must hold a mapping of sections, but holds a value of type "
            f"{type(content).__name__}; see docs/params.md"
        )
    left_out = automatic(content) if schema is Params else []
    for name in left_out:
        content = _without(content, name.split("."))
    try:
        return schema.model_validate(content, context=left_out)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [
            _explain(schema, problem["loc"], problem["msg"], problem.get("input"))
            for problem in problems[:MOST_PROBLEMS]
        ]
        if len(problems) > MOST_PROBLEMS:
            lines.append(f"and {len(problems) - MOST_PROBLEMS} more")
        raise ParamsError("\n".join(f"{file}: {line}" for line in dict.fromkeys(lines))) from None


def _without(content: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Return nested sections without the setting at `path`, which exists."""
    first, *rest = path
    if rest:
        return content | {first: _without(content[first], rest)}
    return {key: value for key, value in content.items() if key != first}


def nested(values: Mapping[str, object]) -> dict[str, Any]:
    """Return settings by section, as in params.yaml, from a dict with full names as keys. The inverse of `flat`."""
    sections: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        inner = sections
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return sections


def merged(content: Any, changes: Mapping[str, Any]) -> Any:
    """Return nested sections in which the values of `changes`, nested in the same way, replace those of `content`."""
    if not changes:
        return content
    return content | {
        key: merged(content.get(key, {}), value) if isinstance(value, Mapping) else value
        for key, value in changes.items()
    }


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Flatten nested sections to one dict with full names as keys, such as ``train.schedule.kind``."""
    level: dict[str, object] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            level |= flat(value, f"{prefix}{name}.")
        else:
            level[f"{prefix}{name}"] = value
    return level


def _explain(schema: type[BaseModel], location: tuple[int | str, ...], message: str, value: object) -> str:
    """Describe one invalid setting in one line: full name, value, problem and meaning."""
    parts: list[str] = []
    field = None
    inner: type[BaseModel] | None = schema
    mapping = False
    for part in location:
        if inner is None or not isinstance(part, str):
            break
        parts.append(part)
        if mapping:  # the user chooses the keys of a mapping
            mapping = False
            continue
        if part not in inner.model_fields:
            return f"{cut('.'.join(parts), MESSAGE)} is not a setting; choose from {', '.join(_setting_names(inner))}"
        field = inner.model_fields[part]
        inner = _section_of(field)
        mapping = get_origin(field.annotation) is dict
    if isinstance(value, dict):
        value = {key: entry for key, entry in value.items() if key != "name"}
    meaning = f" ({field.description})" if field is not None and field.description else ""
    if message == "Input should be a valid string":
        message += f", in quotes: '{cut(str(value), LONGEST)}'"
    message = cut(message.removeprefix("Value error, "), MESSAGE)
    return f"{cut('.'.join(parts), MESSAGE)} = {shown(value)}: {message}{meaning}"
