"""`segline models compare`: print the metrics of two versions, and draw the images whose predictions differ most."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline import files, params
from segline.commands.models import open_registry
from segline.data import imagefiles
from segline.gate.heldout import HeldOut, HeldOutError, load
from segline.gate.rules import same_interface
from segline.score import bootstrap
from segline.score.judge import Score
from segline.score.overlay import gallery, legend
from segline.track.answers import Loaded
from segline.track.registry import ModelVersion, Registry

SHOWN = 8  # number of images to draw

Both = tuple[list[Score], list[Score]]


def main(
    first: str, second: str, name: str, *, out: Path, as_json: bool, console: Console, say: Callable[[str], None]
) -> None:
    """Compare two versions on the current test images; each version predicts with its own code.

    Pictures and all metrics are written to OUT/FIRST-SECOND, where FIRST and SECOND are the version numbers.

    Raises
    ------
    HeldOutError
        There are no test images, or a version does not accept them or fails on one; exit code 2.
    """
    registry, gate = open_registry(name), params.read(params.Gate)
    versions = registry.version(first), registry.version(second)
    held_out = HeldOut.open(params.read(params.Runtime).progress)
    models = [_load(registry, version, held_out) for version in versions]
    scores = [held_out.scores(registry, *entrant) for entrant in zip(versions, models, strict=True)]
    both: Both = scores[0], scores[1]
    content: dict[str, Any] = {
        "name": registry.name,
        "versions": [
            {"version": int(version.version), "md5": model.md5} for version, model in zip(versions, models, strict=True)
        ],
        "test": {"md5": held_out.md5, "images": len(held_out.names)},
        "confidence": gate.confidence,
        "resamples": gate.resamples,
        "metrics": metrics(both, gate),
        "groups": dict(_of_groups(both, held_out.groups, gate)),
    }
    metric = gate.metric if gate.metric in content["metrics"] else "mean_iou"
    folder = out / "-".join(str(version.version) for version in versions)
    with files.whole_folder(folder) as whole:
        names = [f"version {version.version}" for version in versions]
        drawn = _draw(whole, held_out, dict(zip(names, zip(models, both, strict=True), strict=True)), metric)
        files.write_json(whole / "comparison.json", content)
    if as_json:
        say(json.dumps(content, indent=2, allow_nan=False))
        return
    for table in tables(content, metric):
        console.print(table)
    pictures = (
        f", and pictures of the {drawn} images that differ most"
        if drawn
        else "; both versions have the same scores on every image"
    )
    say(f"the folder {folder} contains these metrics{pictures}")


def metrics(both: Both, gate: params.Gate) -> dict[str, Any]:
    """Return both values, and the gain of the second version, for each metric that both versions have.

    `first` and `second` are the values of the two versions; `gain` is the gain of the second version over the first.
    Each part is a list of a value and the two ends of its confidence interval.
    """
    names = [name for name in bootstrap.METRICS if all(bootstrap.known(scores, name) for scores in both)]
    results = {
        name: bootstrap.compare(
            *both, metric=name, resamples=gate.resamples, confidence=gate.confidence, seed=gate.seed
        )
        for name in names
    }
    return {
        name: {part: [_or_none(number) for number in interval] for part, interval in result._asdict().items()}
        for name, result in results.items()
    }


def most_different(both: Both, metric: bootstrap.Metric) -> list[int]:
    """Return the indices of at most `SHOWN` images where two versions differ in `metric`, largest difference first."""
    gains = [abs(bootstrap.gain([first], [second], metric)) for first, second in zip(*both, strict=True)]
    return sorted((index for index, gain in enumerate(gains) if gain > 0), key=lambda index: -gains[index])[:SHOWN]


def tables(content: dict[str, Any], metric: str) -> Iterator[Table]:
    """Yield a table of all metrics over all images, and a table of the main metric for each group of images."""
    first, second = (f"version {version['version']}" for version in content["versions"])
    title = f"{content['name']}: {content['test']['images']} test images, {content['confidence']:.0%} intervals"
    whole = Table("", first, second, "gain", title=Text(title, style="table.title"), title_justify="left")
    for name, row in content["metrics"].items():
        whole.add_row(name, *(interval(row[part]) for part in ("first", "second", "gain")))
    yield whole
    if content["groups"]:
        groups = Table(f"{metric} of group", "images", first, second, "gain")
        for name, group in content["groups"].items():
            row = group["metrics"][metric]
            groups.add_row(
                Text(name), str(group["images"]), *(interval(row[part]) for part in ("first", "second", "gain"))
            )
        yield groups


def interval(numbers: Sequence[float | None]) -> Text:
    """Format a value together with the two ends of its confidence interval."""
    value, low, high = ("-" if number is None else f"{number:.4f}" for number in numbers)
    return Text(f"{value} ({low} to {high})")


def _load(registry: Registry, version: ModelVersion, held_out: HeldOut) -> Loaded:
    if reasons := same_interface(version.tags, held_out.interface, "test images").undecided:
        raise HeldOutError(f"version {version.version}: {reasons[0]}")
    return load(registry, version)


def _of_groups(both: Both, groups: list[str], gate: params.Gate) -> Iterator[tuple[str, Any]]:
    """Yield the metrics of each group of images; yield nothing if every group has only one image."""
    if len(set(groups)) == len(groups):
        return
    for group in sorted(set(groups)):
        indices = [index for index, name in enumerate(groups) if name == group]
        part: Both = [both[0][index] for index in indices], [both[1][index] for index in indices]
        yield group, {"images": len(indices), "metrics": metrics(part, gate)}


def _draw(
    folder: Path, held_out: HeldOut, entrants: Mapping[str, tuple[Loaded, list[Score]]], metric: bootstrap.Metric
) -> int:
    """Draw the images on which the scores of two versions differ most; return the number of drawn images.

    Each picture shows both predictions and the ground truth.
    """
    models, scores = zip(*entrants.values(), strict=True)
    shown = most_different((scores[0], scores[-1]), metric)
    for number, index in enumerate(shown, 1):
        name = held_out.names[index]
        image = held_out.encoded(name)
        titles = [
            f"{title}: {metric} {bootstrap.value([version_scores[index]], metric):.4f}"
            for title, (_, version_scores) in entrants.items()
        ]
        panels = [held_out.picture(name, model(image)) for model in models]
        sheet = [*zip(titles, panels, strict=True), ("truth", held_out.true_picture(name))]
        picture = gallery(sheet, 3, legend(held_out.prepared.dataset.classes))
        imagefiles.write_png(folder / f"{number}_{name}.png", picture)
    return len(shown)


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number
