"""Open the team's store that MLFLOW_TRACKING_URI names; raise StoreError if the store does not respond in time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy import NullPool, create_engine, make_url, text

from segline.addresses import shown
from segline.track.faults import PATIENCE, StoreError, explain, head, other_schema, reason, restore
from segline.track.location import Place, opening

TRACKING, REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
CONNECT = 10  # seconds to wait until a database server accepts a connection; MLflow would try for minutes
# Database driver -> name of the argument that sets the timeout of this driver.
CONNECT_ARGUMENT = {
    "psycopg2": "connect_timeout",
    "psycopg": "connect_timeout",
    "pymysql": "connect_timeout",
    "mysqldb": "connect_timeout",
    "mysqlconnector": "connection_timeout",
    "pyodbc": "timeout",
    "pysqlite": "timeout",
}
# Number of retries, and timeout in seconds, for HTTP requests while a store is opened.
# Later requests use MLflow's own number of retries and timeout, so that training survives a server restart.
FIRST_REQUEST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(PATIENCE)}


def open_shared(place: Place) -> tuple[MlflowClient, str]:
    """Return two values: an MLflow client for the store at `place.uri`, and the id of the project's experiment.

    Raises
    ------
    StoreError
        The URI for runs or the URI for models cannot be used, or the experiment was deleted.
    """
    registry = os.environ.get(REGISTRY) or place.uri
    with _few_requests():
        with (
            _explained(TRACKING, place.uri),
            opening(place),
        ):  # locked, since simultaneous first connections would damage a new database
            _reach(TRACKING, place.uri)
            client = MlflowClient(place.uri, registry_uri=registry)
        with _explained(TRACKING, place.uri):
            experiment = _experiment(client, place)
        if registry != place.uri:
            with _explained(REGISTRY, registry):
                _reach(REGISTRY, registry)
                client.search_registered_models(max_results=1)
    return client, experiment


def _experiment(client: MlflowClient, place: Place) -> str:
    """Find or create the project's experiment; return the id of the experiment.

    The name is MLFLOW_EXPERIMENT_NAME or, if that is not set, the name of the project folder.
    """
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or place.root.name
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another machine may have created the experiment meanwhile
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise StoreError(
            f"the project's experiment {name!r} was deleted from {shown(place.uri)}; restore it with "
            f"`{restore('experiment', experiment.experiment_id, place.uri)}`, or change MLFLOW_EXPERIMENT_NAME"
        )
    return str(experiment.experiment_id)


def _reach(variable: str, address: str) -> None:
    """Check that a database accepts a connection, and that it is empty or has the installed MLflow's schema."""
    if address.partition("://")[0].partition("+")[0] not in DATABASE_ENGINES:
        return
    url = make_url(address)
    if url.drivername.startswith("sqlite") and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)  # MLflow also creates this folder
    argument = CONNECT_ARGUMENT.get(url.get_driver_name())
    patience = PATIENCE if url.drivername.startswith("sqlite") else CONNECT
    arguments = {argument: patience} if argument and argument not in url.query else {}
    engine = create_engine(url, poolclass=NullPool, connect_args=arguments)
    with engine.connect() as connection:
        if not engine.dialect.has_table(connection, "alembic_version"):
            return
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if revision is not None and revision != head():
        raise other_schema(str(revision), address, f"{variable} = {shown(address)}")


@contextmanager
def _explained(variable: str, address: str) -> Iterator[None]:
    """Turn any error of the store at `address` into a StoreError that names the environment variable `variable`."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # MLflow, a database driver or the network may raise any error
        name = f"{variable} = {shown(address)}"
        if known := explain(error, address, name):
            raise known from None
        kept = "runs" if variable == TRACKING else "models"
        raise StoreError(
            f"{name}: MLflow cannot store {kept} there ({reason(error, address)}); start the server, set another "
            "address, or unset the variable to use the project's own store"
        ) from None


@contextmanager
def _few_requests() -> Iterator[None]:
    """Limit MLflow's retries and timeout inside the with block; values set by the user take precedence."""
    added = {name: value for name, value in FIRST_REQUEST.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
