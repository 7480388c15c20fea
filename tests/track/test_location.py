"""Locate a project and relocate its store; a search of every column finds remaining old addresses."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from segline.track.location import StoreError, locate, project_root, recorded_root, relocate


def cells_holding(database: Path, text: str) -> set[str]:
    """Return table.column of each cell of `database` that contains `text`."""
    cells = set()
    with closing(sqlite3.connect(database)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for column in [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]:
                count = f'SELECT COUNT(*) FROM "{table}" WHERE instr("{column}", ?)'
                if connection.execute(count, (text,)).fetchone()[0]:
                    cells.add(f"{table}.{column}")
    return cells


def test_the_nearest_parent_project_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outer" / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "outer" / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path / "outer" / "inner" / "deep")
    assert project_root() == tmp_path / "outer"
    (tmp_path / "outer" / "inner" / "dvc.yaml").touch()
    assert project_root() == tmp_path / "outer" / "inner"


def test_dvc_root_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "main" / ".dvc" / "tmp" / "exps" / "tmp123"
    clone.mkdir(parents=True)
    (clone / "dvc.yaml").touch()
    monkeypatch.chdir(clone)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    assert locate().uri == f"sqlite:///{tmp_path}/main/mlruns/mlflow.db"


def test_a_missing_dvc_root_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "gone"))
    with pytest.raises(StoreError, match="DVC_ROOT"):
        project_root()


def test_a_folder_outside_of_a_project_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"dvc\.yaml"):
        locate()


def test_the_tracking_uri_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert locate().own
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
    place = locate()
    assert place.uri == "http://team:5000"
    assert not place.own
    assert place.root == tmp_path


@pytest.mark.parametrize("uri", ["sqlite:///mlruns/mlflow.db", "sqlite:///{root}/mlruns/../mlruns/mlflow.db"])
def test_a_tracking_uri_may_name_the_own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(root=tmp_path))
    assert locate().own


@pytest.mark.parametrize("name", ["50%", "what?", "c#"])
def test_a_path_that_is_not_valid_in_an_address_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(StoreError, match="rename the folder"):
        locate()


def table(database: Path, rows: list[str]) -> None:
    """Create the tables of a store with the same addresses in each column."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE experiments (artifact_location TEXT)")
        connection.execute("CREATE TABLE runs (artifact_uri TEXT)")
        connection.execute("CREATE TABLE logged_models (artifact_location TEXT)")
        connection.execute("CREATE TABLE model_versions (storage_location TEXT, source TEXT)")
        connection.execute("CREATE TABLE experiment_tags (key TEXT, value TEXT)")
        connection.execute("INSERT INTO experiment_tags VALUES ('segline.root', '/old/häus')")
        for row in rows:
            connection.execute("INSERT INTO runs VALUES (?)", (row,))
            connection.execute("INSERT INTO model_versions VALUES (?, ?)", (row, row))


def test_addresses_follow_the_folder(tmp_path: Path) -> None:
    table_of_moves = {
        "/old/häus/mlruns/artifacts/1": "/new/home/mlruns/artifacts/1",
        "file:///old/h%C3%A4us/mlruns/a/old/häus/": "file:///new/home/mlruns/a/old/häus/",
        "/old/häuser/mlruns": "/old/häuser/mlruns",  # another folder, with a longer name
        "models:/m-1": "models:/m-1",
        "s3://bucket/old/häus/": "s3://bucket/old/häus/",
    }
    database = tmp_path / "mlflow.db"
    table(database, list(table_of_moves))
    backup = relocate(database, Path("/old/häus"), Path("/new/home"))
    with closing(sqlite3.connect(database)) as connection:
        assert [row for (row,) in connection.execute("SELECT artifact_uri FROM runs")] == list(table_of_moves.values())
        assert [row for (row,) in connection.execute("SELECT source FROM model_versions")] == list(
            table_of_moves.values()
        )
    assert recorded_root(database) == "/new/home"
    assert recorded_root(backup) == "/old/häus"
    with closing(sqlite3.connect(backup)) as connection:
        assert [row for (row,) in connection.execute("SELECT artifact_uri FROM runs")] == list(table_of_moves)


def test_a_failed_relocation_changes_nothing(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    table(database, ["/old/häus/a"])
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DROP TABLE model_versions")
    with pytest.raises(sqlite3.OperationalError):
        relocate(database, Path("/old/häus"), Path("/new"))
    assert recorded_root(database) == "/old/häus"
    assert cells_holding(database, "/new") == set()


def test_without_a_store_no_root_is_recorded(tmp_path: Path) -> None:
    assert recorded_root(tmp_path / "mlflow.db") is None
    sqlite3.connect(tmp_path / "mlflow.db").close()
    assert recorded_root(tmp_path / "mlflow.db") is None


KILLED = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN IMMEDIATE")
database.execute("UPDATE experiment_tags SET value = ?", ("x" * 100_000,))
database.execute("UPDATE runs SET artifact_uri = ?", ("y" * 1000,))
os.kill(os.getpid(), 9)
"""


def test_a_killed_write_is_rolled_back(tmp_path: Path) -> None:
    """A pending rollback hides the content from readers; segline once created a second experiment there."""
    database = tmp_path / "mlflow.db"
    table(database, ["/old/häus/a"] * 1000)
    subprocess.run([sys.executable, "-c", KILLED, database], check=False)
    assert database.with_name("mlflow.db-journal").exists()
    assert recorded_root(database) == "/old/häus"


def test_an_unreadable_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(
        StoreError, match=r"mlflow.db cannot be read \(file is not a database\); restore it from a copy"
    ):
        recorded_root(tmp_path / "mlflow.db")
