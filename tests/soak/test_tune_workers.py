"""Several processes at one search: they share its trials, and none outlives the one that began it."""

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


@pytest.mark.parametrize("trial", [0, 1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
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
    """Starts `segline tune` in a project; what still runs when the test ends is killed."""
    with ExitStack() as stack:

        def begin(project: Path, *arguments: str) -> Process:
            process: Process = stack.enter_context(tiny.start(project, *arguments))
            stack.callback(process.kill)  # before it is waited for
            return process

        yield begin


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_helpers_die_with_who_began_them(project: Path, start: Start, number: signal.Signals) -> None:
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
    said = ended(start(project))
    rows = files.read_table(project / "data/tune/trials.csv")
    assert list(rows["number"]) == [str(number) for number in range(6)], said
    assert states(project) == finished(range(6))


def test_a_second_command_joins_and_writes_nothing(project: Path, tmp_path: Path, start: Start) -> None:
    other = machine(project, tmp_path)
    first = start(project)
    tiny.wait_for(lambda: tiny.begun(project, 0), first)
    journal = tiny.journal(project)
    with FileLock(journal.with_suffix(".lock")):  # which must not be held by what is stopped
        stop(first)
    share(first, start(other, "--join", str(journal)), project, other)


# Another machine is another folder, with the same settings and data and an MLflow store of its own.


def machine(project: Path, tmp_path: Path, storage: str = "") -> Path:
    """Another machine, for a search of eight trials that take a second or more."""
    tiny.write(project, tune={"trials": 8, "epochs": 12}, runtime={"tune_storage": storage})
    other = tmp_path / "other"
    shutil.copytree(project, other, ignore=shutil.ignore_patterns("mlruns"))
    return other


def stop(process: Process) -> None:
    """Stop it till the other machine is there: to start takes as long as all trials."""
    process.send_signal(signal.SIGSTOP)
    tiny.wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, process)


def share(first: Process, second: Process, project: Path, other: Path) -> None:
    """Both work on the search of `first`, which is stopped: each trial is trained once, and only `first` writes."""
    tiny.wait_for(lambda: "trial 1" in states(other), second)
    first.send_signal(signal.SIGCONT)
    ended(first), ended(second)
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
    assert told(database) == ["COMPLETE"] * 8
    secret = os.environ["PGPASSWORD"].encode()
    written = [file for folder in (project, other) for file in folder.rglob("*") if file.is_file()]
    assert [file for file in written if secret in file.read_bytes()] == []


def test_what_a_second_machine_leaves_undone_is_taken_over(
    project: Path, tmp_path: Path, database: str, start: Start
) -> None:
    other = machine(project, tmp_path, database)
    first = start(project)
    tiny.wait_for(lambda: "trial 0" in states(project), first)
    stop(first)
    joined = [start(other, "--join", database) for _ in range(2)]  # of which one makes the run of the search
    tiny.wait_for(lambda: under_way(other) == 2 and caught(joined, other), joined[0])
    for process in joined:
        process.kill()
        process.communicate()
    first.send_signal(signal.SIGCONT)
    ended(first)
    assert told(database) == ["COMPLETE"] * 8
    assert len(files.read_table(project / "data/tune/trials.csv")) == 8
    assert {state for state, _ in states(project).values()} == {"FINISHED"}
    # What was killed cannot say so itself; the next command there does.
    assert ("RUNNING", "") in states(other).values()
    ended(start(other, "--join", database))
    left, theirs = states(other), states(project)
    assert left.pop("study") == ("FINISHED", "")
    assert set(left.values()) <= {("FINISHED", "COMPLETE"), ("KILLED", "")}
    again = {name for name in left if name in theirs}
    assert again == {name for name, state in left.items() if state == ("KILLED", "")}
    assert set(left) | set(theirs) == set(finished(range(8)))


def under_way(project: Path) -> int:
    """Trials that run at this moment and have no result yet."""
    # A writer that is stopped may hold the lock of the database: then nothing is known.
    found = states(project, timeout=1)
    return sum(state == ("RUNNING", "") for name, state in found.items() if name.startswith("trial "))


def caught(joined: Iterable[Process], other: Path) -> bool:
    """Whether both are stopped now, each within a trial; if not, between two trials, say, both go on."""
    for process in joined:
        stop(process)
    if under_way(other) == 2:
        return True
    for process in joined:
        process.send_signal(signal.SIGCONT)
    return False


def test_killed_with_its_search_in_postgresql_it_ends_with_the_same_bytes(
    project: Path, searched: Path, database: str, start: Start
) -> None:
    tiny.write(project, runtime={"tune_storage": database})
    process = start(project)
    tiny.wait_for(lambda: "trial 1" in states(project), process)
    process.kill()
    process.communicate()
    ended(start(project))
    assert tiny.outputs(project) == tiny.outputs(searched)
    assert states(project) == finished(range(3))


def ended(process: Process) -> str:
    """What it said, having ended in good order."""
    said = process.communicate()[1]
    assert process.returncode == 0, said
    return str(said)


def states(project: Path, timeout: float = 60) -> dict[str, tuple[str, str]]:
    """Of the runs in a project's store, by name: MLflow's state, and Optuna's where it has one."""
    query = (
        "SELECT name, status, coalesce(value, '') FROM runs LEFT JOIN tags "
        "ON tags.run_uuid = runs.run_uuid AND key = 'optuna.state'"
    )
    database = project / "mlruns" / "mlflow.db"
    if not database.exists():
        return {}
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=timeout)) as connection:
        try:
            found = connection.execute(query).fetchall()
        except sqlite3.OperationalError:  # it is being made, or locked
            return {}
    assert len({name for name, *_ in found}) == len(found)
    return {name: (status, state) for name, status, state in found}


def finished(trials: Iterable[int]) -> dict[str, tuple[str, str]]:
    """The states of a search that ended, and of these trials."""
    return {"study": ("FINISHED", ""), **{f"trial {number}": ("FINISHED", "COMPLETE") for number in trials}}


def told(database: str) -> list[str]:
    """Optuna's states of the trials, in the order of their numbers."""
    storage = optuna.storages.RDBStorage(database, engine_kwargs={"poolclass": NullPool})
    (name,) = optuna.get_all_study_names(storage)
    return [trial.state.name for trial in optuna.load_study(study_name=name, storage=storage).trials]
