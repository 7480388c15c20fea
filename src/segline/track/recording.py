"""Write the params, metrics, pictures and datasets of an MLflow run in few calls to MLflow."""

import json
import os
import platform
import re
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psutil
from mlflow import MlflowClient
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking.multimedia import compress_image_size, convert_to_pil_image
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES

from segline import files
from segline.addresses import hide
from segline.params import flat

MAX_PARAM = 6000  # characters; MLflow refuses a longer param
MAX_TAG = 8000  # characters; longer values of tags are cut
MAX_METRIC = 250  # characters; longer names of metrics are cut
SHORT_DIGEST = 8  # number of MD5 digits that are appended to names that would otherwise be equal
ERROR_TAG = "error"
OUTCOME_TAG = "outcome"  # value "pruned" if the search stopped a trial early; the status of this trial is KILLED
PROCESS_TAG = "process"  # host, process id and start time of the process that writes the run
SAME_START = 60  # seconds; a smaller shift of the start time is ignored, since users may set the clock
BATCH = 100  # number of params or tags that MLflow accepts in one call

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class LoggedDataset:
    """A dataset that is an input of a run.

    ``context`` is train, validation or test. ``digest`` is an MD5. ``source`` is a path or URI.
    """

    context: str
    name: str
    digest: str
    source: str


class Run:
    """An existing MLflow run; writing to a finished run does not change its status."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.id = run_id

    @property
    def status(self) -> str:
        """Status of the run in MLflow: RUNNING, FINISHED, FAILED or KILLED."""
        return str(self.client.get_run(self.id).info.status)

    def environment(self) -> dict[str, str]:
        """Return the run's tags about machine and packages; empty if the run was restored from DVC's files."""
        tags: dict[str, str] = self.client.get_run(self.id).data.tags
        return {name: value for name, value in tags.items() if name.startswith("env.")}

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log all metrics of a step in one call, because each call takes 23 ms.

        `step` is the epoch, or 0 for metrics of the whole run.
        """
        now = _now()
        self.client.log_batch(self.id, [Metric(name, float(value), now, step) for name, value in metrics.items()])

    def tag(self, tags: Mapping[str, object]) -> None:
        """Set tags of the run; cut values that are longer than MLflow accepts."""
        entries = [RunTag(name, str(value)[:MAX_TAG]) for name, value in tags.items()]
        for start in range(0, len(entries), BATCH):
            self.client.log_batch(self.id, tags=entries[start : start + BATCH])

    def params(self, params: Mapping[str, object]) -> None:
        """Log params. If a value is too long for MLflow, cut the value and store all values in full in params.json."""
        values = {name: str(value) for name, value in params.items()}
        entries = [Param(name, _cut(value)) for name, value in values.items()]
        for start in range(0, len(entries), BATCH):
            self.client.log_batch(self.id, params=entries[start : start + BATCH])
        if any(len(value) > MAX_PARAM for value in values.values()):
            self.client.log_text(self.id, json.dumps(values, indent=2, ensure_ascii=False), "params.json")

    def datasets(self, datasets: Sequence[LoggedDataset]) -> None:
        """Log the datasets that the run uses as inputs."""
        if not datasets:
            return
        inputs = [
            DatasetInput(
                DatasetEntity(dataset.name, dataset.digest, "local", json.dumps({"uri": dataset.source})),
                [InputTag("mlflow.data.context", dataset.context)],
            )
            for dataset in datasets
        ]
        self.client.log_inputs(self.id, inputs)

    def picture(self, image: npt.NDArray[np.uint8], name: str, step: int | None = None) -> None:
        """Log a picture (H, W, 3) or (H, W); MLflow's page shows pictures with the same name ordered by `step`.

        A picture replaces the former picture with the same name and step. MLflow's log_image would add another one.
        """
        if step is None:
            self.client.log_image(self.id, image, artifact_file=f"pictures/{name}.png")
            return
        started = self.client.get_run(self.id).info.start_time
        fixed_id = uuid.uuid5(uuid.NAMESPACE_OID, f"{self.id} {name} {step}")
        stem = f"{name}+step+{step}+timestamp+{started}+{fixed_id}"  # the file name format that MLflow's page parses
        full_size = convert_to_pil_image(image)
        with tempfile.TemporaryDirectory() as folder:
            full_size.save(Path(folder, f"{stem}.png"))
            compress_image_size(full_size).save(Path(folder, f"{stem}+compressed.webp"))
            self.client.log_artifacts(self.id, folder, "images")
        self.tag({MLFLOW_LOGGED_IMAGES: True})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or all files of a folder, into the subfolder `folder` of the run's artifacts."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), folder)
        else:
            self.client.log_artifact(self.id, str(path), folder)

    def has(self, name: str) -> bool:
        """Return whether the run has the metric `name`."""
        return name in self.client.get_run(self.id).data.metrics

    def history(self, name: str) -> list[tuple[int, float]]:
        """Return all logged points of the metric `name` as pairs (step, value)."""
        return [(metric.step, metric.value) for metric in self.client.get_metric_history(self.id, name)]


class StartedRun(Run):
    """A run that this process writes; `Store.start_run` starts and ends the run."""

    def __init__(self, client: MlflowClient, run_id: str, address: str, logged: set[int] | None = None) -> None:
        super().__init__(client, run_id)
        self.logged = logged or set()  # steps with metrics, including steps logged by an earlier process
        self._monitor: Any = None  # MLflow's monitor has no types
        self._address = address
        self.ended = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of an epoch; skip an epoch that was logged before, because MLflow never overwrites values."""
        if step not in self.logged:
            super().log(step, metrics)
            self.logged.add(step)

    def watch_system(self) -> None:
        """Log the use of CPU, memory, disk, network and GPU every ten seconds, until the run ends."""
        monitor: Any = SystemMetricsMonitor
        self._monitor = monitor(self.id, tracking_uri=self._address, resume_logging=True)
        self._monitor.start()

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run with `status`, and stop logging system metrics."""
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        self.client.set_terminated(self.id, status)
        self.ended = True

    def fail(self, error: BaseException) -> None:
        """End the run with status FAILED after an exception, or KILLED after an interrupt or exit."""
        with suppress(Exception):  # the caller reports the error that ended the run, not a later failure of the store
            if isinstance(error, Exception):
                self.tag({ERROR_TAG: hide(f"{type(error).__name__}: {error}")})
            self.finish("FAILED" if isinstance(error, Exception) else "KILLED")


def process() -> str:
    """Return an identifier of this process (host, process id, start time) that is unique across machines."""
    return f"{platform.node()} {os.getpid()} {psutil.Process().create_time():.0f}"


def gone(process: str) -> bool:
    """Return whether the process with this identifier has ended; False for a process on another machine."""
    host, number, start = process.rsplit(" ", 2)
    if host != platform.node():
        return False
    try:
        candidate = psutil.Process(int(number))
        alive = candidate.status() != psutil.STATUS_ZOMBIE and abs(candidate.create_time() - float(start)) < SAME_START
    except psutil.NoSuchProcess:
        return True
    return not alive


def metrics_of_test(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics in test.json under unique names for MLflow, such as ``test_mean_iou``."""
    metrics = {name: float(value) for name, value in flat(result).items() if isinstance(value, int | float)}
    return dict(zip(metric_names(list(metrics)), metrics.values(), strict=True))


def metric_names(names: Sequence[str]) -> list[str]:
    """Turn `names` into metric names that MLflow accepts; no two results are equal, even if case is ignored.

    Class names may contain any character, but metric names may not. All characters except letters, digits, _ and - are
    replaced with _. If several names become equal, an unchanged name is kept, and MD5 digits are added to the others.
    """
    plain = ["test_" + re.sub(r"[^\w\-]", "_", name) for name in names]
    unchanged = {name: f"test_{name.replace('.', '_', 1)}" for name in names}
    times = Counter(name.casefold() for name in plain)
    taken: set[str] = set()
    spelled = {}
    # Handle the names that need no change first, so that a changed name cannot duplicate an unchanged name.
    for name, short in sorted(zip(names, plain, strict=True), key=lambda pair: pair[1] != unchanged[pair[0]]):
        keeps = times[short.casefold()] == 1 or short == unchanged[name]
        metric, digits = short[:MAX_METRIC], files.bytes_md5(name.encode())
        if not keeps or len(short) > MAX_METRIC or metric.casefold() in taken:
            metric = next(
                longer
                for count in range(SHORT_DIGEST, len(digits) + 1)
                if (longer := f"{short[: MAX_METRIC - count - 1]}_{digits[:count]}").casefold() not in taken
            )
        taken.add(metric.casefold())
        spelled[name] = metric
    return [spelled[name] for name in names]


def _cut(value: str) -> str:
    end = " ... (see params.json)"
    return value if len(value) <= MAX_PARAM else value[: MAX_PARAM - len(end)] + end


def _now() -> int:
    return int(time.time() * 1000)
