"""The project's database, made so that a process that is killed on the way leaves nothing that others stumble over."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ExperimentTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from segline.track.faults import PATIENCE, StoreError, head
from segline.track.location import ROOT_TAG, Place, check_schema, sqlite_address

# Else MLflow opens the page of a language model's traces.
KIND = {"mlflow.experimentKind": "custom_model_development"}
BESIDE = ("-journal", "-wal", "-shm")  # files that SQLite keeps with a database
# What somebody put into a store; a new one has MLflow's experiment 0 and nothing else.
VALUABLE = ("runs", "registered_models", "model_versions", "logged_models", "trace_info")


def create(place: Place, say: Callable[[str], None]) -> None:
    """Make the project's database and experiment, or the experiment alone in a database of MLflow's that is whole.

    The caller holds the lock `open`. The database is made under another name and renamed when it is complete. A half
    made one, of an earlier segline that was killed, is put aside; `say` is told so.

    Raises
    ------
    StoreError
        Something of value is in a database that is not whole.
    """
    database = Path(os.path.realpath(place.database))
    tables = _tables(database)
    if tables and _whole(database):
        _adopt(place)
        return
    if tables and (valuable := _valuable(database, tables)):
        check_schema(database)
        raise StoreError(
            f"{database} is not whole, but holds {valuable}: segline leaves it as it is; restore it from a copy, or "
            "move it away to begin anew"
        )
    new = database.with_name("mlflow-new.db")
    for name in (new, *_beside(new)):
        name.unlink(missing_ok=True)  # what a process that was killed left
    _make(place, new)
    if tables:
        aside = database.with_name(f"mlflow-half-made-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db")
        os.link(database, aside)
        say(
            f"{database} was left half made by a process that was killed; it is now {aside.name}, and a new one is made"
        )
    for name in _beside(database):
        name.unlink(missing_ok=True)  # SQLite would take a journal of the old database for one of the new
    new.replace(database)
    _sync(database.parent)


def _make(place: Place, database: Path) -> None:
    """Make a whole database with the project's experiment, and see it to the disk."""
    store: Any = SqlAlchemyStore(sqlite_address(database), str(place.artifacts))  # type: ignore[no-untyped-call]
    tags = [ExperimentTag(name, value) for name, value in {ROOT_TAG: str(place.root), **KIND}.items()]
    store.create_experiment(place.root.name, str(place.artifacts), tags)
    store.engine.dispose()
    _keep_default_inside(database, place)
    _sync(database)


def _adopt(place: Place) -> None:
    """Make the project's experiment in a database that MLflow itself has made."""
    _keep_default_inside(place.database, place)
    client = MlflowClient(place.uri, registry_uri=place.uri)
    if found := client.get_experiment_by_name(place.root.name):
        client.set_experiment_tag(found.experiment_id, ROOT_TAG, str(place.root))
    else:
        client.create_experiment(place.root.name, str(place.artifacts), {ROOT_TAG: str(place.root), **KIND})


def _keep_default_inside(database: Path, place: Place) -> None:
    """Give MLflow's experiment 0 a place in the project: MLflow puts its artifacts below the working directory."""
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (str(place.artifacts / "0"),)
        )


def _tables(database: Path) -> set[str]:
    if not database.is_file():
        return set()
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _whole(database: Path) -> bool:
    """Tell whether all migrations of MLflow's were made."""
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
        try:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            default = connection.execute("SELECT 1 FROM experiments WHERE experiment_id = 0").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return False
            raise
    return bool(found and found[0] == head() and default)


def _valuable(database: Path, tables: set[str]) -> str:
    """Say what somebody has put into a database; empty where there is nothing."""
    queries = {table: f"SELECT COUNT(*) FROM {table}" for table in VALUABLE if table in tables}
    if "experiments" in tables:
        queries["experiments"] = "SELECT COUNT(*) FROM experiments WHERE name != 'Default'"
    ours = {"alembic_version", "experiments", *VALUABLE}
    if not tables & ours:
        return f"tables that are not MLflow's ({', '.join(sorted(tables)[:3])})"
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
        counts = {table: connection.execute(query).fetchone()[0] for table, query in queries.items()}
    return ", ".join(f"{count} {table}" for table, count in counts.items() if count)


def _beside(database: Path) -> list[Path]:
    return [database.with_name(database.name + ending) for ending in BESIDE]


def _sync(path: Path) -> None:
    """See a file, or the names in a folder, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
