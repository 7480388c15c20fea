"""Every setting of segline: typed, frozen, explained, and refused by its full name when it is wrong."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from segline import names, parse
from segline.text import LONGEST, MESSAGE, cut, shown


class ParamsError(ValueError):
    """A setting that cannot be used; the message names file, field, value and the way out."""


class Section(BaseModel):
    """Base of all sections: no unknown keys, no change after loading, every field explained."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Amp = Annotated[
    Literal["off", "bf16", "fp16"],
    # YAML 1.1 readers turn a bare `off` into False.
    BeforeValidator(lambda value: "off" if value is False else value),
]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Data(Section):
    """Which dataset the line works on."""

    source: str = Field("data/raw/cells", description="dataset folder, as `segline import` or stage sample writes it")


class Sample(Section):
    """The embedded default: drawn cells that touch."""

    images: int = Field(24, ge=4, description="how many images are drawn")
    min_size: int = Field(256, ge=64, description="smallest side, px")
    max_size: int = Field(320, ge=64, description="largest side, px")
    seed: int = Field(0, ge=0, description="another seed draws another dataset")

    @model_validator(mode="after")
    def _sizes_in_order(self) -> Self:
        if self.min_size > self.max_size:
            raise ValueError(f"min_size {self.min_size} is larger than max_size {self.max_size}; swap them")
        return self


class Prepare(Section):
    """Who is train, validation and test. Names, where given, win over percentages."""

    val_percent: float = Field(10, ge=0, lt=100, description="share of the images used for validation, percent")
    test_percent: float = Field(10, ge=0, lt=100, description="share of the images used for the test, percent")
    validation: tuple[str, ...] = Field((), description="images or groups that make the validation split")
    test: tuple[str, ...] = Field((), description="images or groups that make the test split")
    seed: int = Field(0, ge=0, description="seed of the draw by percentage")


class Weights(Section):
    """The border weight map w(x), and how likely each pixel is the middle of a training tile."""

    kind: Literal["paper", "falk2019", "none"] = Field(
        "paper", description="paper: Ronneberger 2015, eq. 2; falk2019: the released plugin; none: class balance only"
    )
    w0: NonNegative = Field(10, description="height of the border term (paper 10, falk2019 50)")
    sigma: Positive = Field(5, description="width of the border term, px (paper 5, falk2019 6)")
    background: Fraction = Field(0.1, description="falk2019 only: weight of background far from any object (v)")
    background_sigma: Positive = Field(10, description="falk2019 only: px over which it rises to 1 near objects (s1)")
    class_balance: Fraction = Field(
        0.5, description="w_c is proportional to frequency ** -class_balance: 0 leaves classes alone, 1 evens them out"
    )
    density_balance: Fraction = Field(
        0, description="tiles are drawn by frequency ** -density_balance: 0 every pixel alike, 1 every class as often"
    )
    density_border: NonNegative = Field(
        0, description="tiles are drawn that much more often where the border term is at its height (1: a mean pixel)"
    )

    @model_validator(mode="after")
    def _border_to_draw_by(self) -> Self:
        if self.density_border > 0 and self.kind == "none":
            raise ValueError(
                f"density_border {self.density_border:g} has no border term to draw by: kind is none; set kind to "
                "paper (w0: 0 leaves the loss without it), or density_border to 0"
            )
        return self


class Model(Section):
    """The network."""

    padding: Literal["valid", "same"] = Field("same", description="valid: unpadded, the skip is cropped (the paper)")
    width: int = Field(16, ge=1, description="channels of the first level; each level doubles them (paper 64)")
    depth: int = Field(3, ge=1, le=7, description="number of 2x2 poolings (paper 4)")
    norm: Literal["none", "batch", "instance", "group"] = Field("batch", description="after each 3x3 convolution")
    upsampling: Literal["transposed", "bilinear"] = Field("transposed", description="2x2 up-convolution or bilinear")
    dropout: float = Field(0.0, ge=0, lt=1, description="at the end of the contracting path (paper 0.5)")
    reduction: Literal[1, 2, 4, 8] = Field(1, description="blocks of that many px a side are seen as one (paper 1)")


class Augment(Section):
    """Random changes of a training tile, all geometry in one interpolation."""

    elastic_grid: int = Field(3, ge=2, description="control points a side of the random displacement (paper 3)")
    elastic_sigma: NonNegative = Field(
        3, description="standard deviation of the displacement, px (paper 10, tiles of 572; 0: off)"
    )
    rotation: float = Field(180, ge=0, le=180, description="largest rotation either way, degrees")
    mirror: bool = Field(True, description="mirror half of the tiles")
    min_scale: Positive = Field(0.9, description="smallest zoom")
    max_scale: Positive = Field(1.1, description="largest zoom")
    brightness: NonNegative = Field(0.05, description="largest shift either way, in units of the type's range")
    contrast: float = Field(0.2, ge=0, lt=1, description="largest relative change of contrast either way")
    noise: NonNegative = Field(0.02, description="largest standard deviation of added noise, in the type's range")

    @model_validator(mode="after")
    def _scales_in_order(self) -> Self:
        if self.min_scale > self.max_scale:
            raise ValueError(f"min_scale {self.min_scale} is larger than max_scale {self.max_scale}; swap them")
        return self


class Schedule(Section):
    """How the learning rate falls; each kind reads only its own parameters."""

    kind: Literal["constant", "step", "exponential", "poly", "cosine", "one_cycle", "plateau"] = Field(
        "poly", description="the decay schedule"
    )
    step_epochs: int = Field(10, ge=1, description="step: epochs between two drops")
    gamma: float = Field(0.5, gt=0, le=1, description="step, plateau: factor of a drop; exponential: of an epoch")
    power: Positive = Field(0.9, description="poly: learning_rate * (1 - epoch / epochs) ** power")
    patience: int = Field(5, ge=0, description="plateau: epochs without a better validation loss before a drop")
    warmup_percent: float = Field(30, gt=0, lt=100, description="one_cycle: share of the steps in which it rises")


class Train(Section):
    """The training loop."""

    seed: int = Field(0, ge=0, description="weights, tiles and augmentation follow from it")
    epochs: int = Field(20, ge=1, description="passes, each followed by validation")
    tiles_per_epoch: int = Field(160, ge=1, description="training tiles drawn in an epoch")
    batch_size: int = Field(4, ge=1, description="tiles in a step (1: the paper; tiles_per_epoch: full batch)")
    tile: int = Field(192, ge=1, description="side of the network's input, px; valid padding needs 16k + 60 at depth 4")
    optimizer: Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"] = Field("adamw", description="sgd: the paper")
    learning_rate: Positive = Field(0.003, description="at the start of the schedule; of one_cycle the peak")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd, rmsprop; first beta of adam and adamw (paper 0.99)")
    momentum_start: float = Field(0.9, ge=0, lt=1, description="momentum at the first step of the warm-up")
    momentum_warmup_percent: float = Field(
        20, ge=0, le=100, description="share of the steps in which momentum rises linearly to its value; 0: none"
    )
    weight_decay: NonNegative = Field(0.0001, description="L2 penalty (decoupled for adamw)")
    schedule: Schedule = Schedule()
    dice_weight: NonNegative = Field(1, description="loss = cross entropy + dice_weight * (1 - soft Dice)")
    gradient_clipping: NonNegative = Field(1.0, description="largest global norm of the gradient; 0: off")
    amp: Amp = Field("off", description="mixed precision: off, bf16 or fp16")
    channels_last: bool = Field(True, description="memory format; other rounding and dropout masks, same mathematics")
    validation_tiles: int = Field(32, ge=1, description="most validation tiles judged after an epoch, always the same")
    monitor: Literal["loss", "mean_iou"] = Field("mean_iou", description="validation figure that picks the best epoch")
    save_checkpoint: bool = Field(True, description="keep the best and the last checkpoint in the MLflow run")
    keep_best: int = Field(1, ge=1, description="how many of the best checkpoints are kept")


# What each decay schedule reads, and so what a search draws with it.
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
_BEFORE = "belongs to a stage before the search: set another value and compare the results of two `dvc exp run`"
_AFTER = "is used only after training: a trial would not notice it"
NOT_SEARCHABLE = {
    **dict.fromkeys(("data", "sample", "prepare", "weights"), _BEFORE),
    **dict.fromkeys(("evaluate", "registration", "gate"), _AFTER),
    "tune": "is how the search is made",
    "runtime": "never changes a result",
    "train.seed": "would find a lucky draw, not a better setting",
    "train.epochs": "is what a trial costs: set tune.epochs",
    "train.tile": "also says which validation tiles are judged, so trials could not be compared",
    "train.validation_tiles": "says what is judged, so trials could not be compared",
    "train.monitor": "says which epoch is kept: set tune.objective",
    "train.save_checkpoint": "changes no figure",
    "train.keep_best": "changes no figure",
}


class Axis(Section):
    """What one setting may be in a trial: from low to high, or one of some choices."""

    name: str = Field(exclude=True, description="the setting's full name")
    low: float | None = Field(None, description="smallest value")
    high: float | None = Field(None, description="largest value")
    log: bool = Field(False, description="small values are drawn as often as large ones")
    step: Positive | None = Field(None, description="distance of two values, from low on")
    choices: tuple[bool | int | float | str, ...] | None = Field(None, min_length=1, description="the values there are")

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("takes either low and high, or choices")
        if self.choices is not None and (self.log or self.step):
            raise ValueError("takes log and step with low and high, not with choices")
        if self.low is None or self.high is None:
            if self.choices is None:
                raise ValueError("takes both low and high")
            return self
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is larger than high {self.high:g}; swap them")
        if self.log and (self.low <= 0 or self.step):
            raise ValueError("takes log with a low above 0 and without step")
        return self

    @model_validator(mode="after")
    def _fits_the_setting(self) -> Self:
        """Each end or choice is a value that the setting itself takes."""
        setting = field_of(self.name)
        if self.choices is None and not self.is_number:
            raise ValueError("is no number, so it takes choices")
        taken = TypeAdapter[object](Annotated[setting.annotation, setting])  # type: ignore[arg-type]  # known only here
        ends = [value for value in (self.low, self.high) if value is not None]
        if self.step and self.low is not None:
            ends.append(self.low + self.step)
        for value in self.choices or ends:
            try:
                taken.validate_python(value)
            except ValidationError as error:
                raise ValueError(f"{value!r} is no value of {self.name}: {error.errors()[0]['msg']}") from None
        return self

    @model_serializer
    def _as_written(self) -> dict[str, object]:
        """As in params.yaml: what is not said is not there."""
        said = {"low": self.low, "high": self.high, "log": self.log or None, "step": self.step, "choices": self.choices}
        return {name: value for name, value in said.items() if value is not None}

    @property
    def whole(self) -> bool:
        """Whether the setting is a whole number."""
        return field_of(self.name).annotation is int

    @property
    def is_number(self) -> bool:
        """Whether the setting is a number."""
        return field_of(self.name).annotation in (int, float)


def field_of(name: str) -> FieldInfo:
    """The field of the setting with this full name.

    Raises
    ------
    ValueError
        There is no such setting, or a search cannot draw it; the message says why.
    """
    section, *rest = name.split(".")
    for refused in (section, name):
        if refused in NOT_SEARCHABLE:
            raise ValueError(f"{refused} {NOT_SEARCHABLE[refused]}")
    if section not in SEARCHABLE:
        raise ValueError(f"{section} is no section; there are {', '.join(SEARCHABLE)}")
    inner: type[BaseModel] | None = SEARCHABLE[section]
    field: FieldInfo | None = None
    for part in rest:
        if inner is None or part not in inner.model_fields:
            there = f"; there are {', '.join(_shown(inner))}" if inner else ""
            raise ValueError(f"{part} is no setting{there}")
        field = inner.model_fields[part]
        inner = _section_of(field)
    if field is None or inner is not None:
        raise ValueError("is a section; name one of its settings")
    return field


def _shown(section: type[BaseModel]) -> list[str]:
    """The settings that a section takes from a file."""
    return [name for name, field in section.model_fields.items() if not field.exclude]


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section, or the entry of a mapping, that a field holds."""
    kind = field.annotation
    if get_origin(kind) is dict:
        kind = get_args(kind)[1]
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _named(space: object) -> object:
    """Each axis with its name, so that what is wrong with it is said by itself, before it is looked at."""
    if not isinstance(space, dict):
        return space
    return {name: {**axis, "name": name} if isinstance(axis, dict) else axis for name, axis in space.items()}


Space = Annotated[dict[str, Axis], BeforeValidator(_named)]


def _default_space() -> dict[str, Axis]:
    return {
        axis.name: axis
        for axis in (
            Axis(name="train.learning_rate", low=0.001, high=0.01, log=True),
            Axis(name="train.momentum", low=0.8, high=0.98),
            Axis(name="train.weight_decay", low=1e-6, high=0.01, log=True),
            Axis(name="train.schedule.kind", choices=("poly", "cosine", "one_cycle")),
            Axis(name="train.schedule.power", low=0.5, high=2),
            Axis(name="train.schedule.warmup_percent", low=10, high=40),
            Axis(name="train.batch_size", choices=(2, 4)),
        )
    }


class Tune(Section):
    """The search for better settings, on validation; trial 0 takes those of this file."""

    trials: int = Field(6, ge=0, description="how many in all, earlier ones of the same search included; 0: no search")
    seed: int = Field(0, ge=0, description="another seed draws other values")
    epochs: int = Field(4, ge=0, description="of a trial, with the whole decay schedule made shorter; 0: train.epochs")
    objective: Literal["maximize mean_iou", "minimize loss"] = Field(
        "maximize mean_iou", description="validation figure, best epoch of a trial, and its direction"
    )
    sampler: Literal["tpe", "random"] = Field("tpe", description="how values are drawn")
    startup_trials: int = Field(10, ge=1, description="tpe: trials drawn at random before it learns from them")
    pruner: Literal["median", "hyperband", "none"] = Field("median", description="which trials end early")
    pruner_startup_trials: int = Field(
        3, ge=0, description="median: trials that run to their end before any ends early"
    )
    pruner_warmup_epochs: int = Field(1, ge=0, description="median, hyperband: epochs that every trial gets")
    reduction_factor: int = Field(3, ge=2, description="hyperband: one of this many goes on at each look")
    space: Space = Field(
        default_factory=_default_space,
        description="settings to draw, by full name: {low, high, log, step} or {choices}; of a schedule only its own",
    )

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if self.trials and not self.space:
            raise ValueError("space is empty: name settings to draw, or set trials to 0")
        if "train.dice_weight" in self.space and self.metric == "loss":
            raise ValueError(
                "train.dice_weight says what the loss is, so it cannot be searched by it; set objective to "
                "maximize mean_iou, or take it out of space"
            )
        if kinds := self.space.get("train.schedule.kind"):
            for name in self.space:
                self._read_by_one_of(name, kinds.choices or ())
        return self

    def _read_by_one_of(self, name: str, kinds: tuple[object, ...]) -> None:
        if not reads_schedule(name, kinds):
            raise ValueError(f"{name} is read by none of {', '.join(map(str, kinds))}; take it out of space")

    @property
    def metric(self) -> str:
        """The validation figure: mean_iou or loss."""
        return self.objective.split()[1]

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Which way is better."""
        return "maximize" if self.objective.startswith("maximize") else "minimize"


def reads_schedule(name: str, kinds: Iterable[object]) -> bool:
    """Whether the setting `name` means anything with one of these decay schedules."""
    section, _, parameter = name.rpartition(".")
    return (
        section != "train.schedule"
        or parameter == "kind"
        or any(parameter in SCHEDULE_READS[str(kind)] for kind in kinds)
    )


class Evaluate(Section):
    """How the trained network is used and judged; never trains again."""

    threshold: Literal["argmax"] | Fraction = Field(
        "argmax", description="foreground above this probability; argmax: the likeliest class"
    )
    segment_threshold: Literal["auto", "off"] | Fraction = Field(
        "auto", description="borders are closed between cells that are apart above it; auto: by validation; off"
    )
    watershed_depth: Literal["auto", "off"] | NonNegative = Field(
        "auto", description="objects that touch part at necks and lines this deep, px; auto: by validation; off"
    )
    min_area: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto", description="smaller objects are left out, px; auto: by validation"
    )
    min_probability: Literal["auto"] | Fraction = Field(
        "auto", description="objects whose mean foreground probability is lower are left out; auto: by validation"
    )
    views: Literal[1, 4, 8] = Field(
        1, description="average so many views of the image; 4: mirrored either way and both ways; 8: quarter turns too"
    )
    tile: int = Field(0, ge=0, description="side of the network's input, px; 0: the whole image where memory allows")


class Registration(Section):
    """The registry entry."""

    name: str = Field("", description="name of the registered model; empty: the name of the dataset")

    @field_validator("name")
    @classmethod
    def _fit_for_a_model(cls, name: str) -> str:
        return names.check_model(name, "the name") if name else name


class Gate(Section):
    """What a model must reach before it may become champion."""

    min_mean_iou: Fraction = Field(0.5, description="smallest mean foreground IoU on the test split")
    max_pixel_error: Fraction = Field(0.5, description="largest share of wrong pixels on the test split")
    metric: Literal["mean_iou", "pixel_error", "ap_50", "ap_50_by_image", "seg", "pq", "v_rand", "v_info"] = Field(
        "mean_iou", description="test figure by which challenger and champion are compared"
    )
    margin: Fraction = Field(0.01, description="what the challenger may lose at most, with the confidence below")
    group_margin: Fraction = Field(0.05, description="what it may lose at most on the images of one group")
    min_group_images: int = Field(2, ge=1, description="groups of fewer test images are not judged by themselves")
    min_images: int = Field(2, ge=1, description="with fewer test images the gate decides nothing")
    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals, both ends together")
    resamples: int = Field(10_000, ge=100, description="draws of test images that the intervals are made of")
    seed: int = Field(0, ge=0, description="of these draws")
    max_seconds: NonNegative = Field(0, description="longest time to answer the input example, s; 0: any")
    max_megabytes: NonNegative = Field(0, description="largest size of the packed model, 10^6 bytes; 0: any")


class Runtime(Section):
    """Where and how it runs. Never part of a result, never a reason to run again."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    workers: int = Field(0, ge=0, description="processes that prepare tiles; 0: the main process")
    threads: int = Field(0, ge=0, description="CPU threads of torch; 0: OMP_NUM_THREADS, else one a core")
    progress: Literal["auto", "bar", "lines", "off"] = Field("auto", description="auto: bar in a terminal, else lines")
    tune_workers: int = Field(1, ge=1, description="processes that work on the search; only 1 repeats bit for bit")
    tune_storage: str = Field(
        "", description="of the search: a database's address, password elsewhere; empty: a file in mlruns/studies"
    )


class Params(Section):
    """All of params.yaml."""

    data: Data = Data()
    sample: Sample = Sample()
    prepare: Prepare = Prepare()
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
    """All of data/tune/best.yaml: what train reads."""

    model: Model
    augment: Augment
    train: Train
    searched: tuple[str, ...] = Field((), description="full names of the values that the search chose")

    @model_validator(mode="after")
    def _searched_settings(self) -> Self:
        for name in self.searched:
            value: object = self.model_dump(exclude={"searched"})
            for part in name.split("."):
                if not isinstance(value, dict) or part not in value:
                    raise ValueError(f"searched names {shown(name)}, which is no setting")
                value = value[part]
            if isinstance(value, dict):
                raise ValueError(f"searched names {shown(name)}, which is a section")
        return self


MOST = 20  # wrong settings that are named
PARAMS_FILE = Path("params.yaml")
TUNED_FILE = Path("data/tune/best.yaml")

S = TypeVar("S", bound=Section)


def read(section: type[S], file: Path = PARAMS_FILE) -> S:
    """Return one section of params.yaml, after checking all of the file.

    Stages call this once for each section they use, and dvc.yaml declares exactly those sections.
    """
    settings = load(Params, file)
    value = getattr(settings, section.__name__.lower())
    assert isinstance(value, section)
    return value


def read_tuned(file: Path = TUNED_FILE) -> Tuned:
    """Return what stage tune chose."""
    return load(Tuned, file)


def load(schema: type[S], file: Path) -> S:
    """Return the settings in `file`, checked against `schema`.

    Raises
    ------
    ParamsError
        The file is missing, is no YAML, or a setting is unknown or wrong; all wrong settings are named.
    """
    try:
        content = parse.from_yaml(parse.read(file, parse.YAML_SIZE))
    except FileNotFoundError:
        raise ParamsError(f"{file} is missing in {Path.cwd()}; run segline in the folder that holds it") from None
    except OSError as error:
        raise ParamsError(f"{file} cannot be read: {error}") from error
    except parse.ParseError as error:
        raise ParamsError(f"{file}{' is' if str(error).startswith('not') else ':'} {error}") from error
    return check(schema, content, str(file))


def check(schema: type[S], content: object, file: str) -> S:
    """Return `content` as `schema`; `file` is named in the ParamsError when it does not fit."""
    if not isinstance(content, dict):
        raise ParamsError(f"{file} holds {type(content).__name__}, not sections; see docs/params.md")
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [_explain(schema, problem["loc"], problem["msg"], problem.get("input")) for problem in problems[:MOST]]
        if len(problems) > MOST:
            lines.append(f"and {len(problems) - MOST} more")
        raise ParamsError("\n".join(f"{file}: {line}" for line in dict.fromkeys(lines))) from None


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Return nested sections as one level, with the names that users give: ``train.schedule.kind``."""
    level: dict[str, object] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            level |= flat(value, f"{prefix}{name}.")
        else:
            level[f"{prefix}{name}"] = value
    return level


def _explain(schema: type[BaseModel], location: tuple[int | str, ...], message: str, value: object) -> str:
    """One wrong setting in one line: full name, value, what is wrong, what the setting means."""
    parts: list[str] = []
    field = None
    inner: type[BaseModel] | None = schema
    mapping = False
    for part in location:
        if inner is None or not isinstance(part, str):
            break
        parts.append(part)
        if mapping:  # the key of an entry, which is the user's
            mapping = False
            continue
        if part not in inner.model_fields:
            return f"{cut('.'.join(parts), MESSAGE)} is no setting; there are {', '.join(_shown(inner))}"
        field = inner.model_fields[part]
        inner = _section_of(field)
        mapping = get_origin(field.annotation) is dict
    if isinstance(value, dict):
        value = {key: inside for key, inside in value.items() if key != "name"}
    meaning = f" ({field.description})" if field is not None and field.description else ""
    if message == "Input should be a valid string":
        message += f", in quotes: '{cut(str(value), LONGEST)}'"
    message = cut(message.removeprefix("Value error, "), MESSAGE)
    return f"{cut('.'.join(parts), MESSAGE)} = {shown(value)}: {message}{meaning}"
