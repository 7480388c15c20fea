"""Define the search space: the settings that a search varies, checked against params.yaml before the first trial."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from segline import params
from segline.model import geometry, nets
from segline.params import Axis, Model, Tune, Tuned, reads_schedule
from segline.train import schedule

Value = bool | int | float | str
KIND = "train.schedule.kind"
SIZES = (
    "model.name",
    "model.encoder",
    "model.depth",
    "model.padding",
    "model.upsampling",
    "model.reduction",
)  # these settings decide which tile sizes are valid
TILE, LENGTH = "train.tile", "train.tiles_per_epoch"


class SpaceError(ValueError):
    """The search space does not fit the settings; the message names the setting and the remedy."""


@dataclass(frozen=True)
class SearchPlan:
    """Base settings and search settings. Trial 0 uses ``base``, the settings of params.yaml.

    Raises
    ------
    SpaceError
        A setting of the search space has no effect together with the other settings.
    SizeError
        A network in the search space does not accept tiles of size train.tile.
    """

    base: Tuned
    tune: Tune

    def __post_init__(self) -> None:
        kind = self.base.train.schedule.kind
        for name in self.tune.space:
            if KIND not in self.tune.space and not reads_schedule(name, (kind,)):
                raise SpaceError(
                    f"params.yaml: tune.space.{name} has no effect with train.schedule.kind = {kind}; remove it from "
                    f"the space, or add {KIND}: {{choices: [...]}} to the space"
                )
        self._check_sizes()

    @property
    def epochs(self) -> int:
        """Number of epochs of a trial that is not pruned."""
        return self.tune.epochs or self.base.train.epochs

    def content(self) -> dict[str, Any]:
        """Return the settings that identify this search: all settings except its size and the limit of the training.

        So a search with more trials or a longer time continues a smaller one.
        """
        return {
            "base": self.base.model_dump(mode="json", exclude={"searched": True, "train": {"minutes"}}),
            "tune": self.tune.model_dump(mode="json", exclude={"trials", "minutes"}),
        }

    def axes(self, kind: str) -> Iterator[Axis]:
        """Yield the searched settings (axes) that a trial with schedule `kind` uses, always in the same order.

        Settings that the encoder decides are not among them.
        """
        for name in sorted(set(self.tune.space) - {KIND}):
            section, _, setting = name.partition(".")
            if reads_schedule(name, (kind,)) and (section != "model" or self.base.model.leaves_open(setting)):
                yield self.tune.space[name]

    def base_values(self) -> dict[str, Value]:
        """Return {full name: value in params.yaml} for each searched setting that has an effect in trial 0.

        Trial 0 uses the decay schedule chosen in params.yaml; parameters that only other schedules read have no effect.
        """
        kind = self.base.train.schedule.kind
        names = [*([KIND] if KIND in self.tune.space else []), *(axis.name for axis in self.axes(kind))]
        return {name: value_of(self.base, name) for name in names}

    def settings(self, values: Mapping[str, Value]) -> Tuned:
        """Return the base settings updated with `values` (by full name). Raise ParamsError if the result is invalid.

        A tile gets the next larger size that the network can take. With another network or tile, an epoch has another
        number of tiles, so that all trials compute about equally much.
        """
        settings, searched = self._with(values), set(values)
        train, base = settings.train, self.base
        if TILE in values:
            train = train.model_copy(update={"tile": geometry.of(**settings.model.network).at_least(train.tile)})
        work = operations(settings.model, train.tile) / operations(base.model, base.train.tile)
        if work != 1 and LENGTH not in values:
            batches = max(1, round(train.tiles_per_epoch / work / train.batch_size))
            train = train.model_copy(update={"tiles_per_epoch": batches * train.batch_size})
            searched.add(LENGTH)
        return settings.model_copy(update={"train": train, "searched": tuple(sorted(searched))})

    def _with(self, values: Mapping[str, Value]) -> Tuned:
        content = params.merged(self.base.model_dump(mode="json"), params.nested(values))
        return params.check(Tuned, {**content, "searched": sorted(values)}, "this trial")

    def shortened(self, settings: Tuned) -> Tuned:
        """Return a copy of `settings`, changed to suit the shorter training run of a trial.

        All trials have the same number of epochs, so train.minutes does not limit them; tune.minutes limits the search.
        """
        train = schedule.shortened(settings.train, self.epochs)
        return settings.model_copy(update={"train": train.model_copy(update={"minutes": 0})})

    def _check_sizes(self) -> None:
        options = [_options(self.tune.space[name]) if name in self.tune.space else [None] for name in SIZES]
        for combination in product(*options):
            values = {name: value for name, value in zip(SIZES, combination, strict=True) if value is not None}
            model = self._with(values).model
            condition = "".join(f" with {name} = {value}" for name, value in values.items())
            geometry.of(**model.network).check(self.base.train.tile, f"params.yaml:{condition} train.tile =")


@cache
def operations(model: Model, tile: int, channels: int = 1, classes: int = 2) -> int:
    """Return how many floating-point operations a network needs for a tile of `tile` x `tile` px.

    Counted by torch on its device `meta`, which computes nothing.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        nets.build(channels, classes, **model.network).eval()(torch.empty(1, channels, tile, tile))
    return int(counter.get_total_flops())


def value_of(settings: Tuned, name: str) -> Value:
    """Return the value of the setting with the full name `name`."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    assert isinstance(value, Value)
    return value


def bounds(axis: Axis) -> tuple[float, float]:
    """Return the lowest and highest value of a searched setting (axis); they differ by a whole number of steps."""
    assert axis.low is not None and axis.high is not None
    if axis.step is None:
        return axis.low, axis.high
    return axis.low, axis.low + math.floor((axis.high - axis.low) / axis.step + 1e-9) * axis.step


def holds(axis: Axis, value: Value) -> bool:
    """Return whether `value` is one of the possible values of a searched setting (axis)."""
    if axis.choices is not None:
        return value in axis.choices
    assert isinstance(value, int | float)
    low, high = bounds(axis)
    on_a_step = axis.step is None or math.isclose((value - low) / axis.step, round((value - low) / axis.step))
    return low <= value <= high and on_a_step


def _options(axis: Axis) -> list[Value]:
    """Return all possible values of a searched setting (axis) whose values are choices or whole numbers."""
    if axis.choices is not None:
        return list(axis.choices)
    low, high = bounds(axis)
    return list(range(int(low), int(high) + 1, int(axis.step or 1)))
