"""Create the project's database; replace an incomplete database that a killed process left."""

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

from segline import files
from segline.track.faults import PATIENCE, StoreError, head
from segline.track.location import ROOT_TAG, Place, check_schema, sqlite_address

# Without this tag, MLflow's page opens with the view for traces of language models.
KIND = {"mlflow.experimentKind": "custom_model_development"}
BESIDE = ("-journal", "-wal", "-shm")  # suffixes of the extra files that SQLite keeps next to a database
# Tables that are empty in a new store, because a new store holds only MLflow's experiment 0.
VALUABLE = ("runs", "registered_models", "model_versions", "logged_models", "trace_info")


def create(place: Place, say: Callable[[str], None]) -> None:
    """Create the project's database and experiment; if MLflow already made the database, add only the experiment.

    The caller must hold the lock `open`. The new database gets a temporary name until it is complete. If a killed
    process left an incomplete database, that database is renamed, and `say` prints the new name.

    Raises
    ------
    StoreError
        An incomplete database holds runs, models or the tables of another program.
    """
    database = Path(os.path.realpath(place.database))
    tables = _tables(database)
    if tables and _complete(database):
        _adopt(place)
        return
    if tables and (valuable := _valuable(database, tables)):
        check_schema(database)
        raise StoreError(
            f"{database} is incomplete, but holds {valuable}, so segline does not replace the database; restore "
            "the database from a copy, or move it away to start with an empty store"
        )
    new = database.with_name("mlflow-new.db")
    for name in (new, *_beside(new)):
        name.unlink(missing_ok=True)  # left by a killed process
    _make(place, new)
    if tables:
        aside = database.with_name(f"mlflow-half-made-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db")
        os.link(database, aside)
        say(
            f"{database} was incomplete after a killed process; it was renamed to {aside.name}, and a new database is "
            "created"
        )
    for name in _beside(database):
        name.unlink(missing_ok=True)  # SQLite would apply a journal of the old database to the new one
    new.replace(database)
    files.sync(database.parent)


def _make(place: Place, database: Path) -> None:
    """Create a complete database with the project's experiment, and flush it to the disk."""
    store: Any = SqlAlchemyStore(sqlite_address(database), str(place.artifacts))  # type: ignore[no-untyped-call]
    tags = [ExperimentTag(name, value) for name, value in {ROOT_TAG: str(place.root), **KIND}.items()]
    store.create_experiment(place.root.name, str(place.artifacts), tags)
    store.engine.dispose()
    _keep_default_inside(database, place)
    files.sync(database)


def _adopt(place: Place) -> None:
    """Add the project's experiment to a database that MLflow has already set up completely."""
    _keep_default_inside(place.database, place)
    client = MlflowClient(place.uri, registry_uri=place.uri)
    if experiment := client.get_experiment_by_name(place.root.name):
        client.set_experiment_tag(experiment.experiment_id, ROOT_TAG, str(place.root))
    else:
        client.create_experiment(place.root.name, str(place.artifacts), {ROOT_TAG: str(place.root), **KIND})


def _keep_default_inside(database: Path, place: Place) -> None:
    """Set a folder in the project as the artifact folder of MLflow's experiment 0.

    MLflow's default is a folder in the working directory.
    """
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (str(place.artifacts / "0"),)
        )


def _tables(database: Path) -> set[str]:
    if not database.is_file():
        return set()
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _complete(database: Path) -> bool:
    """Return whether the database has the schema and the default experiment of the installed MLflow."""
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
        try:
            revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            default = connection.execute("SELECT 1 FROM experiments WHERE experiment_id = 0").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return False
            raise
    return bool(revision and revision[0] == head() and default)


def _valuable(database: Path, tables: set[str]) -> str:
    """Describe the runs and other user data in a database; return an empty text if the database holds no such data."""
    queries = {table: f"SELECT COUNT(*) FROM {table}" for table in VALUABLE if table in tables}
    if "experiments" in tables:
        queries["experiments"] = "SELECT COUNT(*) FROM experiments WHERE name != 'Default'"
    known = {"alembic_version", "experiments", *VALUABLE}
    if not tables & known:
        return f"tables that do not belong to MLflow ({', '.join(sorted(tables)[:3])})"
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
        counts = {table: connection.execute(query).fetchone()[0] for table, query in queries.items()}
    return ", ".join(f"{count} {table}" for table, count in counts.items() if count)


def _beside(database: Path) -> list[Path]:
    return [database.with_name(database.name + ending) for ending in BESIDE]
