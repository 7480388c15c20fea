"""Faults of stores, own and a team's: one message each, with the way out."""

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
    """The project's database, which another connection has for itself."""
    for module in (faults, location, creation):
        monkeypatch.setattr(module, "PATIENCE", 0.1)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield database


def set_schema(database: Path, revision: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def test_a_locked_database_is_in_use_and_not_damaged(locked: Path) -> None:
    with pytest.raises(StoreError, match="in use by another program") as said:
        open_store()
    assert str(locked) in str(said.value)
    assert "try again" in str(said.value)
    assert "move it away" not in str(said.value)
    assert "restore" not in str(said.value)


@pytest.mark.parametrize("text", ["database is locked", "database table is locked", "database schema is locked: main"])
def test_a_lock_met_within_mlflow_says_the_same(text: str) -> None:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    inner = OperationalError("UPDATE runs", {}, sqlite3.OperationalError(text))
    for error in (inner, MlflowException(inner), sqlite3.OperationalError(text)):  # type: ignore[no-untyped-call]
        known = at_the_edge(error, "sqlite:////p/mlruns/mlflow.db", "/p/mlruns/mlflow.db")
        assert str(known).startswith("/p/mlruns/mlflow.db is in use by another program")


def test_a_mistake_of_our_own_keeps_its_traceback() -> None:
    assert at_the_edge(KeyError("database is locked"), "", "") is None
    assert at_the_edge(OSError("x"), "", "") is None


def test_an_older_schema_comes_with_the_command(store: Store, database: Path) -> None:  # noqa: ARG001
    set_schema(database, OLDER)
    before = database.read_bytes()
    with pytest.raises(StoreError, match="older MLflow") as said:
        open_store()
    assert f"`mlflow db upgrade 'sqlite:///{database}'`" in str(said.value)  # quoted: its path holds a space
    assert database.read_bytes() == before


def test_a_newer_schema_names_the_mlflow_that_is_here(store: Store, database: Path) -> None:  # noqa: ARG001
    set_schema(database, NEWER)
    with pytest.raises(StoreError, match=f"newer MLflow than the .*its schema is {NEWER}"):
        open_store()


@pytest.mark.parametrize("revision", [OLDER, NEWER])
def test_a_team_store_of_another_schema(database: Path, monkeypatch: pytest.MonkeyPatch, revision: str) -> None:
    set_schema(database, revision)
    team = database.rename(database.with_name("team.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{team}")
    with pytest.raises(StoreError, match=r"^MLFLOW_TRACKING_URI = .*team\.db was written by"):
        open_store()


@pytest.mark.parametrize("kind", ["mysql+pymysql", "mssql+pyodbc", "mysql", "postgresql+asyncpg"])
def test_a_driver_that_is_missing_is_named(project: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:  # noqa: ARG001
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{kind}://me:tiger-73@127.0.0.1/runs")
    with pytest.raises(StoreError, match=r"me:\.\.\.@127.0.0.1/runs: its driver, the package \w+, is not") as said:
        open_store()
    assert "pip install" in str(said.value)
    assert "tiger-73" not in str(said.value)


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
def test_an_address_that_leads_nowhere(
    database: Path, monkeypatch: pytest.MonkeyPatch, address: str, variable: str
) -> None:
    team = database.rename(database.with_name("team.db"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{team}")
    monkeypatch.setenv(variable, address)
    with pytest.raises(StoreError) as said:
        open_store()
    assert str(said.value).startswith(f"{variable} = {address.partition('://')[0]}://")
    assert "tiger-73" not in str(said.value)


def test_an_experiment_that_was_deleted_from_a_team_store(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    team = database.rename(database.with_name("team.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{team}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cells")
    store = open_store()
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(StoreError, match=f"mlflow experiments restore -x {store.experiment_id}") as said:
        open_store()
    assert f"MLFLOW_TRACKING_URI='sqlite:///{team}'" in str(said.value)
    MlflowClient(f"sqlite:///{team}").restore_experiment(store.experiment_id)
    assert open_store().experiment_id == store.experiment_id


def test_what_was_deleted_while_a_command_ran(store: Store) -> None:
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
