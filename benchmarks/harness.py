"""What benchmarks that train share: processes with measured CPU time, and a file with a JSON line per finished cell.

A cell is one training and its evaluation. A benchmark that is started again goes on with the cells that have no line.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from signal import SIGTERM
from typing import Any, TypeVar

from ruamel.yaml import YAML

import segline
from segline.track import identity, lineage

Line = dict[str, Any]  # a finished cell
Unit = TypeVar("Unit")

ROOT = Path(__file__).parents[1]
CODE = Path(segline.__file__).parent


class ProcessError(RuntimeError):
    """A process failed; the message is the end of its output."""


class Processes:
    """Run processes with one thread each, and measure their CPU time."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.stopped = False

    def segline(self, folder: Path, *words: str) -> float:
        """Run a command of segline in the project `folder`; return its CPU time in seconds."""
        return self.run(
            [sys.executable, "-m", "segline", *words], folder, folder / f"{words[0]}.log", PYTHONPATH=str(CODE.parent)
        )

    def run(self, command: Sequence[str], folder: Path, log: Path, **environment: str) -> float:
        """Run a command in `folder` and write its output to `log`; return its CPU time in seconds, with its children.

        Raises
        ------
        ProcessError
            The command failed, or the benchmark was stopped.
        """
        if self.stopped:
            raise ProcessError("stopped")
        unwanted = ("DVC_", "MLFLOW_", "GIT_", "PYTHONPATH")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        with log.open("w") as stream:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**inherited, "OMP_NUM_THREADS": "1", **environment},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
            self.running.add(process.pid)
            try:
                _, status, used = os.wait4(process.pid, 0)
            finally:
                self.running.discard(process.pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise ProcessError(f"{log.stem} ended with {process.returncode}: {log.read_text()[-600:].strip()}")
        return used.ru_utime + used.ru_stime

    def stop(self) -> None:
        """Stop the running processes, and start no others."""
        self.stopped = True
        for pid in list(self.running):
            with suppress(ProcessLookupError):
                os.kill(pid, SIGTERM)


def lay_out(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make `folder` an empty project with these settings."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", folder)
    YAML().dump(settings, folder / "params.yaml")


def run_all(
    units: Iterable[Unit],
    work: Callable[[Unit], Any],
    jobs: int,
    processes: Processes,
    done: Callable[[int, Unit, Future[Any]], None],
) -> None:
    """Work on the units, `jobs` at a time; call `done` with number, unit and result of each finished one."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(work, unit): unit for unit in units}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                done(number, futures[future], future)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop()
            raise


def code_md5() -> str:
    """Return the code digest of src/segline; comments and docstrings do not change it."""
    return identity.of_sources({f.relative_to(CODE).as_posix(): f.read_bytes() for f in CODE.rglob("*.py")})


def machine() -> str:
    """Return processor and torch version."""
    return f"{lineage.cpu_model()}, torch {lineage.environment()['env.torch']}"


def read_lines(file: Path) -> list[Line]:
    """Read the finished cells."""
    return [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []


def add_line(file: Path, line: Mapping[str, Any]) -> None:
    """Save a finished cell at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; None if there are no values."""
    return statistics.fmean(values) if values else None


def shown_as(figure: float | None) -> str:
    """Return the figure as text with four digits."""
    return "-" if figure is None else f"{figure:.4f}"
