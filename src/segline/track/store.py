"""Open the project's MLflow store (create or relocate the store if needed); start, resume and find runs there."""

import csv
import logging
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, ViewType
from mlflow.entities import Run as MlflowRun
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from ruamel.yaml import YAML

from segline import progress
from segline.params import flat
from segline.process import Deferred
from segline.track import lineage
from segline.track.creation import create
from segline.track.faults import StoreError, restore
from segline.track.location import ROOT_TAG, Place, check_schema, locate, opening, recorded_root, relocate
from segline.track.recording import ERROR_TAG, OUTCOME_TAG, PROCESS_TAG, LoggedDataset, Run, StartedRun, gone, process
from segline.track.shared import open_shared
from segline.track.snapshot import copied

MODEL_TAG = "model.md5"
KEY_TAG = "resume.key"


class Store:
    """The project's experiment in an MLflow store."""

    def __init__(self, place: Place, client: MlflowClient, experiment_id: str) -> None:
        self.place = place
        self.client = client
        self.experiment_id = experiment_id

    @contextmanager
    def start_run(
        self,
        name: str,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
        datasets: Sequence[LoggedDataset] = (),
        parent: str | None = None,
        *,
        key: str | None = None,
        former: str | None = None,
        again: bool = False,
    ) -> Iterator[StartedRun]:
        """Start an MLflow run; if there is an unfinished run with the same `key`, resume that run instead.

        The run ends at the end of the with block. The status is then FINISHED, or FAILED after an exception, or KILLED
        after an interrupt or exit. If the block itself calls `finish`, the status given there is kept.

        Parameters
        ----------
        parent : id of the parent run, such as the run of a search.
        key : identifies everything that affects the result; a later process with the same key resumes the run.
        former : id of the run to resume, if the id is known; a finished run is resumed, too.
        again : resume the run even if it is finished.
        """
        self.place.refuse_read_only()
        run = None
        try:
            with Deferred() as signals:  # signals are deferred, since a signal here could leave a new run RUNNING
                run = self._resume(key, parent, former, again) if key else None
                run = run or self._make(name, parent, key)
                run.params(params or {})
                run.tag(tags or {})
                run.datasets(datasets)
            signals.check()
            yield run
            if not run.ended:
                run.finish()
        except BaseException as error:
            if run is not None:
                run.fail(error)
            raise

    def _make(self, name: str, parent: str | None, key: str | None) -> StartedRun:
        first_tags: dict[str, Any] = {"mlflow.user": lineage.who(), PROCESS_TAG: process()}
        if parent is not None:
            first_tags[MLFLOW_PARENT_RUN_ID] = parent
        if key is not None:
            first_tags[KEY_TAG] = key
        made = self.client.create_run(self.experiment_id, tags=first_tags, run_name=name)
        return StartedRun(self.client, made.info.run_id, self.place.uri)

    def _resume(self, key: str, parent: str | None, former: str | None, again: bool) -> StartedRun | None:
        """Find a run that matches the arguments, set its status to RUNNING, and return the run; None if no run matches.

        If the run `former` matches, it is used. Otherwise the latest matching run is used.
        """
        ids: list[str] = [
            run.info.run_id
            for run in self._of_key(key)
            if (parent is None or run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent)
            and (again or run.info.status != "FINISHED" or run.info.run_id == former)
        ]
        if not ids:
            return None
        run_id = former if former is not None and former in ids else ids[0]
        self.client.set_tag(run_id, PROCESS_TAG, process())
        self.client.update_run(run_id, "RUNNING")
        data = self.client.get_run(run_id).data
        for tag in (ERROR_TAG, OUTCOME_TAG):
            if tag in data.tags:
                self.client.delete_tag(run_id, tag)
        names = [name for name in data.metrics if not name.startswith("system/")]
        logged = {metric.step for name in names for metric in self.client.get_metric_history(run_id, name)}
        return StartedRun(self.client, run_id, self.place.uri, logged)

    def _of_key(self, key: str) -> list[MlflowRun]:
        """Return the runs that were started with `key`, latest first."""
        condition = f"tags.`{KEY_TAG}` = '{key}'"
        runs: list[MlflowRun] = self.client.search_runs([self.experiment_id], condition, order_by=["start_time DESC"])
        return runs

    def latest(self, key: str) -> Run | None:
        """Return the latest run that was started with `key`; None if there is no such run."""
        runs = self._of_key(key)
        return Run(self.client, runs[0].info.run_id) if runs else None

    def here(self, key: str) -> str:
        """In a shared store, add machine name and project folder to `key`, so that two checkouts never share a run."""
        return key if self.place.own else f"{key} {platform.node()} {self.place.root}"

    def end_stale(self) -> None:
        """Set RUNNING runs of this machine to KILLED if their processes have ended; do nothing in a read-only store."""
        if self.place.copy is not None:
            return
        for run in self.client.search_runs([self.experiment_id], "attributes.status = 'RUNNING'"):
            if gone(run.data.tags.get(PROCESS_TAG, process())):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def find(self, model_md5: str) -> Run | None:
        """Return the latest run that trained the model with this md5; None if there is no such run."""
        runs = self.client.search_runs(
            [self.experiment_id], f"tags.`{MODEL_TAG}` = '{model_md5}'", order_by=["start_time DESC"], max_results=1
        )
        return Run(self.client, runs[0].info.run_id) if runs else None

    def train_run(self, model: Path, settings: Path) -> Run:
        """Return the run that trained the model in the folder `model`.

        If the store lacks the run, as in a new clone, the run is restored from files that DVC keeps: `settings` (the
        tuned params) and the model's history.csv. A restored run has the tag ``restored``.
        """
        model_md5 = lineage.model_md5(model)
        with self.place.lock("restore"):
            return self.find(model_md5) or self._restore(model_md5, model, settings)

    def _restore(self, model_md5: str, model: Path, settings: Path) -> Run:
        # The settings are not validated, because they are only logged and may come from an earlier segline.
        params = flat(YAML(typ="safe", pure=True).load(settings.read_text()))
        known = {name: value for name, value in lineage.tags().items() if name.endswith("md5")}
        with self.start_run("train", params, {**known, "restored": "true"}) as run:
            for step, metrics in _history(model / "history.csv"):
                run.log(step, metrics)
            run.tag({MODEL_TAG: model_md5})
        return run

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this store the default store of the process, because some MLflow functions take no client argument."""
        variable = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(self.place.uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # MLflow accepts None despite the declared type
            if variable is not None:
                os.environ["MLFLOW_TRACKING_URI"] = variable


def open_store() -> Store:
    """Open the store of the project that holds the working directory; create or relocate the store if needed.

    For a read-only project, a copy of the store is opened, and writing is refused.

    Raises
    ------
    StoreError
        There is no project here, the experiment was deleted, or the store in MLFLOW_TRACKING_URI cannot be used.
    """
    logging.getLogger("mlflow").setLevel(os.environ.get("MLFLOW_LOGGING_LEVEL", "WARNING"))
    # Silence the logger that prints each database error with a traceback and the URI, which may hold a password.
    logging.getLogger("mlflow.store.db.utils").setLevel(os.environ.get("MLFLOW_LOGGING_LEVEL", "CRITICAL"))
    place = locate()
    if not place.own:
        return Store(place, *open_shared(place))
    if not place.writable:
        place = copied(place)
    with opening(place):
        recorded = recorded_root(place.database)
        if recorded is None:
            create(place, progress.note)
        else:
            check_schema(place.database)
            if recorded != str(place.root):
                relocate(place.database, Path(recorded), place.root)
    client = MlflowClient(place.uri, registry_uri=place.uri)
    return Store(place, client, _own_experiment(client, place))


def _own_experiment(client: MlflowClient, place: Place) -> str:
    experiments = client.search_experiments(ViewType.ALL, filter_string=f"tags.`{ROOT_TAG}` != ''")
    for experiment in experiments:
        if experiment.lifecycle_stage == LifecycleStage.ACTIVE:
            return str(experiment.experiment_id)
    command = restore("experiment", experiments[0].experiment_id, place.uri) if experiments else ""
    way = f"restore it with `{command}`, or " if command else ""
    raise StoreError(
        f"the project's experiment was deleted from {place.database}; {way}move {place.folder} away to start with an "
        "empty store"
    )


def _history(file: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (epoch, metrics) for each row of history.csv; skip cells that are not numbers."""
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream):
            epoch = int(row.pop("epoch"))
            yield epoch, {name: float(value) for name, value in row.items() if _is_number(value)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
