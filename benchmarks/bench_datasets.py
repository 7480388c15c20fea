"""Public datasets: segline with `auto` beside a MONAI user with the same CPU time, and trivial baselines.

Run in the checkout: PYTHONPATH=src python benchmarks/bench_datasets.py DATA --work FOLDER [--monai-python PYTHON]

DATA holds the datasets as they came, one folder each. A cell is one training and its evaluation on the test split, of a
set, a seed and a contestant:

segline  every setting that may be `auto` is `auto`, so nobody looked at a test split for it. The stages run as
         processes with one thread. plan.minutes is the time of the set. "segline, no search": the same without trials.
MONAI    rival_monai.py, with the minutes of the set as CPU time

Only the seed of the training differs between seeds: data and splits stay as they are. Both contestants have the same
arrays and splits, and are judged by the same functions. A finished training is a line of --out; started again, the
benchmark goes on with the trainings that are missing. docs/datasets.md explains.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import baselines
from dataset_cells import NO_SEARCH, OWN, RIVAL, SETS, Cell, Results, Set
from dataset_tables import show
from harness import Line, ProcessError, Processes, code_md5, lay_out, read_lines, run_all, shown_as
from segline import files
from segline.data import imagefiles, truth
from segline.data.prepared import Prepared
from segline.model.inference import Inference, to_labels
from segline.params import PLAN_FILE
from segline.score import judge
from segline.train import choose

SCRATCH = Path(tempfile.gettempdir()) / "segline-datasets"
SEEDS = (0, 1, 2)


class Bench:
    """Folders in which the cells run."""

    def __init__(
        self, folder: Path, data: Path | None, results: Results, ours: Sequence[str], monai: Path | None
    ) -> None:
        self.folder, self.data, self.results, self.ours, self.monai = folder, data, results, ours, monai
        self.processes = Processes()

    def missing(self, cell: Cell) -> list[str]:
        """Return the contestants of the cell that have no result."""
        return [
            *(name for name in self.ours if self.results.segline(cell, name) is None),
            *(["MONAI"] if self.monai is not None and self.results.monai(cell) is None else []),
        ]

    def share(self, cell: Cell) -> None:
        """Prepare the data of a set, unless another cell has done so; compute the baselines."""
        folder = self._shared(cell)
        if not (folder / "data/prepared").exists():
            lay_out(folder, cell.settings())
            if cell.set.drawn:
                self.processes.segline(folder, "sample")
            else:
                self._import(folder, cell.set)
            self.processes.segline(folder, "prepare")
        if not self.results.baselines(cell.set):
            figures = baselines.of(Prepared.open(folder / "data/prepared"))
            self.results.add(replace(cell, seed=-1), "baselines", {"figures": figures})

    def work(self, cell: Cell) -> None:
        """Run the contestants that have no result. A stopped one starts again, so that its time is that of one run."""
        for contestant in self.missing(cell):
            if contestant == "MONAI":
                result = self._monai(cell, 60 * cell.set.minutes)
            else:
                result = self._segline(cell, contestant)
            self.results.add(cell, contestant, result)

    def _segline(self, cell: Cell, contestant: str) -> Line:
        folder, began = self.folder / f"{contestant} {cell.name}".replace(",", "").replace(" ", "-"), time.time()
        lay_out(folder, cell.settings(contestant))
        (folder / "data/prepared").symlink_to(self._shared(cell) / "data/prepared")
        stages = ("plan", "weights", "tune", "train", "evaluate")
        seconds = {stage: self.processes.segline(folder, stage) for stage in stages}
        result = {
            "cpu_seconds": {stage: round(value, 2) for stage, value in seconds.items()},
            "wall_seconds": round(time.time() - began, 1),
            "plan": {name: value for name, value in files.read_yaml(folder / PLAN_FILE).items() if name != "reasons"},
            "epochs": files.read_json(folder / "data/model/metrics.json"),
            "search": files.read_json(folder / "data/tune/search.json"),
            "inference": files.read_json(folder / "data/reports/inference.json"),
        }
        prepared = Prepared.open(self._shared(cell) / "data/prepared")
        scores = _segline_scores(prepared, folder / "data/reports")
        _check_equal(judge.total(scores, prepared.dataset.classes), files.read_json(folder / "data/reports/test.json"))
        shutil.rmtree(folder)
        return result | _judged(prepared, scores)

    def _monai(self, cell: Cell, seconds: float) -> Line:
        folder, began = self.folder / f"monai {cell.name}".replace(" ", "-"), time.time()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        source = self._shared(cell) / "data/prepared"
        prepared = Prepared.open(source)
        command = [str(self.monai), str(RIVAL), str(source), str(folder), "--seconds", str(seconds)]
        command += ["--labels", prepared.dataset.labels, "--classes", str(len(prepared.dataset.classes))]
        used = self.processes.run([*command, "--seed", str(cell.seed)], folder, folder / "monai.log")
        training = files.read_json(folder / "result.json")
        spent = {"train": training["cpu_seconds"], "evaluate": round(used - training["cpu_seconds"], 2)}
        scores, threshold = _monai_scores(prepared, folder)
        shutil.rmtree(folder)
        return {
            "rival": self.results.rival,
            "seconds": seconds,
            "cpu_seconds": spent,
            "wall_seconds": round(time.time() - began, 1),
            "training": training,
            "segment_threshold": threshold,
        } | _judged(prepared, scores)

    def _shared(self, cell: Cell) -> Path:
        return self.folder / cell.set.key

    def _import(self, folder: Path, wanted: Set) -> None:
        assert self.data is not None
        source, raw = self.data / wanted.name, Path("data/raw") / wanted.name
        self.processes.segline(folder, "import", str(source), "--name", wanted.name, *wanted.options)
        if wanted.regroup:
            self.processes.segline(folder, "check", str(raw), "--groups", "groups.csv")
            (folder / "groups.csv").replace(folder / raw / "groups.csv")


def _segline_scores(prepared: Prepared, reports: Path) -> list[judge.Score]:
    """Judge the files that stage evaluate wrote."""
    table = files.read_table(reports / "per_image.csv").set_index("image")
    scores = []
    for name in prepared.names("test"):
        labels = imagefiles.read_labels(reports / "predictions" / f"{name}.png").astype(np.uint8)
        (file,) = (file for file in (reports / "instances").iterdir() if file.stem == name)
        score = truth.score(prepared, name, labels, imagefiles.read_labels(file))
        if "detection_score" in table:
            # The probabilities are not among the files.
            score = replace(score, detection_score=float(table.loc[name, "detection_score"]))
        scores.append(score)
    return scores


def _monai_scores(prepared: Prepared, folder: Path) -> tuple[list[judge.Score], float | None]:
    """Judge the files of rival_monai.py; also return the segment threshold, chosen as in stage evaluate."""

    def array(kind: str, name: str) -> Any:
        return np.load(folder / kind / f"{name}.npy")

    def probabilities(name: str) -> Any:
        foreground = array("foreground", name)
        return np.stack([1 - foreground, foreground])

    threshold, boundaries = None, prepared.dataset.labels == "boundaries"
    if boundaries:
        images = ((probabilities(name), prepared.classes(name)) for name in prepared.names("validation"))
        threshold = choose.segment_threshold(images, Inference())
    scores = []
    for name in prepared.names("test"):
        labels = array("labels", name)
        if boundaries:
            labels = to_labels(probabilities(name), Inference(segment_threshold=threshold))
        scores.append(truth.score(prepared, name, labels, array("objects", name), array("foreground", name)))
    return scores, threshold


def _judged(prepared: Prepared, scores: Sequence[judge.Score]) -> Line:
    """Return the metrics over all test images, and the counts of each image, from which intervals are computed."""
    group_of = dict(zip(prepared.manifest["image"], prepared.manifest["group"], strict=True))
    return {
        "figures": baselines.totals(scores, prepared.dataset.classes),
        "classes": list(prepared.dataset.classes.values()),
        "groups": [group_of[name] for name in prepared.names("test")],
        "scores": [score.as_dict() for score in scores],
    }


def _check_equal(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Refuse scores that differ from those of stage evaluate."""
    for name in judge.METRICS:
        first, second = ours.get(name), theirs.get(name)
        if first != second and not (first and second and abs(first - second) < 1e-9):
            raise ValueError(f"{name} is {first} from the files of stage evaluate, but {second} in test.json")


def run(cells: Sequence[Cell], bench: Bench, jobs: int) -> int:
    """Run the cells, `jobs` at a time; return the number of failed cells. The others run all the same."""
    failed: list[Cell] = []
    ready: list[Cell] = []
    for cell in cells:
        print(f"prepare {cell.name}", flush=True)
        try:
            bench.share(cell)
        except ProcessError as error:
            failed.append(cell)
            print(f"{cell.name}: failed, {error}", flush=True)
        else:
            ready.append(cell)

    def done(number: int, cell: Cell, result: Future[None]) -> None:
        try:
            result.result()
        except Exception as error:  # a long benchmark goes on with the other cells
            failed.append(cell)
            words = str(error) if isinstance(error, ProcessError) else "".join(traceback.format_exception(error))
            print(f"{number}/{len(ready)} {cell.name}: failed, {words}", flush=True)
            return
        lines = [*(bench.results.segline(cell, name) for name in bench.ours), bench.results.monai(cell)]
        for line in filter(None, lines):
            words = ", ".join(f"{m.title} {shown_as(m.of(line['figures']))}" for m in cell.set.metrics)
            spent = " ".join(f"{stage} {value:.1f}" for stage, value in line["cpu_seconds"].items())
            print(f"{number}/{len(ready)} {cell.name} {line['contestant']}: {words}; CPU seconds: {spent}", flush=True)

    run_all(ready, bench.work, jobs, bench.processes, done)
    return len(failed)


def _minutes(text: str, sets: Sequence[Set]) -> list[Set]:
    """Return the sets with the minutes that --minutes asks for: one number for all, or set=number,..."""
    if not text:
        return list(sets)
    if "=" not in text:
        return [replace(each, minutes=float(text)) for each in sets]
    asked = {name: float(number) for name, _, number in (part.partition("=") for part in text.split(","))}
    _refuse_unknown("--minutes", asked)
    return [replace(each, minutes=asked.get(each.name, each.minutes)) for each in sets]


def _refuse_unknown(option: str, names: Sequence[str] | Mapping[str, float]) -> None:
    known = [each.name for each in SETS]
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"{option}: there is no set {unknown[0]!r}; choose from {', '.join(known)}")


def _monai(python: Path | None) -> Path | None:
    """Return the interpreter that has MONAI; None if there is none."""
    if python is not None:
        if not python.is_file():
            sys.exit(f"--monai-python: there is no file {python}")
        return python.absolute()
    if find_spec("monai"):
        return Path(sys.executable)
    print("MONAI is skipped: it is not installed here; give an interpreter that has it with --monai-python", flush=True)
    return None


def _available(sets: Sequence[Set], data: Path | None) -> list[Set]:
    """Return the sets whose data is there; name the others."""
    found = []
    for each in sets:
        if each.drawn or (data is not None and (data / each.name).is_dir()):
            found.append(each)
        else:
            print(f"{each.name} is skipped: there is no folder {data / each.name if data else 'DATA'}", flush=True)
    return found


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    default = os.environ.get("SEGLINE_TEST_DATA")
    parser = argparse.ArgumentParser(description="segline with `auto` beside MONAI; see docs/datasets.md.")
    parser.add_argument(
        "data", type=Path, nargs="?", default=default and Path(default), help="folder with the datasets"
    )
    parser.add_argument("--work", type=Path, default=SCRATCH, help="folder for the projects")
    parser.add_argument("--out", type=Path, help="JSON lines, one a finished cell; default: datasets.jsonl in --work")
    parser.add_argument("--sets", default=",".join(each.name for each in SETS), help="names, separated by commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="seeds, separated by commas")
    parser.add_argument(
        "--minutes", default="", help="of search and training: a number for all sets, or set=number,..."
    )
    parser.add_argument(
        "--only", choices=(OWN, NO_SEARCH, "MONAI"), help="run only this contestant; default: segline and MONAI"
    )
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--monai-python", type=Path, help="interpreter that has MONAI; default: this one, if it has")
    parser.add_argument("--table", action="store_true", help="only print what is there, of the code of its last line")
    asked = parser.parse_args()
    asked.out = asked.out or asked.work / "datasets.jsonl"
    return asked


def main() -> None:
    """Run the missing cells, then print the tables and one JSON line."""
    asked, code = arguments(), code_md5()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = asked.sets.split(",")
    _refuse_unknown("--sets", names)
    sets = _minutes(asked.minutes, [each for each in SETS if each.name in names])
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    if asked.table:
        lines = read_lines(asked.out)
        if not lines:
            sys.exit(f"{asked.out} holds nothing yet")
        if lines[-1]["code"] != code:
            print("The code of src/segline has changed since; this is what the former code gave.")
        show(sets, Results(asked.out, lines[-1]["code"]), seeds)
        return
    sets = _available(sets, asked.data)
    bench = Bench(
        asked.work.resolve() / code[:8],
        asked.data and asked.data.resolve(),
        Results(asked.out, code),
        [] if asked.only == "MONAI" else [asked.only or OWN],
        _monai(asked.monai_python) if asked.only in (None, "MONAI") else None,
    )
    every = [Cell(each, seed) for seed in seeds for each in sets]
    missing = [cell for cell in every if bench.missing(cell)]
    print(f"{len(every) - len(missing)} of {len(every)} cells are in {asked.out}", flush=True)
    failed = run(missing, bench, asked.jobs)
    show(sets, bench.results, seeds)
    if failed:
        sys.exit(f"{failed} cells failed; the reasons are above and in {bench.folder}")


if __name__ == "__main__":
    main()
