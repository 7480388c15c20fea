"""Explain faults of the own store and of a team's store, each in one message with a fix."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from segline.track import creation, faults, location
from segline.track.faults import StoreError, at_the_edge
from segline.track.store import Store, open_store

OLDER, NEWER = "bda7b8c39065", "ffffffffffff"


@pytest.fixture
def database(project: Path) -> Path:
    return project / "mlruns" / "mlflow.db"


@pytest.fixture
def locked(database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Lock the project's database by another connection."""
    for module in (faults, location, creation):
        monkeypatch.setattr(module, "PATIENCE", 0.1)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield database


def set_schema(database: Path, revision: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def test_a_locked_database_is_in_use_and_not_damaged(locked: Path) -> None:
    with pytest.raises(StoreError, match="in use by another program") as raised:
        open_store()
    assert str(locked) in str(raised.value)
    assert "try again" in str(raised.value)
    assert "move it away" not in str(raised.value)
    assert "restore" not in str(raised.value)


@pytest.mark.parametrize("text", ["database is locked", "database table is locked", "database schema is locked: main"])
def test_a_lock_inside_mlflow_gives_the_same_message(text: str) -> None:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    inner = OperationalError("UPDATE runs", {}, sqlite3.OperationalError(text))
    for error in (inner, MlflowException(inner), sqlite3.OperationalError(text)):  # type: ignore[no-untyped-call]
        known = at_the_edge(error, "sqlite:////p/mlruns/mlflow.db", "/p/mlruns/mlflow.db")
        assert str(known).startswith("/p/mlruns/mlflow.db is in use by another program")


def test_an_error_of_segline_keeps_its_traceback() -> None:
    assert at_the_edge(KeyError("database is locked"), "", "") is None
    assert at_the_edge(OSError("x"), "", "") is None


def test_an_older_schema_is_refused_with_the_upgrade_command(store: Store, database: Path) -> None:  # noqa: ARG001
    set_schema(database, OLDER)
    before = database.read_bytes()
    with pytest.raises(StoreError, match="older MLflow") as raised:
        open_store()
    assert f"`mlflow db upgrade 'sqlite:///{database}'`" in str(raised.value)  # quoted, since the path contains a space
    assert database.read_bytes() == before


def test_a_newer_schema_is_refused_with_the_installed_version(store: Store, database: Path) -> None:  # noqa: ARG001
    set_schema(database, NEWER)
    with pytest.raises(
        StoreError, match=rf"newer MLflow than the installed MLflow .* \(database schema {NEWER}\); install"
    ):
        open_store()


@pytest.mark.parametrize("revision", [OLDER, NEWER])
def test_a_team_store_of_another_schema_is_refused(
    database: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    set_schema(database, revision)
    team = database.rename(database.with_name("team.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{team}")
    with pytest.raises(StoreError, match=r"^MLFLOW_TRACKING_URI = .*team\.db was written by"):
        open_store()


@pytest.mark.parametrize("kind", ["mysql+pymysql", "mssql+pyodbc", "mysql", "postgresql+asyncpg"])
def test_a_missing_driver_is_named(project: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:  # noqa: ARG001
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{kind}://me:tiger-73@127.0.0.1/runs")
    with pytest.raises(
        StoreError, match=r"me:\.\.\.@127.0.0.1/runs: the database driver, package \w+, is not installed"
    ) as raised:
        open_store()
    assert "pip install" in str(raised.value)
    assert "tiger-73" not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg://me:tiger-73@127.0.0.1:9/runs",
        "postgresql+psycopg://127.0.0.1:9/runs?user=me&password=tiger-73",
        "postgresql+nothing://me:tiger-73@127.0.0.1/runs",
        "mysql://me:tiger-73@127.0.0.1:port/runs",
        "http://me:tiger-73@127.0.0.1:9",
        "https://tiger-73@127.0.0.1:9",
        "sqlite:////proc/nowhere/runs.db?password=tiger-73",
    ],
)
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_an_unreachable_address_is_reported(
    database: Path, monkeypatch: pytest.MonkeyPatch, address: str, variable: str
) -> None:
    team = database.rename(database.with_name("team.db"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{team}")
    monkeypatch.setenv(variable, address)
    with pytest.raises(StoreError) as raised:
        open_store()
    assert str(raised.value).startswith(f"{variable} = {address.partition('://')[0]}://")
    assert "tiger-73" not in str(raised.value)


def test_a_deleted_experiment_of_a_team_store_is_reported(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    team = database.rename(database.with_name("team.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{team}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cells")
    store = open_store()
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(StoreError, match=f"mlflow experiments restore -x {store.experiment_id}") as raised:
        open_store()
    assert f"MLFLOW_TRACKING_URI='sqlite:///{team}'" in str(raised.value)
    MlflowClient(f"sqlite:///{team}").restore_experiment(store.experiment_id)
    assert open_store().experiment_id == store.experiment_id


def test_a_run_deleted_during_a_command_is_reported(store: Store) -> None:
    with store.start_run("train") as run:
        pass
    store.client.delete_run(run.id)
    with pytest.raises(Exception, match="active") as raised:
        run.tag({"a": 1})
    known = at_the_edge(raised.value, store.place.uri, "mlflow.db")
    assert "mlflow runs restore --run-id" in str(known)
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(Exception, match="active") as raised:
        store.client.create_run(store.experiment_id)
    known = at_the_edge(raised.value, store.place.uri, "mlflow.db")
    assert f"mlflow experiments restore -x {store.experiment_id}" in str(known)
