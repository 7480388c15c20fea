"""Ablation: trainings with one setting changed at a time, three seeds each; prints a table and one JSON line.

Run in the checkout: PYTHONPATH=src python benchmarks/bench_ablation.py [--dsb FOLDER] [--jobs N] [--table] [--quick]

A cell is one training and its evaluation on the test split, by the stages themselves, each a process with one thread,
in a project folder of its own. Only train.seed differs between seeds: data and splits stay as they are. A cell that is
finished is a line of OUT; started again, the benchmark goes on with those that are missing. docs/ablation.md explains.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from harness import (
    ROOT,
    Line,
    ProcessError,
    Processes,
    add_line,
    code_md5,
    machine,
    mean,
    read_lines,
    run_all,
    shown_as,
)
from segline.params import Params, check, merged, nested

Changes = dict[str, Any]  # values by the full names of settings

OUT = ROOT / "benchmarks/results/ablation.jsonl"
SCRATCH = Path(tempfile.gettempdir())
SEEDS = (0, 1, 2)
FIGURES = ("mean_iou", "pixel_error", "ap_50", "ap_50_by_image", "seg")
PARTS = ("train", "evaluate")  # stages whose CPU time is measured
OURS: Changes = {
    "tune.trials": 0,
    "evaluate.threshold": "argmax",  # the default when the table was measured
    "train.save_checkpoint": False,  # nobody would read the copy in the run
    "runtime.device": "cpu",
    "runtime.threads": 1,
    "runtime.progress": "lines",
}
# Settings of the first arms; all others have their defaults. Those of dsb2018 are fixed values, because a plan depends
# on the speed of the machine, and the table could not be repeated.
BASELINES: dict[str, Changes] = {
    "sample": {},
    "dsb2018": {
        "data.source": "data/raw/dsb2018",
        "prepare.val_percent": 15,
        "prepare.test_percent": 20,
        "weights.kind": "paper",
        "weights.w0": 10,
        "weights.sigma": 5,
        "weights.class_balance": 0.5,
        "model.padding": "same",
        "model.width": 16,
        "model.depth": 4,
        "model.norm": "none",
        "augment.elastic_sigma": 4,
        "augment.min_scale": 0.7,
        "augment.max_scale": 1.5,
        "augment.contrast": 0.4,
        "augment.noise": 0.01,
        "train.epochs": 11,  # about five minutes of CPU time
        "train.tiles_per_epoch": 320,
        "train.batch_size": 2,
        "train.tile": 256,
        "train.optimizer": "adamw",
        "train.learning_rate": 0.0015,
        "train.weight_decay": 0.01,
        "train.schedule.kind": "one_cycle",
        "train.amp": "bf16",
        "train.validation_tiles": 48,
        "evaluate.views": 8,
    },
}
# The default's momentum starts at its value, so that its warm-up changes nothing: it is asked about where the paper's
# momentum is. The rate: see docs/ablation.md.
SGD: Changes = {
    "train.optimizer": "sgd",
    "train.learning_rate": 0.01,
    "train.momentum": 0.99,
    "train.momentum_start": 0.9,
}
QUICK: Changes = {
    "sample.images": 6,
    "sample.min_size": 64,
    "sample.max_size": 80,
    "model.width": 4,
    "model.depth": 2,
    "train.epochs": 2,
    "train.tiles_per_epoch": 8,
    "train.tile": 64,
}
# Sections whose settings change a cell's metrics; the first ones determine the arrays and the weight maps.
PREPARED = ("data", "sample", "prepare")
WEIGHTS = (*PREPARED, "weights")
CELL = (*WEIGHTS, "model", "augment", "train", "evaluate")


@dataclass(frozen=True)
class Factor:
    """Arms of a comparison; the first arm is the baseline."""

    name: str
    dataset: str
    arms: dict[str, Changes]


FACTORS = (
    Factor(
        "weight map",
        "sample",
        {
            "paper": {},
            "none": {"weights.kind": "none"},
            "falk2019": {"weights.kind": "falk2019", "weights.w0": 50, "weights.sigma": 6},
        },
    ),
    Factor("deformation", "sample", {"on": {}, "off": {"augment.elastic_sigma": 0}}),
    Factor(
        "momentum warm-up, SGD 0.99",
        "sample",
        {"on": {**SGD, "train.momentum_warmup_percent": 20}, "off": {**SGD, "train.momentum_warmup_percent": 0}},
    ),
    Factor("weight map", "dsb2018", {"paper": {}, "none": {"weights.kind": "none"}}),
)
QUICK_FACTORS = (Factor("deformation", "sample", FACTORS[1].arms),)


@dataclass(frozen=True)
class Cell:
    """One training: dataset, changes to its baseline, and seed."""

    dataset: str
    changes: Changes
    seed: int
    quick: bool = False

    @property
    def name(self) -> str:
        """Name of the cell."""
        words = [f"{name}={value}" for name, value in self.changes.items()] or ["baseline"]
        return " ".join([self.dataset, *words, f"seed {self.seed}"])

    @cached_property
    def settings(self) -> Params:
        """Return all settings of the cell."""
        quick = QUICK if self.quick else {}
        own = {**BASELINES[self.dataset], **OURS, **quick, **self.changes, "train.seed": self.seed}
        return check(Params, merged(Params().model_dump(mode="json"), nested(own)), self.name)

    def key(self, sections: Iterable[str] = CELL) -> str:
        """Return the MD5 of the settings in these sections."""
        content = json.dumps(self.settings.model_dump(mode="json", include=set(sections)), sort_keys=True)
        return hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()

    def is_of(self, line: Line) -> bool:
        """Return whether `line` is the result of this cell."""
        return all(line[name] == getattr(self, name) for name in ("dataset", "changes", "seed", "quick"))


def cells(factors: Iterable[Factor], seeds: Iterable[int], quick: bool) -> list[Cell]:
    """Return each cell once, as baselines are shared; ordered by seed, so that a partial ablation can be compared."""
    found: list[Cell] = []
    for seed in seeds:
        for factor in factors:
            for changes in factor.arms.values():
                cell = Cell(factor.dataset, changes, seed, quick)
                if cell not in found:
                    found.append(cell)
    return found


class Bench:
    """Folders in which the cells run. `share` makes the data that several cells have in common."""

    def __init__(self, folder: Path, dsb: Path | None) -> None:
        self.folder, self.dsb = folder, dsb
        self.processes = Processes()

    def share(self, cell: Cell) -> None:
        """Prepare the data and the weight maps of a cell, unless another cell has done so."""
        data, weights = self._prepared(cell), self._weights(cell)
        if not (data / "data/prepared").exists():
            self._lay_out(data, cell)
            if cell.dataset == "sample":
                self.processes.segline(data, "sample")
            else:
                self.processes.segline(data, "import", str(self.dsb), "--name", cell.dataset, "--replace")
            self.processes.segline(data, "prepare")
        if not (weights / "data/weights").exists():
            self._lay_out(weights, cell, {"prepared": data})
            self.processes.segline(weights, "weights")

    def work(self, cell: Cell) -> Line:
        """Train and evaluate. A stopped cell starts again, so that its CPU time covers a whole training."""
        folder, began = self.folder / f"cell-{cell.key()}", time.time()
        self._lay_out(folder, cell, {"prepared": self._prepared(cell), "weights": self._weights(cell)})
        minutes = {stage: self.processes.segline(folder, stage) / 60 for stage in ("tune", "train", "evaluate")}
        model = json.loads((folder / "data/model/metrics.json").read_text())
        test = json.loads((folder / "data/reports/test.json").read_text())
        shutil.rmtree(folder)
        return {
            "figures": {name: test[name] for name in FIGURES},
            "cpu_minutes": {name: round(minutes[name], 3) for name in PARTS},
            "wall_minutes": round((time.time() - began) / 60, 3),
            "test_images": test["images"],
            "best_epoch": model["best_epoch"],
            "collapsed": model["collapsed"],
        }

    def _prepared(self, cell: Cell) -> Path:
        return self.folder / f"prepared-{cell.key(PREPARED)}"

    def _weights(self, cell: Cell) -> Path:
        return self.folder / f"weights-{cell.key(WEIGHTS)}"

    def _lay_out(self, folder: Path, cell: Cell, shared: dict[str, Path] | None = None) -> None:
        """Make `folder` a project with the cell's settings and links to the shared data."""
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "data").mkdir(parents=True)
        shutil.copy(ROOT / "dvc.yaml", folder)
        YAML().dump(cell.settings.model_dump(mode="json"), folder / "params.yaml")
        for name, owner in (shared or {}).items():
            (folder / "data" / name).symlink_to(owner / "data" / name)


def run(wanted: list[Cell], bench: Bench, jobs: int, add: Callable[[Cell, Line], None]) -> int:
    """Run the cells, `jobs` at a time; return the number of failed cells. The others run all the same."""
    failed: list[Cell] = []
    for number, cell in enumerate(wanted, 1):
        print(f"prepare {number}/{len(wanted)} {cell.name}", flush=True)
        bench.share(cell)

    def done(number: int, cell: Cell, result: Future[Line]) -> None:
        try:
            line = result.result()
        except ProcessError as error:
            failed.append(cell)
            print(f"{number}/{len(wanted)} {cell.name}: failed, {error}", flush=True)
            return
        add(cell, line)
        said = " ".join(f"{name} {shown_as(line['figures'][name])}" for name in FIGURES)
        minutes = line["cpu_minutes"]
        spent = f"CPU minutes: train {minutes['train']:.2f}, evaluate {minutes['evaluate']:.2f}"
        print(f"{number}/{len(wanted)} {cell.name}: {said}; {spent}", flush=True)

    run_all(wanted, bench.work, jobs, bench.processes, done)
    return len(failed)


def summed_up(factor: Factor, arm: str, lines: Sequence[Line], seeds: Sequence[int], quick: bool) -> dict[str, Any]:
    """One arm over its seeds; ``differences`` are to the first arm, seed by seed."""

    def by_seed(changes: Changes) -> dict[int, Line]:
        of = [Cell(factor.dataset, changes, seed, quick) for seed in seeds]
        return {cell.seed: line for cell in of for line in lines if cell.is_of(line)}  # the latest line counts

    here, there = by_seed(factor.arms[arm]), by_seed(next(iter(factor.arms.values())))
    figures = {}
    for name in FIGURES:
        differences = [here[s]["figures"][name] - there[s]["figures"][name] for s in here if s in there]
        figures[name] = spread([line["figures"][name] for line in here.values()]) | {"differences": differences}
    return {
        "dataset": factor.dataset,
        "factor": factor.name,
        "arm": arm,
        "reference": arm == next(iter(factor.arms)),
        "seeds": list(here),
        "figures": figures,
        "cpu_minutes": {part: mean([line["cpu_minutes"][part] for line in here.values()]) for part in PARTS},
    }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return mean, sample standard deviation (n - 1), smallest and largest value."""
    return {
        "mean": mean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return two Markdown tables: the metrics of each arm, and their differences to the baseline."""

    def named(row: dict[str, Any]) -> str:
        return f"| {row['dataset']} | {row['factor']} | {row['arm']} |"

    def reached(figure: dict[str, Any]) -> str:
        mean, deviation, low, high = (shown_as(figure[name]) for name in ("mean", "deviation", "min", "max"))
        if figure["deviation"] is None:
            return mean
        return f"{mean} ± {deviation} ({low} to {high})"

    def apart(figure: dict[str, Any]) -> str:
        values = figure["differences"]
        return f"{', '.join(f'{value:+.4f}' for value in values)}; mean {mean(values):+.4f}" if values else "-"

    columns, rule = " | ".join(FIGURES), "---|" * len(FIGURES)
    lines = [f"| dataset | factor | arm | seeds | {columns} | CPU minutes |", f"|---|---|---|---|{rule}---|"]
    for row in rows:
        minutes = "-" if row["cpu_minutes"]["train"] is None else f"{row['cpu_minutes']['train']:.1f}"
        middle = " | ".join(reached(row["figures"][name]) for name in FIGURES)
        lines.append(f"{named(row)} {len(row['seeds'])} | {middle} | {minutes} |")
    lines += [
        "",
        f"| dataset | factor | arm minus the first arm, seed by seed | {columns} |",
        f"|---|---|---|{rule}",
    ]
    for row in rows:
        if not row["reference"]:
            lines.append(f"{named(row)} {' | '.join(apart(row['figures'][name]) for name in FIGURES)} |")
    return "\n".join(lines)


def show(lines: Sequence[Line], code: str, factors: Sequence[Factor], seeds: Sequence[int], quick: bool) -> None:
    """Print the table of the cells made by `code`, and one JSON line."""
    of_code = [line for line in lines if line["code"] == code]
    rows = [summed_up(factor, arm, of_code, seeds, quick) for factor in factors for arm in factor.arms]
    images = {line["dataset"]: line["test_images"] for line in of_code}
    print(f"\nTest images: {images}; machines: {sorted({line['machine'] for line in of_code})}; code {code}\n")
    print(table(rows) + "\n")
    print(json.dumps({"benchmark": "ablation", "code": code, "test_images": images, "quick": quick, "rows": rows}))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    data = os.environ.get("SEGLINE_TEST_DATA")
    parser = argparse.ArgumentParser(description="Trainings with one setting changed at a time; see docs/ablation.md.")
    parser.add_argument("--dsb", type=Path, default=Path(data) / "dsb2018" if data else None, help="dsb2018 as it came")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--out", type=Path, help="JSON lines, one a finished cell")
    parser.add_argument("--work", type=Path, default=SCRATCH / "segline-ablation", help="folder for the projects")
    parser.add_argument("--only", default="", help="only cells whose printed name holds this")
    parser.add_argument("--table", action="store_true", help="only print what is there, of the code of its last line")
    parser.add_argument("--quick", action="store_true", help="tiny settings, one factor, two seeds: about a minute")
    asked = parser.parse_args()
    asked.out = asked.out or (SCRATCH / "segline-ablation-quick.jsonl" if asked.quick else OUT)
    return asked


def main() -> None:
    """Run the missing cells, then print the table and one JSON line."""
    asked, code = arguments(), code_md5()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    factors: Sequence[Factor] = QUICK_FACTORS if asked.quick else FACTORS
    seeds = SEEDS[:2] if asked.quick else SEEDS
    lines = read_lines(asked.out)
    if asked.table:
        if not lines:
            sys.exit(f"{asked.out} holds nothing yet")
        if lines[-1]["code"] != code:
            print("The code of src/segline has changed since; this is what the former code gave.")
        show(lines, lines[-1]["code"], factors, seeds, asked.quick)
        return
    if asked.dsb is None or not asked.dsb.is_dir():
        if not asked.quick:
            print(f"dsb2018 is skipped: --dsb is {asked.dsb or 'not given'}, no folder")
        factors = [factor for factor in factors if factor.dataset != "dsb2018"]
    done = {line["key"] for line in lines if line["code"] == code}
    every = [cell for cell in cells(factors, seeds, asked.quick) if asked.only in cell.name]
    wanted = [cell for cell in every if cell.key() not in done]
    print(f"{len(every) - len(wanted)} of {len(every)} cells are in {asked.out}", flush=True)
    here = machine()

    def add(cell: Cell, line: Line) -> None:
        named = {name: getattr(cell, name) for name in ("dataset", "changes", "seed", "quick")}
        add_line(asked.out, {"key": cell.key(), "code": code, "machine": here, **named, **line})

    bench = Bench(asked.work / code[:8], asked.dsb and asked.dsb.resolve())
    failed = run(wanted, bench, asked.jobs, add)
    show(read_lines(asked.out), code, factors, seeds, asked.quick)
    if failed:
        sys.exit(f"{failed} cells failed; what they said is above and in {bench.folder}")
    shutil.rmtree(bench.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
