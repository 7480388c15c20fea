"""`segline runs`: the latest runs with their state and main metric."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline.track.recent import Row, latest
from segline.track.store import open_store

MAIN = ("test_mean_iou", "validation_mean_iou")  # the first that a run has is shown
SHORT = 8  # letters of an id
COLOURS = {"RUNNING": "cyan", "FINISHED": "green", "FAILED": "red", "KILLED": "yellow"}
UNITS = ((86400, "d"), (3600, "h"), (60, "min"))  # seconds; what is shorter is said in seconds


def main(count: int, as_json: bool, console: Console, say: Callable[[str], None]) -> None:
    """Show the latest `count` runs, newest first; as JSON, one array with all they hold."""
    store = open_store()
    store.end_stale()
    rows = latest(store, count)
    if as_json:
        say(json.dumps([_plain(row) for row in rows], indent=2))
    elif rows:
        console.print(table(rows, time.time()))
    else:
        say("no runs yet; `make run` or `dvc repro` makes the first")


def table(rows: list[Row], now: float) -> Table:
    """A line for each run; `now` is the end of those that are RUNNING."""
    content = Table("run", "name", "state", "started", "duration", "metric")
    for row in rows:
        started = datetime.fromtimestamp(row.started, UTC).astimezone()
        content.add_row(
            Text(row.id[:SHORT]),
            Text(f"  {row.name}" if row.parent else row.name),
            Text(row.state, style=COLOURS.get(row.state, "")),
            f"{started:%Y-%m-%d %H:%M}",
            duration((row.ended or now) - row.started),
            Text(metric(row), overflow="fold"),
        )
    return content


def metric(row: Row) -> str:
    """The main metric of a run with its name; empty where it has none."""
    return next((f"{name} {row.metrics[name]:.4f}" for name in MAIN if name in row.metrics), "")


def duration(seconds: float) -> str:
    """A time in its largest unit: 42 s, 3.5 min."""
    return next((f"{seconds / size:.1f} {unit}" for size, unit in UNITS if seconds >= size), f"{seconds:.0f} s")


def _plain(row: Row) -> dict[str, Any]:
    # JSON knows no nan.
    return vars(row) | {"metrics": {name: v if v == v else None for name, v in row.metrics.items()}}  # noqa: PLR0124
