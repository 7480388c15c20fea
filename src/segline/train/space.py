"""What a search may draw: the space of params.yaml laid beside its own settings, before any trial."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from segline import params
from segline.model.geometry import Geometry
from segline.params import Axis, Tune, Tuned, reads_schedule
from segline.train import schedule

Value = bool | int | float | str
KIND = "train.schedule.kind"
SIZES = ("model.depth", "model.padding", "model.upsampling", "model.reduction")  # what says which tiles are legal


class SpaceError(ValueError):
    """A search that cannot be made with these settings; the message names the setting and the way out."""


@dataclass(frozen=True)
class Plan:
    """A search: ``base`` are params.yaml's own settings, which trial 0 takes.

    Raises
    ------
    SpaceError
        A setting to draw means nothing with the others.
    SizeError
        A network that may be drawn cannot take tiles of train.tile.
    """

    base: Tuned
    tune: Tune

    def __post_init__(self) -> None:
        kind = self.base.train.schedule.kind
        for name in self.tune.space:
            if KIND not in self.tune.space and not reads_schedule(name, (kind,)):
                raise SpaceError(
                    f"params.yaml: tune.space.{name} is not read by train.schedule.kind = {kind}; take it out, "
                    f"or add {KIND}: {{choices: [...]}}"
                )
        self._check_sizes()

    @property
    def epochs(self) -> int:
        """Epochs of a trial that runs to its end."""
        return self.tune.epochs or self.base.train.epochs

    def content(self) -> dict[str, Any]:
        """All that makes this search another one than others; how many trials it has does not."""
        return {
            "base": self.base.model_dump(mode="json", exclude={"searched"}),
            "tune": self.tune.model_dump(mode="json", exclude={"trials"}),
        }

    def axes(self, kind: str) -> Iterator[Axis]:
        """What is drawn after the decay schedule `kind`, always in the same order."""
        for name in sorted(set(self.tune.space) - {KIND}):
            if reads_schedule(name, (kind,)):
                yield self.tune.space[name]

    def own(self) -> dict[str, Value]:
        """What params.yaml itself says of the settings that can be drawn."""
        kind = self.base.train.schedule.kind
        names = [*([KIND] if KIND in self.tune.space else []), *(axis.name for axis in self.axes(kind))]
        return {name: value_of(self.base, name) for name in names}

    def settings(self, values: Mapping[str, Value]) -> Tuned:
        """The settings of a trial: params.yaml's own, and `values` by full name; ParamsError if they contradict."""
        content = self.base.model_dump(mode="json")
        for name, value in values.items():
            *sections, last = name.split(".")
            inner = content
            for section in sections:
                inner = inner[section]
            inner[last] = value
        return params.check(Tuned, {**content, "searched": sorted(values)}, "this trial")

    def in_small(self, settings: Tuned) -> Tuned:
        """`settings` as a trial is trained: with its epochs."""
        return settings.model_copy(update={"train": schedule.shortened(settings.train, self.epochs)})

    def _check_sizes(self) -> None:
        options = [_options(self.tune.space[name]) if name in self.tune.space else [None] for name in SIZES]
        for drawn in product(*options):
            values = {name: value for name, value in zip(SIZES, drawn, strict=True) if value is not None}
            model = self.settings(values).model
            said = "".join(f" with {name} = {value}" for name, value in values.items())
            Geometry(model.depth, model.padding, model.upsampling, model.reduction).check(
                self.base.train.tile, f"params.yaml:{said} train.tile ="
            )


def value_of(settings: Tuned, name: str) -> Value:
    """The value of a setting by its full name."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    assert isinstance(value, Value)
    return value


def bounds(axis: Axis) -> tuple[float, float]:
    """Smallest and largest value that can be drawn: of steps that do not end at `high`, the last below it."""
    assert axis.low is not None and axis.high is not None
    if axis.step is None:
        return axis.low, axis.high
    return axis.low, axis.low + math.floor((axis.high - axis.low) / axis.step + 1e-9) * axis.step


def holds(axis: Axis, value: Value) -> bool:
    """Whether `value` could be drawn."""
    if axis.choices is not None:
        return value in axis.choices
    assert isinstance(value, int | float)
    low, high = bounds(axis)
    on_a_step = axis.step is None or math.isclose((value - low) / axis.step, round((value - low) / axis.step))
    return low <= value <= high and on_a_step


def _options(axis: Axis) -> list[Value]:
    """All values of an axis of choices or whole numbers."""
    if axis.choices is not None:
        return list(axis.choices)
    low, high = bounds(axis)
    return list(range(int(low), int(high) + 1, int(axis.step or 1)))
