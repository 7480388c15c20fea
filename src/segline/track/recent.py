"""The latest runs at a glance."""

from dataclasses import dataclass

from segline.track.store import Store


@dataclass(frozen=True)
class Row:
    """A run at a glance; times in seconds since 1970, `ended` None while it is RUNNING."""

    id: str
    name: str
    state: str
    started: float
    ended: float | None
    metrics: dict[str, float]
    parent: str | None


def latest(store: Store, count: int) -> list[Row]:
    """The runs that were started last, the newest first."""
    found = store.client.search_runs([store.experiment_id], order_by=["start_time DESC"], max_results=count)
    return [
        Row(
            id=run.info.run_id,
            name=run.info.run_name,
            state=run.info.status,
            started=run.info.start_time / 1000,
            # A run that goes on again still has the end that it had before.
            ended=run.info.end_time / 1000 if run.info.end_time and run.info.status != "RUNNING" else None,
            metrics={name: value for name, value in run.data.metrics.items() if not name.startswith("system/")},
            parent=run.data.tags.get("mlflow.parentRunId"),
        )
        for run in found
    ]
