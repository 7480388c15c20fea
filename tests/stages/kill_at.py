"""Run `segline train` in forks of one process: each is killed at a named point and then started again.

    python kill_at.py READY WORK < cases.json > results.json

READY is a project in which the stages before train have run. A case names a point of `POINTS`, a signal and environment
variables. The fork replaces the function at the point, so segline needs no hook.
"""

import importlib
import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segline import cli

warnings.simplefilter("ignore")

# name: (function, number of the call, before | after | half: the file written by the call is cut in half)
POINTS = {
    "start of the training": ("segline.train.setup.initial_state", 1, "before"),
    "parts of the key, half written": ("segline.files.write_json", 1, "half"),
    "before the run is made": ("mlflow.MlflowClient.create_run", 1, "before"),
    "after the run is made": ("mlflow.MlflowClient.create_run", 1, "after"),
    "params of the run": ("mlflow.MlflowClient.log_batch", 1, "before"),
    "tags of the run": ("mlflow.MlflowClient.log_batch", 2, "after"),
    "data loading, first tile": ("segline.data.tile_sampler.TrainingTiles.__getitem__", 1, "before"),
    "data loading, epoch 3": ("segline.data.tile_sampler.TrainingTiles.__getitem__", 14, "before"),
    "step, in the backward pass": ("torch.Tensor.backward", 5, "before"),
    "step, in the optimizer": ("torch.optim.AdamW.step", 6, "after"),
    "step, after it": ("segline.train.loop.train_step", 8, "after"),
    "validation, epoch 1": ("segline.data.tile_sampler.ValidationTiles.__getitem__", 1, "before"),
    "validation, epoch 3": ("segline.data.tile_sampler.ValidationTiles.__getitem__", 6, "before"),
    "checkpoint, weights half written": ("segline.train.checkpoint.save_file", 3, "half"),
    "checkpoint, optimizer half written": ("segline.train.checkpoint.save_file", 4, "half"),
    "checkpoint, before the rest": ("segline.train.checkpoint.save_file", 6, "after"),
    "checkpoint, before its name": ("segline.files.put_in_place", 2, "before"),
    "checkpoint, after its name": ("segline.files.put_in_place", 3, "after"),
    "checkpoint, first one removed by half": ("shutil.rmtree", 3, "before"),
    "MLflow, before figures of epoch 2": ("segline.track.recording.Run.log", 2, "before"),
    "MLflow, within the transaction of epoch 2": (
        "mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore._log_metrics_once",
        6,
        "after",
    ),
    "MLflow, after figures of epoch 3": ("segline.track.recording.Run.log", 3, "after"),
    "MLflow, picture half copied": ("shutil.copy2", 1, "half"),
    "MLflow, between picture and small picture": ("shutil.copy2", 3, "after"),
    "between epochs": ("segline.train.loop._close", 4, "after"),
    "last epoch saved": ("segline.train.keep.Kept.offer", 5, "after"),
    "data/model emptied": ("segline.stages.train._write", 1, "before"),
    "data/model, weights half copied": ("shutil.copyfile", 1, "half"),
    "data/model, before metrics.json": ("segline.files.write_table", 1, "after"),
    "checkpoints into the run": ("mlflow.MlflowClient.log_artifacts", 6, "before"),
    "before the run is FINISHED": ("segline.track.recording.StartedRun.finish", 1, "before"),
    "after the run is FINISHED": ("segline.track.recording.StartedRun.finish", 1, "after"),
    "after all is done": ("segline.train.resume.Claim.finish", 1, "after"),
}


def replace(point: str, number: int) -> None:
    """Send signal `number` to this process at `point`."""
    path, nth, when = POINTS[point]
    owner, name = _owner(path)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapped(*args: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != nth:
            return original(*args, **keywords)
        if when == "before":
            _send(number)
        result = original(*args, **keywords)
        if when == "half":
            file = next(Path(arg) for arg in reversed(args) if isinstance(arg, str | Path) and Path(arg).is_file())
            os.truncate(file, file.stat().st_size // 2)
        if when != "before":
            _send(number, half=when == "half")
        return result

    setattr(owner, name, wrapped)


def _send(number: int, half: bool = False) -> None:
    Path("reached").touch()
    # Only a kill leaves a partial file.
    os.kill(os.getpid(), signal.SIGKILL if half else number)


def _owner(path: str) -> tuple[Any, str]:
    """Return the module or class that defines the function `path`, and the name of the function."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            owner = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:-1]:
            owner = getattr(owner, name)
        return owner, parts[-1]
    raise ValueError(path)


def train(folder: Path, point: str | None, number: int, environment: dict[str, str]) -> dict[str, Any]:
    """Run `segline train` in a fork; return its exit code, output and duration."""
    start = time.monotonic()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.chdir(folder)
            os.environ.update(environment)
            output = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.argv = ["segline", "train"]
            if point:
                replace(point, number)
            cli.main()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(bool(error.code))
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, wait_status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(wait_status)
    return {"code": code, "said": (folder / "said").read_text(), "seconds": time.monotonic() - start}


def main() -> None:
    """Run each case: kill it once, if it names a point, then let it finish."""
    ready, work = map(Path, sys.argv[1:])
    # Import once for all forks. Nothing is computed here, so no thread is lost in a fork.
    for module in (
        "segline.stages.train",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.system_metrics.system_metrics_monitor",
    ):
        importlib.import_module(module)
    results = []
    for number, case in enumerate(json.load(sys.stdin)):
        folder = work / f"case {number}"
        shutil.copytree(ready, folder)
        environment = case.get("environment", {})
        runs = []
        if case.get("point"):
            runs.append(train(folder, case["point"], signal.Signals[case["signal"]], environment))
        status = folder / "mlruns" / "after the kill.db"
        shutil.copy(folder / "mlruns" / "mlflow.db", status)
        runs.append(train(folder, None, 0, environment))
        results.append({"folder": str(folder), "runs": runs, "reached": (folder / "reached").exists()})
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
