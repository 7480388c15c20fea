"""The project's experiment in its MLflow store: opened, made or moved along, and searched for runs."""

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
from segline.track.recording import ERROR_TAG, PROCESS_TAG, Dataset, Run, StartedRun, gone, process
from segline.track.shared import open_shared
from segline.track.snapshot import copied

MODEL_TAG = "model.md5"
KEY_TAG = "resume.key"


class Store:
    """The project's experiment in its store."""

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
        datasets: Sequence[Dataset] = (),
        parent: str | None = None,
        *,
        key: str | None = None,
        former: str | None = None,
        again: bool = False,
    ) -> Iterator[StartedRun]:
        """Start a run, or go on with the one of this key that is not finished.

        It ends with the block: FINISHED, FAILED by an exception, KILLED by an interrupt or exit; one that `finish` has
        ended in the block stays as it ended there.

        Parameters
        ----------
        parent : id of the run that it is a part of.
        key : names all that shapes the result; a process that is told the same one later goes on with this run.
        former : id of the run to go on with, finished or not, where it is known.
        again : go on with a finished run, too.
        """
        self.place.refuse_read_only()
        run = None
        try:
            with Deferred() as signals:  # else a run that was just made would stay RUNNING
                run = self._go_on(key, parent, former, again) if key else None
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
        born: dict[str, Any] = {"mlflow.user": lineage.who(), PROCESS_TAG: process()}
        if parent is not None:
            born[MLFLOW_PARENT_RUN_ID] = parent
        if key is not None:
            born[KEY_TAG] = key
        made = self.client.create_run(self.experiment_id, tags=born, run_name=name)
        return StartedRun(self.client, made.info.run_id, self.place.uri)

    def _go_on(self, key: str, parent: str | None, former: str | None, again: bool) -> StartedRun | None:
        """The run to go on with, `former` before others and later before earlier ones, set RUNNING; None: none."""
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
        if ERROR_TAG in data.tags:
            self.client.delete_tag(run_id, ERROR_TAG)
        names = [name for name in data.metrics if not name.startswith("system/")]
        logged = {metric.step for name in names for metric in self.client.get_metric_history(run_id, name)}
        return StartedRun(self.client, run_id, self.place.uri, logged)

    def _of_key(self, key: str) -> list[MlflowRun]:
        """The runs of this key, the latest first."""
        wanted = f"tags.`{KEY_TAG}` = '{key}'"
        found: list[MlflowRun] = self.client.search_runs([self.experiment_id], wanted, order_by=["start_time DESC"])
        return found

    def latest(self, key: str) -> Run | None:
        """The latest run of this key."""
        found = self._of_key(key)
        return Run(self.client, found[0].info.run_id) if found else None

    def here(self, key: str) -> str:
        """A key of what is this folder's alone: on a team's server two checkouts do not share a run."""
        return key if self.place.own else f"{key} {platform.node()} {self.place.root}"

    def end_stale(self) -> None:
        """End, as KILLED, the runs whose process on this machine could not do it; in a copy that is nobody's task."""
        if self.place.copy is not None:
            return
        for run in self.client.search_runs([self.experiment_id], "attributes.status = 'RUNNING'"):
            if gone(run.data.tags.get(PROCESS_TAG, process())):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def find(self, model_md5: str) -> Run | None:
        """The latest run that made the model of this md5."""
        found = self.client.search_runs(
            [self.experiment_id], f"tags.`{MODEL_TAG}` = '{model_md5}'", order_by=["start_time DESC"], max_results=1
        )
        return Run(self.client, found[0].info.run_id) if found else None

    def train_run(self, model: Path, settings: Path) -> Run:
        """The run that trained the model in folder `model`.

        When the store lacks it, as in a fresh clone, it is rebuilt from what DVC keeps (`settings`, the tuned params,
        and the model's history.csv) and tagged restored.
        """
        model_md5 = lineage.model_md5(model)
        with self.place.lock("restore"):
            return self.find(model_md5) or self._restore(model_md5, model, settings)

    def _restore(self, model_md5: str, model: Path, settings: Path) -> Run:
        # Read as it is: this is a record of what was set then, not settings to be checked and used.
        params = flat(YAML(typ="safe", pure=True).load(settings.read_text()))
        known = {name: value for name, value in lineage.tags().items() if name.endswith("md5")}
        with self.start_run("train", params, {**known, "restored": "true"}) as run:
            for step, metrics in _history(model / "history.csv"):
                run.log(step, metrics)
            run.tag({MODEL_TAG: model_md5})
        return run

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this store MLflow's process-wide one, for the functions of MLflow that know no other way."""
        variable = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(self.place.uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # None is handled, if not declared
            if variable is not None:
                os.environ["MLFLOW_TRACKING_URI"] = variable


def open_store() -> Store:
    """The store of the project that the working directory belongs to, made or moved along as need be.

    Of a project that cannot be written to it is a copy, and writes are refused.

    Raises
    ------
    StoreError
        There is no project here, its experiment was deleted, or MLFLOW_TRACKING_URI leads to no store.
    """
    logging.getLogger("mlflow").setLevel(os.environ.get("MLFLOW_LOGGING_LEVEL", "WARNING"))
    # It logs each error of a database with a traceback, and with the address.
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
    found = client.search_experiments(ViewType.ALL, filter_string=f"tags.`{ROOT_TAG}` != ''")
    if active := next((each for each in found if each.lifecycle_stage == LifecycleStage.ACTIVE), None):
        return str(active.experiment_id)
    way = f"bring it back with `{restore('experiment', found[0].experiment_id, place.uri)}`, or " if found else ""
    raise StoreError(
        f"the project's experiment was deleted from {place.database}; {way}move {place.folder} away to begin anew"
    )


def _history(file: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """(epoch, figures) of each row of a training history; what is no number is left out."""
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
