"""Runs as they are written: params, figures, pictures and datasets of one run, in few calls."""

import hashlib
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

from segline.addresses import hide
from segline.params import flat

MAX_PARAM = 6000  # characters; MLflow refuses more
MAX_TAG = 8000
MAX_METRIC = 250  # characters of a name
SHORT_DIGEST = 8  # digits of an MD5 that tell two names apart
ERROR_TAG = "error"
PROCESS_TAG = "process"  # host, number and start of the process that a run is of
SAME_START = 60  # seconds by which the start of a process may seem to move when the clock is set
BATCH = 100  # params or tags that MLflow takes at once

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class Dataset:
    """An input of a run: ``context`` is train, validation or test, ``digest`` an md5, ``source`` a path or address."""

    context: str
    name: str
    digest: str
    source: str


class Run:
    """A run to write to. Writing to a run that has ended leaves its status as it is."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.id = run_id

    @property
    def status(self) -> str:
        """RUNNING, or how it ended."""
        return str(self.client.get_run(self.id).info.status)

    def environment(self) -> dict[str, str]:
        """The tags that say on what it ran; empty of a run that was restored."""
        tags: dict[str, str] = self.client.get_run(self.id).data.tags
        return {name: value for name, value in tags.items() if name.startswith("env.")}

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the figures of one epoch (or, step 0, of a whole run) in one batch: MLflow takes 23 ms for each call."""
        now = _now()
        self.client.log_batch(self.id, [Metric(name, float(value), now, step) for name, value in metrics.items()])

    def tag(self, tags: Mapping[str, object]) -> None:
        """Set tags; a longer value than MLflow takes is cut."""
        entries = [RunTag(name, str(value)[:MAX_TAG]) for name, value in tags.items()]
        for start in range(0, len(entries), BATCH):
            self.client.log_batch(self.id, tags=entries[start : start + BATCH])

    def params(self, params: Mapping[str, object]) -> None:
        """Log flat params; one that is too long for MLflow is cut, and the whole is kept as params.json."""
        values = {name: str(value) for name, value in params.items()}
        entries = [Param(name, _cut(value)) for name, value in values.items()]
        for start in range(0, len(entries), BATCH):
            self.client.log_batch(self.id, params=entries[start : start + BATCH])
        if any(len(value) > MAX_PARAM for value in values.values()):
            self.client.log_text(self.id, json.dumps(values, indent=2, ensure_ascii=False), "params.json")

    def datasets(self, datasets: Sequence[Dataset]) -> None:
        """Log what the run was made from."""
        if not datasets:
            return
        inputs = [
            DatasetInput(
                DatasetEntity(each.name, each.digest, "local", json.dumps({"uri": each.source})),
                [InputTag("mlflow.data.context", each.context)],
            )
            for each in datasets
        ]
        self.client.log_inputs(self.id, inputs)

    def picture(self, image: npt.NDArray[np.uint8], name: str, step: int | None = None) -> None:
        """Log a picture (H, W, 3) or (H, W); with a step, as one of a series that the page can play.

        Logged again, it takes the place of the former: MLflow's own log_image would make a second one.
        """
        if step is None:
            self.client.log_image(self.id, image, artifact_file=f"pictures/{name}.png")
            return
        started = self.client.get_run(self.id).info.start_time
        known = uuid.uuid5(uuid.NAMESPACE_OID, f"{self.id} {name} {step}")
        stem = f"{name}+step+{step}+timestamp+{started}+{known}"  # as MLflow's page takes it apart
        whole = convert_to_pil_image(image)
        with tempfile.TemporaryDirectory() as folder:
            whole.save(Path(folder, f"{stem}.png"))
            compress_image_size(whole).save(Path(folder, f"{stem}+compressed.webp"))
            self.client.log_artifacts(self.id, folder, "images")
        self.tag({MLFLOW_LOGGED_IMAGES: True})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a copy of a file, or of a folder's content, in `folder` of the run."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), folder)
        else:
            self.client.log_artifact(self.id, str(path), folder)

    def has(self, name: str) -> bool:
        """Whether something was logged as metric `name`."""
        return name in self.client.get_run(self.id).data.metrics

    def history(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of all that was logged as metric `name`."""
        return [(metric.step, metric.value) for metric in self.client.get_metric_history(self.id, name)]


class StartedRun(Run):
    """A run that this process has under way; `Store.start_run` begins and ends it."""

    def __init__(self, client: MlflowClient, run_id: str, address: str, logged: set[int] | None = None) -> None:
        super().__init__(client, run_id)
        self.logged = logged or set()  # steps, by an earlier process too
        self._monitor: Any = None  # MLflow's monitor has no types
        self._address = address
        self.ended = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the figures of one epoch, once: MLflow would keep both where a step comes again."""
        if step not in self.logged:
            super().log(step, metrics)
            self.logged.add(step)

    def watch_system(self) -> None:
        """Log the load of CPU, memory, disk, network and GPU every ten seconds, until the run ends."""
        monitor: Any = SystemMetricsMonitor
        self._monitor = monitor(self.id, tracking_uri=self._address, resume_logging=True)
        self._monitor.start()

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run."""
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        self.client.set_terminated(self.id, status)
        self.ended = True

    def fail(self, error: BaseException) -> None:
        """End the run as what was raised has it: FAILED by an exception, KILLED by an interrupt or exit."""
        with suppress(Exception):  # what ended it is what must be seen, not that the store cannot be told
            if isinstance(error, Exception):
                self.tag({ERROR_TAG: hide(f"{type(error).__name__}: {error}")})
            self.finish("FAILED" if isinstance(error, Exception) else "KILLED")


def process() -> str:
    """This process, as it can be told from any other on any machine."""
    return f"{platform.node()} {os.getpid()} {psutil.Process().create_time():.0f}"


def gone(process: str) -> bool:
    """Whether a process of this machine has ended; of another machine that cannot be known."""
    host, number, start = process.rsplit(" ", 2)
    if host != platform.node():
        return False
    try:
        found = psutil.Process(int(number))
        alive = found.status() != psutil.STATUS_ZOMBIE and abs(found.create_time() - float(start)) < SAME_START
    except psutil.NoSuchProcess:
        return True
    return not alive


def metrics_of_test(result: Mapping[str, Any]) -> dict[str, float]:
    """The figures in test.json as metrics of a run, ``test_mean_iou`` and others, no two of one name."""
    figures = {name: float(value) for name, value in flat(result).items() if isinstance(value, int | float)}
    return dict(zip(metric_names(list(figures)), figures.values(), strict=True))


def metric_names(names: Sequence[str]) -> list[str]:
    """A name that MLflow takes for each of `names`, all different, even where case does not count.

    A class may have any name, a metric may not: other characters than letters, digits, _ and - become _. Of names that
    would become one, only one that is not changed stays as it is; the others end in eight digits of their MD5.
    """
    plain = ["test_" + re.sub(r"[^\w\-]", "_", name) for name in names]
    unchanged = {name: f"test_{name.replace('.', '_', 1)}" for name in names}
    times = Counter(name.casefold() for name in plain)
    taken: set[str] = set()
    spelled = {}
    # Names that stay as they are come first, so that no other can take theirs.
    for name, short in sorted(zip(names, plain, strict=True), key=lambda pair: pair[1] != unchanged[pair[0]]):
        stays = times[short.casefold()] == 1 or short == unchanged[name]
        found, digits = short[:MAX_METRIC], hashlib.md5(name.encode()).hexdigest()
        if not stays or len(short) > MAX_METRIC or found.casefold() in taken:
            found = next(
                longer
                for count in range(SHORT_DIGEST, len(digits) + 1)
                if (longer := f"{short[: MAX_METRIC - count - 1]}_{digits[:count]}").casefold() not in taken
            )
        taken.add(found.casefold())
        spelled[name] = found
    return [spelled[name] for name in names]


def _cut(value: str) -> str:
    end = " ... (see params.json)"
    return value if len(value) <= MAX_PARAM else value[: MAX_PARAM - len(end)] + end


def _now() -> int:
    return int(time.time() * 1000)
