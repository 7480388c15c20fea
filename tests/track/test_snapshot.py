"""Read a read-only project through a copy of its database; nothing in the project changes."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from segline.track import faults, location, snapshot
from segline.track.faults import StoreError
from segline.track.recording import StartedRun
from segline.track.store import Store, open_store
from tests.checkout import read_only
from tests.track.test_location import KILLED


@pytest.fixture
def lock_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Return a function that makes the project read-only: by a mount for root, otherwise by permissions."""
    monkeypatch.setattr(snapshot, "_folders", {})
    with ExitStack() as stack:

        def lock() -> None:
            stack.enter_context(read_only(project))
            os.chdir("/")  # the working directory is the folder below the mount until it is entered again
            monkeypatch.chdir(project)

        yield lock
        os.chdir("/")


def content(project: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in project.rglob("*") if file.is_file()}


def test_reading_works_and_writing_is_refused(
    store: Store, run: StartedRun, project: Path, lock_up: Callable[[], None]
) -> None:
    run.finish()
    before = content(project)
    lock_up()
    copy = open_store()
    copy.end_stale()
    assert [entry.info.run_id for entry in copy.client.search_runs([copy.experiment_id])] == [run.id]
    assert copy.experiment_id == store.experiment_id
    with (
        pytest.raises(StoreError, match=r"mlruns is read-only for this user; .* copy the project"),
        copy.start_run("train"),
    ):
        pass
    for name in ("registry", "restore", "study"):
        with pytest.raises(StoreError, match="read-only"):
            copy.place.lock(name)
    assert content(project) == before


def test_a_moved_read_only_project_is_read(
    store: Store, run: StartedRun, project: Path, lock_up: Callable[[], None]
) -> None:
    run.finish()
    assert store.place.own
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiment_tags SET value = '/old' WHERE key = ?", (location.ROOT_TAG,))
        connection.execute("UPDATE runs SET artifact_uri = '/old/mlruns/artifacts/x'")
    lock_up()
    copy = open_store()
    assert copy.client.get_run(run.id).info.artifact_uri == f"{project}/mlruns/artifacts/x"


def test_a_read_only_project_without_a_store_has_no_runs(project: Path, lock_up: Callable[[], None]) -> None:
    (project / "mlruns" / "mlflow.db").unlink()
    lock_up()
    copy = open_store()
    assert copy.client.search_runs([copy.experiment_id]) == []


def test_an_incomplete_transaction_is_rolled_back_in_the_copy(
    store: Store, run: StartedRun, project: Path, lock_up: Callable[[], None]
) -> None:
    run.finish()
    database = project / "mlruns" / "mlflow.db"
    subprocess.run([sys.executable, "-c", KILLED, database], check=False)
    assert database.with_name("mlflow.db-journal").exists()
    lock_up()
    copy = open_store()
    assert copy.experiment_id == store.experiment_id
    assert len(copy.client.search_runs([copy.experiment_id])) == 1


def test_a_write_ahead_log_is_applied_to_the_copy(
    store: Store, run: StartedRun, project: Path, lock_up: Callable[[], None]
) -> None:
    run.finish()
    store.client.search_runs([store.experiment_id])
    database = project / "mlruns" / "mlflow.db"
    child = (
        "import os, sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA journal_mode = WAL')\nc.execute(\"UPDATE runs SET name = 'late'\")\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", child, database], check=False)
    assert database.with_name("mlflow.db-wal").stat().st_size
    lock_up()
    copy = open_store()
    assert [entry.info.run_name for entry in copy.client.search_runs([copy.experiment_id])] == ["late"]


def test_waiting_for_a_writer_has_a_timeout(
    project: Path, lock_up: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (faults, location, snapshot):
        monkeypatch.setattr(module, "PATIENCE", 0.1)
    with closing(sqlite3.connect(project / "mlruns" / "mlflow.db", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        lock_up()
        with pytest.raises(StoreError, match="in use by another program"):
            open_store()


def test_a_team_store_works_in_a_read_only_project(
    store: Store, project: Path, made: Path, lock_up: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    team = project.with_name("team.db")
    team.write_bytes((made / "mlruns" / "mlflow.db").read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{team}")
    lock_up()
    with open_store().start_run("train") as run:
        pass
    assert run.id != store.experiment_id
