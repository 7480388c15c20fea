"""Create the project's database after processes that were killed while they created it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.store.tracking.dbmodels.initial_models import Base
from sqlalchemy import create_engine

from segline.track.faults import StoreError
from segline.track.location import ROOT_TAG
from segline.track.store import Store, open_store


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the mlruns folder of a project without a store."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "mlruns").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mlruns"


def half_made(database: Path, statement: str = "") -> None:
    """Create the database that MLflow leaves if it is killed before its first migration."""
    engine = create_engine(f"sqlite:///{database}")
    Base.metadata.create_all(engine)
    engine.dispose()
    if statement:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(statement)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def used(store: Store) -> None:
    """Write to a store and read the result."""
    with store.start_run("train") as run:
        run.tag({"a": 1})
    assert store.client.get_run(run.id).data.tags["a"] == "1"


def test_temporary_databases_of_killed_processes_are_removed(new: Path) -> None:
    half_made(new / "mlflow-new.db")
    (new / "mlflow-new.db-journal").write_bytes(b"half")
    used(open_store())
    assert names(new) == {"mlflow.db", "open.lock"}


@pytest.mark.parametrize("left", ["tables", "nothing", "journal"])
def test_an_incomplete_database_is_renamed_and_replaced(
    new: Path, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    if left != "nothing":
        half_made(new / "mlflow.db")
    else:
        (new / "mlflow.db").touch()
    if left == "journal":  # of a deleted database: SQLite must not apply it to the new one
        (new / "mlflow.db-journal").write_bytes(b"\0" * 4096)
    used(open_store())
    aside = {name for name in names(new) if name.startswith("mlflow-half-made-")}
    assert len(aside) == (left != "nothing")
    assert names(new) - aside == {"mlflow.db", "open.lock"}
    assert ("was incomplete" in "".join(capsys.readouterr())) == bool(aside)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO runs (run_uuid, lifecycle_stage) VALUES ('a', 'active')",
        "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'mine', 'active')",
        "CREATE TABLE notes (text TEXT)",
    ],
)
def test_an_incomplete_database_with_content_is_never_changed(new: Path, statement: str) -> None:
    half_made(new / "mlflow.db")
    with closing(sqlite3.connect(new / "mlflow.db")) as connection, connection:
        if "notes" in statement:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                connection.execute(f"DROP TABLE {table}")
        connection.execute(statement)
    before = (new / "mlflow.db").read_bytes()
    with pytest.raises(StoreError, match="is incomplete, but holds"):
        open_store()
    assert (new / "mlflow.db").read_bytes() == before


def test_a_database_of_mlflow_gets_the_experiment(store: Store, project: Path) -> None:
    with store.start_run("before"):
        pass
    database = project / "mlruns" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM experiment_tags WHERE key = ?", (ROOT_TAG,))
    again = open_store()
    assert again.client.get_experiment(again.experiment_id).tags[ROOT_TAG] == str(project)
    assert (
        len(again.client.search_runs([experiment.experiment_id for experiment in again.client.search_experiments()]))
        == 1
    )


def test_a_link_to_another_disk_is_kept(new: Path, tmp_path: Path) -> None:
    (tmp_path / "fast").mkdir()
    (new / "mlflow.db").symlink_to(tmp_path / "fast" / "runs.db")
    used(open_store())
    assert (new / "mlflow.db").is_symlink()
    assert names(tmp_path / "fast") == {"runs.db"}
