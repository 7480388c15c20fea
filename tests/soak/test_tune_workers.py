"""Several processes work on one search: they share its trials, and none outlives the process that started it."""

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import optuna
import psutil
import pytest
from filelock import FileLock
from sqlalchemy import NullPool

from segline import files
from segline.stages import tune
from tests.stages import test_tune as tiny

ready, project, searched, no_surroundings = tiny.ready, tiny.project, tiny.searched, tiny.no_surroundings

pytestmark = pytest.mark.soak
Process = subprocess.Popen[str]
Start = Callable[..., Process]


@pytest.mark.parametrize(("number", "trial"), [(signal.SIGTERM, 0), (signal.SIGKILL, 1), (signal.SIGTERM, 2)])
def test_a_signal_changes_no_result(project: Path, searched: Path, number: signal.Signals, trial: int) -> None:
    process = tiny.start(project)
    tiny.wait_for(lambda: tiny.begun(project, trial), process)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 143)
    if number == signal.SIGTERM:
        assert "RUNNING" not in {run.info.status for run in tiny.runs().values()}
    tune.main()
    assert tiny.outputs(project) == tiny.outputs(searched)
    assert {run.info.status for run in tiny.runs().values()} == {"FINISHED"}


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts `segline tune` in a project; processes that still run after the test are killed."""
    with ExitStack() as stack:

        def begin(project: Path, *arguments: str) -> Process:
            process: Process = stack.enter_context(tiny.start(project, *arguments))
            stack.callback(process.kill)  # runs before the exit of Popen, which waits for the process
            return process

        yield begin


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_helpers_stop_with_their_parent(project: Path, start: Start, number: signal.Signals) -> None:
    tiny.write(project, tune={"trials": 6}, runtime={"tune_workers": 2})
    process = start(project)
    tiny.wait_for(lambda: tiny.begun(project, 0), process)
    helpers = psutil.Process(process.pid).children(recursive=True)
    assert any("spawn_main" in " ".join(helper.cmdline()) for helper in helpers)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 143)
    assert psutil.wait_procs(helpers, timeout=30)[1] == []
    if number == signal.SIGTERM:
        assert "RUNNING" not in states(project).values()
    said = finish(start(project))
    rows = files.read_table(project / "data/tune/trials.csv")
    assert list(rows["number"]) == [str(number) for number in range(6)], said
    assert states(project) == finished(range(6))


def test_a_second_command_joins_and_writes_nothing(project: Path, tmp_path: Path, start: Start) -> None:
    other = machine(project, tmp_path)
    first = start(project)
    tiny.wait_for(lambda: tiny.begun(project, 0), first)
    journal = tiny.journal(project)
    with FileLock(journal.with_suffix(".lock")):  # so that the stopped process does not hold it
        stop(first)
    share(first, start(other, "--join", str(journal)), project, other)


# A folder with the same settings and data and its own MLflow store stands for another machine.


def machine(project: Path, tmp_path: Path, storage: str = "") -> Path:
    """Make another machine, for a search with eight trials of a second or more."""
    tiny.write(project, tune={"trials": 8, "epochs": 12}, runtime={"tune_storage": storage})
    other = tmp_path / "other"
    shutil.copytree(project, other, ignore=shutil.ignore_patterns("mlruns"))
    return other


def stop(process: Process) -> None:
    """Suspend a process until the other machine has started, which takes as long as all trials."""
    process.send_signal(signal.SIGSTOP)
    tiny.wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, process)


def share(first: Process, second: Process, project: Path, other: Path) -> None:
    """Let both work on the search of `first`, which is suspended: each trial runs once, and only `first` writes."""
    tiny.wait_for(lambda: "trial 1" in states(other), second)
    first.send_signal(signal.SIGCONT)
    finish(first), finish(second)
    rows = files.read_table(project / "data/tune/trials.csv")
    assert list(rows["number"]) == [str(number) for number in range(8)]
    assert set(rows["state"]) == {"finished"}
    assert not (other / "data/tune").exists()
    mine, yours = states(project), states(other)
    assert mine["trial 0"] == yours["trial 1"] == ("FINISHED", "COMPLETE")
    assert set(mine) & set(yours) == {"study"}
    assert mine | yours == finished(range(8))


def test_a_second_machine_joins_by_postgresql(project: Path, tmp_path: Path, database: str, start: Start) -> None:
    other = machine(project, tmp_path, database)
    first = start(project)
    tiny.wait_for(lambda: "trial 0" in states(project), first)
    stop(first)
    share(first, start(other, "--join", database), project, other)
    assert optuna_states(database) == ["COMPLETE"] * 8
    secret = os.environ["PGPASSWORD"].encode()
    written = [file for folder in (project, other) for file in folder.rglob("*") if file.is_file()]
    assert [file for file in written if secret in file.read_bytes()] == []


def test_unfinished_trials_of_a_second_machine_are_taken_over(
    project: Path, tmp_path: Path, database: str, start: Start
) -> None:
    other = machine(project, tmp_path, database)
    first = start(project)
    tiny.wait_for(lambda: "trial 0" in states(project), first)
    stop(first)
    joined = [start(other, "--join", database) for _ in range(2)]  # one of them creates the run of the search
    tiny.wait_for(lambda: running_trials(other) == 2 and suspended_within_trials(joined, other), joined[0])
    for process in joined:
        process.kill()
        process.communicate()
    first.send_signal(signal.SIGCONT)
    finish(first)
    assert optuna_states(database) == ["COMPLETE"] * 8
    assert len(files.read_table(project / "data/tune/trials.csv")) == 8
    assert {state for state, _ in states(project).values()} == {"FINISHED"}
    # A killed process cannot update its run; the next command on that machine does.
    assert ("RUNNING", "") in states(other).values()
    finish(start(other, "--join", database))
    left, theirs = states(other), states(project)
    assert left.pop("study") == ("FINISHED", "")
    assert set(left.values()) <= {("FINISHED", "COMPLETE"), ("KILLED", "")}
    again = {name for name in left if name in theirs}
    assert again == {name for name, state in left.items() if state == ("KILLED", "")}
    assert set(left) | set(theirs) == set(finished(range(8)))


def running_trials(project: Path) -> int:
    """Count the running trials without a result."""
    # A suspended writer may hold the lock of the database: then there are no states.
    runs = states(project, timeout=1)
    return sum(state == ("RUNNING", "") for name, state in runs.items() if name.startswith("trial "))


def suspended_within_trials(joined: Iterable[Process], other: Path) -> bool:
    """Suspend both; return True if each is within a trial, else let both continue."""
    for process in joined:
        stop(process)
    if running_trials(other) == 2:
        return True
    for process in joined:
        process.send_signal(signal.SIGCONT)
    return False


def test_a_killed_search_in_postgresql_resumes_to_the_same_bytes(
    project: Path, searched: Path, database: str, start: Start
) -> None:
    tiny.write(project, runtime={"tune_storage": database})
    process = start(project)
    tiny.wait_for(lambda: "trial 1" in states(project), process)
    process.kill()
    process.communicate()
    finish(start(project))
    assert tiny.outputs(project) == tiny.outputs(searched)
    assert states(project) == finished(range(3))


def finish(process: Process) -> str:
    """Wait for a process to finish without an error; return its output."""
    output = process.communicate()[1]
    assert process.returncode == 0, output
    return str(output)


def states(project: Path, timeout: float = 60) -> dict[str, tuple[str, str]]:
    """Return the state in MLflow, and in Optuna if there is one, of each run in a project's store by name."""
    query = (
        "SELECT name, status, coalesce(value, '') FROM runs LEFT JOIN tags "
        "ON tags.run_uuid = runs.run_uuid AND key = 'optuna.state'"
    )
    database = project / "mlruns" / "mlflow.db"
    if not database.exists():
        return {}
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=timeout)) as connection:
        try:
            rows = connection.execute(query).fetchall()
        except sqlite3.OperationalError:  # its tables are being created, or it is locked
            return {}
    assert len({name for name, *_ in rows}) == len(rows)
    return {name: (status, state) for name, status, state in rows}


def finished(trials: Iterable[int]) -> dict[str, tuple[str, str]]:
    """Return the states of a finished search with these trials."""
    return {"study": ("FINISHED", ""), **{f"trial {number}": ("FINISHED", "COMPLETE") for number in trials}}


def optuna_states(database: str) -> list[str]:
    """Return the states in Optuna of the trials, in the order of their numbers."""
    storage = optuna.storages.RDBStorage(database, engine_kwargs={"poolclass": NullPool})
    (name,) = optuna.get_all_study_names(storage)
    return [trial.state.name for trial in optuna.load_study(study_name=name, storage=storage).trials]
