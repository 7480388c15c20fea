"""`segline runs`: list the latest runs with their state and main metric."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline.track.recording import OUTCOME_TAG
from segline.track.store import Store, open_store

MAIN = ("test_mean_iou", "validation_mean_iou")  # the first of these metrics that a run has is shown
SHORT = 8  # characters of an id
COLOURS = {"RUNNING": "cyan", "FINISHED": "green", "FAILED": "red", "KILLED": "yellow", "pruned": "yellow"}
UNITS = ((86400, "d"), (3600, "h"), (60, "min"))  # sizes in seconds; durations below 1 min are shown in seconds


@dataclass(frozen=True)
class Row:
    """Summary of an MLflow run. Times are in seconds since 1970; ``ended`` is None while the run is in progress."""

    id: str
    name: str
    state: str
    """MLflow's status, but "pruned" instead of KILLED for a trial that the search stopped early."""
    started: float
    ended: float | None
    metrics: dict[str, float]
    parent: str | None


def main(count: int, as_json: bool, console: Console, say: Callable[[str], None]) -> None:
    """Print at most `count` runs, the newest first, as a table or as a JSON array with all metrics."""
    store = open_store()
    store.end_stale()
    rows = latest(store, count)
    if as_json:
        say(json.dumps([_json_row(row) for row in rows], indent=2))
    elif rows:
        console.print(table(rows, time.time()))
    else:
        say("no runs yet; start the first with `make run` or `dvc repro`")


def latest(store: Store, count: int) -> list[Row]:
    """Return at most `count` runs, the newest first."""
    runs = store.client.search_runs([store.experiment_id], order_by=["start_time DESC"], max_results=count)
    return [
        Row(
            id=run.info.run_id,
            name=run.info.run_name,
            state=run.data.tags.get(OUTCOME_TAG, run.info.status) if run.info.status == "KILLED" else run.info.status,
            started=run.info.start_time / 1000,
            # Ignore the end time of a run in progress: MLflow keeps the former end time when a run is resumed.
            ended=run.info.end_time / 1000 if run.info.end_time and run.info.status != "RUNNING" else None,
            metrics={name: value for name, value in run.data.metrics.items() if not name.startswith("system/")},
            parent=run.data.tags.get("mlflow.parentRunId"),
        )
        for run in runs
    ]


def table(rows: list[Row], now: float) -> Table:
    """Return a table with one row per run; the duration of a run in progress ends at `now`."""
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
    """Return the main metric of a run as text, "name value"; an empty string if the run has no main metric."""
    return next((f"{name} {row.metrics[name]:.4f}" for name in MAIN if name in row.metrics), "")


def duration(seconds: float) -> str:
    """Format a duration in the largest suitable unit, such as 42 s or 3.5 min."""
    return next((f"{seconds / size:.1f} {unit}" for size, unit in UNITS if seconds >= size), f"{seconds:.0f} s")


def _json_row(row: Row) -> dict[str, Any]:
    # JSON has no nan, so nan becomes None.
    return vars(row) | {"metrics": {name: v if v == v else None for name, v in row.metrics.items()}}  # noqa: PLR0124
