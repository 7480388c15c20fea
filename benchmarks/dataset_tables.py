"""Tables of the results of bench_datasets.py: means over the seeds, their range, and intervals over the test images."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import baselines
from dataset_cells import NO_SEARCH, PARTS, Cell, Metric, Results, Set
from harness import Line, mean, shown_as
from segline.params import value_at
from segline.score import judge

# Planned settings in the last table
PLANNED = (
    *(f"model.{name}" for name in ("input_norm", "reduction", "depth", "width")),
    *("weights.kind", "train.tile", "train.epochs", "train.tiles_per_epoch", "tune.trials", "evaluate.views"),
)
CONFIDENCE, RESAMPLES = 0.95, 1000
FEWEST_IMAGES = 10  # number of test images from which an interval is given


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


def intervals(metrics: Sequence[Metric], contestants: Sequence[Sequence[Line]]) -> list[list[Interval | None]]:
    """Return the intervals of each contestant's means over its seeds, and of the first minus each of the others.

    Images are drawn with replacement, in whole groups, and the same images for all seeds and contestants (percentile
    bootstrap, as in segline.score.bootstrap). The interval holds the chance in the choice of the test images; the
    spread between the seeds holds that of the training.

    Returns
    -------
    list of (contestants, metrics)
        None if there are too few images, or if no drawn images have a value of the metric.
    """
    names, count = contestants[0][0]["groups"], len(contestants)
    if len(names) < FEWEST_IMAGES:
        return [[None] * len(metrics)] * (2 * count - 1)
    members = [[index for index, name in enumerate(names) if name == group] for group in dict.fromkeys(names)]
    classes = dict(enumerate(contestants[0][0]["classes"]))
    scores = [[[judge.Score.from_dict(s) for s in line["scores"]] for line in lines] for lines in contestants]
    generator = np.random.default_rng(0)
    drawn = np.full((RESAMPLES, 2 * count - 1, len(metrics)), np.nan)
    for reached in drawn:
        indices = [index for place in generator.integers(0, len(members), len(members)) for index in members[place]]
        for place, lines in enumerate(scores):
            figures = [baselines.totals([line[index] for index in indices], classes) for line in lines]
            reached[place] = np.mean([[_or_nan(metric.of(each)) for metric in metrics] for each in figures], axis=0)
        reached[count:] = reached[0] - reached[1:count]
    return [[_interval(drawn[:, place, k]) for k in range(len(metrics))] for place in range(drawn.shape[1])]


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _interval(values: npt.NDArray[np.float64]) -> Interval | None:
    numbers = values[~np.isnan(values)]
    if not numbers.size:
        return None
    return Interval(*np.quantile(numbers, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist())


class Row(NamedTuple):
    """A line of a table: for each metric, the values of the seeds and the interval of their mean."""

    name: str
    values: list[list[float]]
    intervals: Sequence[Interval | None]
    minutes: float | None = None  # CPU time of search and training, mean over the seeds

    def markdown(self) -> str:
        """Return for each metric the mean, the smallest and largest value, and the interval."""
        cells = []
        for values, interval in zip(self.values, self.intervals, strict=True):
            text = shown_as(mean(values))
            if len(values) > 1:
                text += f" ({shown_as(min(values))} to {shown_as(max(values))})"
            if interval:
                text += f" [{shown_as(interval.low)}, {shown_as(interval.high)}]"
            cells.append(text)
        minutes = "" if self.minutes is None else f"{self.minutes:.2f}"
        return f"| {self.name} | {' | '.join(cells)} | {minutes} |"


def contestants(wanted: Set, results: Results, seeds: Sequence[int]) -> dict[str, list[Line]]:
    """Return the results of each contestant that has some, by its name in the table."""
    cells = [Cell(wanted, seed) for seed in seeds]
    lines = {
        "segline, `auto`": [line for cell in cells if (line := results.segline(cell))],
        "MONAI BasicUNet": [line for cell in cells if (line := results.monai(cell))],
        "segline, no search": [line for cell in cells if (line := results.segline(cell, NO_SEARCH))],
    }
    return {name: found for name, found in lines.items() if found}


def rows(wanted: Set, lines: Mapping[str, Sequence[Line]], figures: Mapping[str, Any]) -> list[Row]:
    """Return the lines of the table of a set; `figures` holds the metrics of the baselines."""
    metrics, ranges = wanted.metrics, intervals(wanted.metrics, list(lines.values()))
    made = [
        Row(name, [_known(metric.of(line["figures"]) for line in found) for metric in metrics], interval, _spent(found))
        for (name, found), interval in zip(lines.items(), ranges, strict=False)
    ]
    first, *others = lines
    for name, interval in zip(others, ranges[len(lines) :], strict=True):
        apart = [_apart(metric, lines[first], lines[name]) for metric in metrics]
        made.append(Row(f"difference: {first} minus {name}", apart, interval))
    for name, each in figures.items():
        values = [_known([metric.of(each)]) for metric in metrics]
        if any(values):
            made.append(Row(name, values, [None] * len(metrics)))
    return made


def table(wanted: Set, results: Results, seeds: Sequence[int]) -> tuple[str, dict[str, Any]] | None:
    """Return the Markdown table of a set and the same as values; None if there are no results."""
    lines = contestants(wanted, results, seeds)
    if not lines:
        return None
    made, titles = rows(wanted, lines, results.baselines(wanted)), [metric.title for metric in wanted.metrics]
    groups, run = next(iter(lines.values()))[0]["groups"], {line["seed"] for found in lines.values() for line in found}
    text = [
        f"### {wanted.name}: {len(groups)} test images in {len(set(groups))} groups",
        "",
        f"plan.minutes: {wanted.minutes:g}; seeds {', '.join(map(str, sorted(run)))}.",
        "",
        f"| | {' | '.join(titles)} | CPU minutes |",
        f"|---|{'---|' * len(titles)}---|",
        *(row.markdown() for row in made),
    ]
    values = [row._asdict() | {"intervals": list(row.intervals)} for row in made]
    return "\n".join(text), {"set": wanted.name, "minutes": wanted.minutes, "metrics": titles, "rows": values}


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _spent(lines: Sequence[Line]) -> float | None:
    """Return the CPU minutes of search and training."""
    return mean([sum(line["cpu_seconds"].get(part, 0) for part in PARTS) / 60 for line in lines])


def _apart(metric: Metric, first: Sequence[Line], second: Sequence[Line]) -> list[float]:
    """Return the differences, seed by seed."""
    theirs = {line["seed"]: metric.of(line["figures"]) for line in second}
    pairs = [(metric.of(line["figures"]), theirs.get(line["seed"])) for line in first]
    return [a - b for a, b in pairs if a is not None and b is not None]


def planned(sets: Sequence[Set], results: Results, seeds: Sequence[int]) -> str:
    """Return the Markdown table of what was planned for the first seed of each set, and what the search gained."""
    made = [f"| | {' | '.join(PLANNED)} | search |", f"|---|{'---|' * len(PLANNED)}---|"]
    for wanted in sets:
        line = next((found for seed in seeds if (found := results.segline(Cell(wanted, seed)))), None)
        if line is not None:
            values = [str(value_at(line["plan"], name)) for name in PLANNED]
            made.append(f"| {wanted.name} | {' | '.join(values)} | {line['search'].get('said', 'none')} |")
    return "\n".join(made)


def show(sets: Sequence[Set], results: Results, seeds: Sequence[int]) -> None:
    """Print the tables and one JSON line."""
    of_code = [line for line in results.lines if line["code"] == results.code]
    found = [made for wanted in sets if (made := table(wanted, results, seeds))]
    print(f"\nMachines: {sorted({line['machine'] for line in of_code})}; code {results.code}")
    print(
        f"Mean over the seeds (smallest to largest) [{CONFIDENCE:.0%} interval over the test images, from "
        f"{FEWEST_IMAGES} images]. CPU minutes: search and training.\n"
    )
    for text, _ in found:
        print(text + "\n")
    print(planned(sets, results, seeds) + "\n")
    print(json.dumps({"benchmark": "datasets", "code": results.code, "sets": [values for _, values in found]}))
