"""`dvc repro` and experiments stopped by signals: no process is left, and the next start resumes the same run."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.checkout import SMALL, Project
from tests.stages import test_train_killed as killed

pytestmark = pytest.mark.soak
TRAIN = {
    "model": {"width": 2, "depth": 1},
    "train": {"epochs": 12, "tiles_per_epoch": 8, "batch_size": 2, "tile": 64, "validation_tiles": 4},
    "tune": {"trials": 0},
    "runtime": {"threads": 1, "progress": "lines", "workers": 2},
}


@pytest.fixture(scope="session")
def ready(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has run up to tune."""
    project = Project.made(repository, tmp_path_factory.mktemp("dvc") / "project", SMALL, TRAIN)
    project.run("dvc", "repro", "tune")
    project.commit("stages before train")
    return Path(project.folder)


@pytest.fixture(scope="session")
def model(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """MD5s of data/model after an uninterrupted training."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "project"
    shutil.copytree(ready, folder, symlinks=True)
    Project(folder).run("dvc", "repro", "train")
    return dict(killed.outputs(folder))


@pytest.fixture
def project(ready: Path, tmp_path: Path) -> Any:
    """Copy of the project for a test."""
    shutil.copytree(ready, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def saved(project: Any) -> Callable[[], bool]:
    """Return a check that three epochs of a training are saved; enough remain to stop the training within them."""
    resume = project.folder / "mlruns" / "resume"
    return lambda: any(folder for number in range(3, 12) for folder in resume.glob(f"*/epoch-{number:05d}"))


def end(project: Any, command: list[str], how: Callable[[psutil.Process], None], when: Callable[[], bool]) -> None:
    """Start `command`, and call `how` on it as soon as `when()` is true; all its processes must end."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "GIT_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = project.folder.parent / "log"
    with log.open("w") as stream:
        started = subprocess.Popen(
            command,
            cwd=project.folder,
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            # Children of a background job, such as this test may be, ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  no threads here
        )
    limit = time.monotonic() + 300
    while not when():
        assert started.poll() is None and time.monotonic() < limit, log.read_text()
        time.sleep(0.02)
    process = psutil.Process(started.pid)
    processes = [process, *process.children(recursive=True)]
    how(process)
    started.wait(120)
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert [process.cmdline() for process in alive] == []
    # A worker that was being started when the signal came notices the end of its parent within five seconds.
    limit = time.monotonic() + 30
    while left := [p for p in psutil.process_iter(["cwd"]) if str(p.info["cwd"]).startswith(str(project.folder))]:
        assert time.monotonic() < limit, left
        time.sleep(0.5)


def stage(process: psutil.Process) -> psutil.Process:
    """Return the process of the stage that DVC has started."""
    return next(child for child in process.children(recursive=True) if child.cmdline()[-2:] == ["segline", "train"])


def runs(project: Any) -> list[str]:
    """Return the states of the runs, in the order of their start."""
    rows = killed.rows(project.folder / "mlruns" / "mlflow.db", "SELECT status FROM runs ORDER BY start_time")
    return [status for (status,) in rows]


def steps(project: Any) -> set[tuple[str, int]]:
    """Return the steps that were logged twice."""
    query = "SELECT run_uuid || key || step, count(*) FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1"
    return set(killed.rows(project.folder / "mlruns" / "mlflow.db", query))


@pytest.mark.parametrize(
    ("how", "state"),
    [
        (lambda dvc: dvc.kill(), "KILLED"),
        (lambda dvc: dvc.terminate(), "KILLED"),
        (lambda dvc: stage(dvc).terminate(), "KILLED"),
        (lambda dvc: stage(dvc).kill(), "RUNNING"),
        (lambda dvc: os.killpg(dvc.pid, signal.SIGINT), "KILLED"),
        (lambda dvc: os.killpg(dvc.pid, signal.SIGTERM), "KILLED"),
        (lambda dvc: os.killpg(dvc.pid, signal.SIGKILL), "RUNNING"),
    ],
    ids=["kill dvc", "term dvc", "term stage", "kill stage", "Ctrl-C", "term all", "kill all"],
)
def test_repro_resumes(project: Any, model: dict[str, str], how: Callable[[psutil.Process], None], state: str) -> None:
    end(project, ["dvc", "repro", "train"], how, saved(project))
    assert runs(project) == [state]
    assert "train: training resumes after epoch" in project.run("dvc", "repro", "train")
    assert killed.outputs(project.folder) == model
    assert runs(project) == ["FINISHED"]
    assert steps(project) == set()


def test_a_forced_run_after_a_resumed_one_starts_from_the_beginning(project: Any, model: dict[str, str]) -> None:
    """DVC has the model when the resumed run has finished."""
    end(project, ["dvc", "repro", "train"], lambda dvc: stage(dvc).terminate(), saved(project))
    assert "train: training resumes after epoch" in project.run("dvc", "repro", "train")
    assert "resumes" not in project.run("dvc", "repro", "--force", "--single-item", "train")
    assert runs(project) == ["FINISHED", "FINISHED"]
    assert killed.outputs(project.folder) == model


@pytest.mark.parametrize("kind", ["", "--temp", "--queue"])
def test_experiments_resume(project: Any, kind: str) -> None:
    """The state of an experiment is in the main checkout, wherever it runs."""
    command = ["dvc", "exp", "run", *filter(None, [kind]), "-S", "train.seed=1", "train"]
    if kind == "--queue":
        project.run(*command)
        end(project, ["dvc", "exp", "run", "--run-all"], lambda dvc: stage(dvc).terminate(), saved(project))
        project.run(*command)
        project.run("dvc", "exp", "run", "--run-all")
    else:
        end(project, command, lambda dvc: dvc.kill(), saved(project))
        assert "train: training resumes after epoch" in project.run(*command)
    assert runs(project) == ["FINISHED"]
    assert steps(project) == set()


def test_a_changed_setting_starts_a_new_training_and_is_named(project: Any, model: dict[str, str]) -> None:
    end(project, ["dvc", "repro", "train"], lambda dvc: os.killpg(dvc.pid, signal.SIGKILL), saved(project))
    project.set(train={"learning_rate": 0.02})
    said = project.run("dvc", "repro", "train")
    assert (
        "train: training starts from the beginning, because the interrupted training had other values: "
        "train.learning_rate (0.003 before)" in said
    )
    assert runs(project) == ["KILLED", "FINISHED"]
    assert killed.outputs(project.folder) != model
    project.set(train={"learning_rate": 0.003})
    assert "train: training resumes after epoch" in project.run("dvc", "repro", "train")
    assert runs(project) == ["FINISHED", "FINISHED"]
    assert killed.outputs(project.folder) == model


SEARCH = {"tune": {"trials": 3, "epochs": 3}, "train": {"epochs": 3, "tiles_per_epoch": 40}}
OF_TUNE = ("best.yaml", "trials.csv", "search.json")


@pytest.fixture(scope="session")
def searched(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files written by an uninterrupted search."""
    project = Project(tmp_path_factory.mktemp("searched") / "project")
    shutil.copytree(ready, project.folder, symlinks=True)
    project.set(**SEARCH)
    project.run("dvc", "repro", "tune")
    return {name: (project.folder / "data" / "tune" / name).read_bytes() for name in OF_TUNE}


@pytest.mark.parametrize(
    ("number", "trial", "epochs"),
    [
        (signal.SIGKILL, 0, 0),
        (signal.SIGTERM, 0, 2),
        (signal.SIGTERM, 1, 0),
        (signal.SIGKILL, 1, 2),
        (signal.SIGKILL, 2, 2),
    ],
)
def test_a_search_resumes(
    project: Any, searched: dict[str, bytes], number: signal.Signals, trial: int, epochs: int
) -> None:
    """The search is stopped together with DVC: at the start of a trial or within it, by each signal, in each trial."""
    project.set(**SEARCH)
    database = project.folder / "mlruns" / "mlflow.db"
    logged = (
        "SELECT count(DISTINCT m.step) FROM runs r LEFT JOIN metrics m ON m.run_uuid = r.run_uuid AND m.key = 'loss' "
        f"WHERE r.name = 'trial {trial}' GROUP BY r.run_uuid"
    )

    def logged_enough() -> bool:
        if not database.exists():  # sqlite would create it
            return False
        with suppress(sqlite3.OperationalError):  # its tables are being created
            counts = killed.rows(database, logged)
            return bool(counts) and counts[0][0] >= epochs
        return False

    end(project, ["dvc", "repro", "tune"], lambda dvc: os.killpg(dvc.pid, number), logged_enough)
    assert not (project.folder / "data" / "tune" / "best.yaml").exists()
    project.run("dvc", "repro", "tune")
    assert {name: (project.folder / "data" / "tune" / name).read_bytes() for name in OF_TUNE} == searched
    assert sorted(runs(project)) == ["FINISHED"] * 4  # the search and three trials
    assert steps(project) == set()
