"""The project's database, first made and left half made by those that were killed."""

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
    """The mlruns folder of a project without a store."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "mlruns").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mlruns"


def half_made(database: Path, statement: str = "") -> None:
    """What MLflow leaves when it is killed before its first migration."""
    engine = create_engine(f"sqlite:///{database}")
    Base.metadata.create_all(engine)
    engine.dispose()
    if statement:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(statement)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def used(store: Store) -> None:
    """Write to a store and read what was written."""
    with store.start_run("train") as run:
        run.tag({"a": 1})
    assert store.client.get_run(run.id).data.tags["a"] == "1"


def test_what_killed_processes_left_under_the_other_name_is_removed(new: Path) -> None:
    half_made(new / "mlflow-new.db")
    (new / "mlflow-new.db-journal").write_bytes(b"half")
    used(open_store())
    assert names(new) == {"mlflow.db", "open.lock"}


@pytest.mark.parametrize("left", ["tables", "nothing", "journal"])
def test_a_half_made_database_is_put_aside_and_made_anew(
    new: Path, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    if left != "nothing":
        half_made(new / "mlflow.db")
    else:
        (new / "mlflow.db").touch()
    if left == "journal":  # of a database that is gone: SQLite must not apply it to the new one
        (new / "mlflow.db-journal").write_bytes(b"\0" * 4096)
    used(open_store())
    aside = {name for name in names(new) if name.startswith("mlflow-half-made-")}
    assert len(aside) == (left != "nothing")
    assert names(new) - aside == {"mlflow.db", "open.lock"}
    assert ("half made" in "".join(capsys.readouterr())) == bool(aside)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO runs (run_uuid, lifecycle_stage) VALUES ('a', 'active')",
        "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'mine', 'active')",
        "CREATE TABLE notes (text TEXT)",
    ],
)
def test_a_database_with_something_of_value_is_never_touched(new: Path, statement: str) -> None:
    half_made(new / "mlflow.db")
    with closing(sqlite3.connect(new / "mlflow.db")) as connection, connection:
        if "notes" in statement:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                connection.execute(f"DROP TABLE {table}")
        connection.execute(statement)
    before = (new / "mlflow.db").read_bytes()
    with pytest.raises(StoreError, match="is not whole, but holds"):
        open_store()
    assert (new / "mlflow.db").read_bytes() == before


def test_a_database_that_mlflow_made_gets_the_experiment(store: Store, project: Path) -> None:
    with store.start_run("before"):
        pass
    database = project / "mlruns" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM experiment_tags WHERE key = ?", (ROOT_TAG,))
    again = open_store()
    assert again.client.get_experiment(again.experiment_id).tags[ROOT_TAG] == str(project)
    assert len(again.client.search_runs([each.experiment_id for each in again.client.search_experiments()])) == 1


def test_a_link_to_another_disk_is_kept(new: Path, tmp_path: Path) -> None:
    (tmp_path / "fast").mkdir()
    (new / "mlflow.db").symlink_to(tmp_path / "fast" / "runs.db")
    used(open_store())
    assert (new / "mlflow.db").is_symlink()
    assert names(tmp_path / "fast") == {"runs.db"}
