"""Every setting of segline: typed, frozen, explained, and refused by its full name when it is wrong."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError


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


class Tune(Section):
    """The search for better settings."""

    trials: int = Field(0, ge=0, le=0, description="0: no search, train takes the values of this file")


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


class Gate(Section):
    """What a model must reach before it may become champion."""

    min_mean_iou: Fraction = Field(0.5, description="smallest mean foreground IoU on the test split")
    max_pixel_error: Fraction = Field(0.5, description="largest share of wrong pixels on the test split")


class Runtime(Section):
    """Where and how it runs. Never part of a result, never a reason to run again."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    workers: int = Field(0, ge=0, description="processes that prepare tiles; 0: the main process")
    threads: int = Field(0, ge=0, description="CPU threads of torch; 0: OMP_NUM_THREADS, else one a core")
    progress: Literal["auto", "bar", "lines", "off"] = Field("auto", description="auto: bar in a terminal, else lines")


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
        content = YAML(typ="safe").load(file.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{file} is missing in {Path.cwd()}; run segline in the folder that holds it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{file} cannot be read: {error}") from error
    except YAMLError as error:
        raise ParamsError(f"{file} is not valid YAML: {error}") from error
    return check(schema, content, str(file))


def check(schema: type[S], content: object, file: str) -> S:
    """Return `content` as `schema`; `file` is named in the ParamsError when it does not fit."""
    if not isinstance(content, dict):
        raise ParamsError(f"{file} holds {type(content).__name__}, not sections; see docs/params.md")
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = [_explain(schema, problem["loc"], problem["msg"], problem.get("input")) for problem in error.errors()]
        raise ParamsError("\n".join(f"{file}: {line}" for line in dict.fromkeys(lines))) from None


def _explain(schema: type[BaseModel], location: tuple[int | str, ...], message: str, value: object) -> str:
    """One wrong setting in one line: full name, value, what is wrong, what the setting means."""
    names: list[str] = []
    field = None
    inner: type[BaseModel] | None = schema
    for part in location:
        if inner is None or not isinstance(part, str):
            break
        names.append(part)
        if part not in inner.model_fields:
            return f"{'.'.join(names)} is no setting; there are {', '.join(inner.model_fields)}"
        field = inner.model_fields[part]
        kind = field.annotation
        inner = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    meaning = f" ({field.description})" if field is not None and field.description else ""
    if message == "Input should be a valid string":
        message += f", in quotes: '{value}'"
    return f"{'.'.join(names)} = {value!r}: {message.removeprefix('Value error, ')}{meaning}"
