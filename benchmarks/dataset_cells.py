"""Which datasets bench_datasets.py compares, with their splits and metrics, and the file with its results."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness import Line, add_line, machine, read_lines
from segline import files
from segline.commands import preset
from segline.params import AUTO, Params, check, merged, nested
from segline.track import identity

RIVAL = Path(__file__).with_name("rival_monai.py")
OWN, NO_SEARCH = "segline", "segline, no search"  # contestants besides MONAI
PARTS = ("tune", "train")  # stages that plan.minutes limits
Changes = dict[str, Any]  # values by the full names of settings
OURS: Changes = {"runtime.device": "cpu", "runtime.threads": 1, "runtime.progress": "lines"}


class Metric(NamedTuple):
    """A column of the table: its title, and the place of the metric in the result of `baselines.totals`."""

    title: str
    place: tuple[str, ...]

    def of(self, figures: Mapping[str, Any]) -> float | None:
        """Return the metric; None if `figures` lacks it."""
        value: Any = figures
        for key in self.place:
            value = value.get(key) if value is not None else None
        return None if value is None or np.isnan(value) else float(value)


AP = Metric("AP@0.5, mean over images", ("ap_50_by_image",))
FOREGROUND = Metric("foreground IoU", ("foreground_iou",))


@dataclass(frozen=True)
class Set:
    """A dataset: how it is imported and split, the minutes of a training, and the metrics that matter."""

    name: str
    minutes: float
    metrics: tuple[Metric, ...]
    options: tuple[str, ...] = ()  # of `segline import`
    changes: Changes = field(default_factory=dict)
    drawn: bool = False  # by stage sample, not imported
    regroup: bool = False  # into the groups that `segline check --groups` finds

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Return the content of params.yaml, but for the time and the seed."""
        content: dict[str, Any] = Params().model_dump(mode="json")
        own = {**OURS, "data.source": f"data/raw/{self.name}", **self.changes}
        return dict(merged(merged(content, nested(own)), preset.settings(AUTO)))

    @cached_property
    def key(self) -> str:
        """Return the MD5 of all that decides the prepared data, with the name in front."""
        content = [self.settings[section] for section in ("data", "sample", "prepare")]
        made = json.dumps([content, self.options, self.regroup], sort_keys=True)
        return f"{self.name}-{files.bytes_md5(made.encode())[:8]}"


def named(*classes: str) -> tuple[str, ...]:
    """Return the options of `segline import` that name classes 1, 2 and so on."""
    return tuple(word for number, name in enumerate(classes, 1) for word in ("--class", f"{number}={name}"))


# The percentages 10.0, 15.0 and 20.0 stay floats, because `Set.key` is computed from their JSON text.
SETS = (
    # Twice the default's images, half of them for the test, so that training has about as many as in the default.
    Set("cells", 10, (AP,), changes={"sample.images": 40, "prepare.test_percent": 50}, drawn=True),
    # Slices are consecutive, so the test split is two whole blocks, one from each half of the stack.
    Set(
        "isbi2012",
        15,
        (Metric("V^Rand", ("v_rand",)), Metric("pixel error (lower is better)", ("pixel_error",))),
        changes={"prepare.validation": ["00", "15"], "prepare.test": ["06", "07", "08", "21", "22", "23"]},
    ),
    # Few images show tissue or brightfield, so validation and test splits are larger.
    Set("dsb2018", 10, (AP,), changes={"prepare.val_percent": 15.0, "prepare.test_percent": 20.0}),
    Set(
        "wbc",
        4,
        (Metric("mean IoU", ("mean_iou",)), FOREGROUND),
        named("cytoplasm", "nucleus"),
        changes={"prepare.val_percent": 10.0, "prepare.test_percent": 20.0},
    ),
    # The groups that come with the data do not keep the photographs of a tile together.
    Set(
        "magnetic_tile",
        10,
        (Metric("detection AUC", ("detection_auc",)), Metric("IoU of cracks", ("iou", "crack")), FOREGROUND),
        named("blowhole", "break", "crack", "fray", "uneven"),
        changes={"prepare.val_percent": 15.0, "prepare.test_percent": 20.0},
        regroup=True,
    ),
    # Both eyes of a patient stay together; seven of the fourteen patients are the test split.
    Set(
        "chase_db1",
        10,
        (Metric("Dice of vessels", ("dice", "vessel")),),
        (*named("vessel"), "--group-by", r"^(Image_\d+)"),
        changes={"prepare.test": [f"Image_{number:02d}" for number in range(8, 15)]},
    ),
)


@dataclass(frozen=True)
class Cell:
    """The trainings of a set and a seed."""

    set: Set
    seed: int

    @property
    def name(self) -> str:
        """Name of the cell."""
        return f"{self.set.name} seed {self.seed}"

    def settings(self, contestant: str = OWN) -> dict[str, Any]:
        """Return the content of params.yaml."""
        own = {"plan.minutes": self.set.minutes, "train.seed": self.seed}
        if contestant == NO_SEARCH:
            own["tune.trials"] = 0
        content: dict[str, Any] = merged(self.set.settings, nested(own))
        check(Params, content, self.name)
        return content

    def is_of(self, line: Line) -> bool:
        """Return whether `line` is a result of this cell, with this data and time."""
        return bool((line["data"], line["seed"], line["minutes"]) == (self.set.key, self.seed, self.set.minutes))


class Results:
    """The lines of finished cells by one version of the code."""

    def __init__(self, file: Path, code: str) -> None:
        self.file, self.code, self.lock = file, code, threading.Lock()
        self.rival = identity.of_source(RIVAL.read_bytes())
        self.lines = read_lines(file)

    def add(self, cell: Cell, contestant: str, content: Line) -> Line:
        """Save the result of a contestant."""
        named = {
            "set": cell.set.name,
            "data": cell.set.key,
            "seed": cell.seed,
            "minutes": cell.set.minutes,
            "contestant": contestant,
        }
        line = {**named, "code": self.code, "machine": machine(), **content}
        with self.lock:
            add_line(self.file, line)
            self.lines.append(line)
        return line

    def segline(self, cell: Cell, contestant: str = OWN) -> Line | None:
        """Return segline's result with this version of the code."""
        return self._latest(lambda line: line["contestant"] == contestant and cell.is_of(line))

    def monai(self, cell: Cell) -> Line | None:
        """Return MONAI's result; segline's code does not matter for it."""
        return self._latest(
            lambda line: line["contestant"] == "MONAI" and cell.is_of(line) and line["rival"] == self.rival,
            any_code=True,
        )

    def baselines(self, wanted: Set) -> dict[str, Any]:
        """Return the metrics of the baselines of a set."""
        line = self._latest(lambda line: line["contestant"] == "baselines" and line["data"] == wanted.key)
        return line["figures"] if line else {}

    def _latest(self, wanted: Callable[[Line], bool], *, any_code: bool = False) -> Line | None:
        lines = (line for line in reversed(self.lines) if any_code or line["code"] == self.code)
        return next((line for line in lines if wanted(line)), None)
