"""Explain an error of the MLflow store in one message that says what to do, instead of a traceback."""

import re
import shlex
import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from segline.addresses import hide, shown
from segline.failure import WRITABLE

PATIENCE = 30  # seconds that a command waits for a database that another program has locked
# Module -> package that provides the module. All other modules have the same name as their package.
PACKAGES = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]"}
LOCKED = re.compile(r"(database|database table|database schema) is locked|locking protocol", re.IGNORECASE)
DAMAGED = re.compile(r"not a database|malformed|file is encrypted", re.IGNORECASE)
READ_ONLY = re.compile(r"readonly database|read-only", re.IGNORECASE)
FULL = re.compile(r"disk is full|no space left", re.IGNORECASE)
SCHEMA = re.compile(r"schema \(found version (\w+)|Can't locate revision identified by '(\w+)'")
DELETED = re.compile(r"The (experiment|run) (\S+) must be in the 'active' state", re.IGNORECASE)
# Error classes that are raised if a server responds with an error, or does not respond.
SERVERS = ("RestException", "ConnectionError", "Timeout", "MaxRetryError", "SSLError")
LONGEST = 300  # maximum number of characters of another program's error message
GONE = re.compile(r"(no (such )?(experiment|run)\b.*(id|name)|run (with id=)?'?\w{32}'? not found)", re.IGNORECASE)


class StoreError(RuntimeError):
    """Raised if the store cannot be found or used; the message says what to do."""


def explain(error: BaseException, address: str, name: str = "") -> StoreError | None:
    """Explain an error raised by the store at `address`; return None for an unknown kind of error.

    Parameters
    ----------
    address : address of a database or a server; the message hides passwords in the address.
    name : name of the store in the message; if it is empty, the message shows the address.
    """
    errors = list(_chain(error))
    text = " ".join(map(str, errors))
    where = name or shown(address)
    if found := SCHEMA.search(text):
        return other_schema(found[1] or found[2], address, where)
    if missing := next((cause for cause in errors if isinstance(cause, ImportError)), None):
        return StoreError(f"{where}: {_driver(missing)}")
    message = _database(text, where) if _of_database(errors) or LOCKED.search(text) else ""
    message = message or _deleted(text, address, where)
    return StoreError(hide(message, address)) if message else None


def _of_database(errors: list[BaseException]) -> bool:
    modules = {type(cause).__module__.partition(".")[0] for cause in errors}
    return bool(modules & {"sqlite3", "sqlalchemy"})


def _database(text: str, where: str) -> str:
    """Explain a database error; return an empty text for an unknown error."""
    first = text.splitlines()[0][:200] if text else "no reason given"
    if "Can't load plugin" in text:
        return f"{where}: SQLAlchemy does not support this kind of database ({first}); check MLFLOW_TRACKING_URI"
    if LOCKED.search(text):
        return (
            f"{where} is in use by another program (the database is still locked after {PATIENCE} seconds); wait until "
            "that program (a backup, a database browser or another segline process) has finished, and try again"
        )
    if DAMAGED.search(text):
        return f"{where} cannot be read ({first}); restore it from a copy, or move it away"
    if READ_ONLY.search(text):
        return f"{where} is read-only here; {WRITABLE}"
    if FULL.search(text):
        return f"{where} cannot be written: the disk is full; make room and run the command again"
    if "unable to open database file" in text:
        return f"{where} cannot be opened; check that the folder of the database exists and is writable"
    if "disk I/O error" in text:
        return f"{where} cannot be read or written (disk I/O error); check whether the disk is full or failing"
    return ""


def _deleted(text: str, address: str, where: str) -> str:
    """Explain that an experiment or run was deleted; return an empty text for other errors."""
    if found := DELETED.search(text):
        kind, number = found[1].lower(), found[2].strip("'`")
        return f"{where}: {kind} {number} was deleted; restore it with `{restore(kind, number, address)}`"
    if GONE.search(text):
        return (
            f"{where}: an experiment or run was deleted meanwhile ({text.splitlines()[0][:200]}); run the command again"
        )
    return ""


def restore(kind: str, number: str, address: str) -> str:
    """Return the mlflow command that restores a deleted experiment or run."""
    option = "-x" if kind == "experiment" else "--run-id"
    return f"MLFLOW_TRACKING_URI={shlex.quote(shown(address))} mlflow {kind}s restore {option} {number}"


def other_schema(revision: str, address: str, where: str) -> StoreError:
    """Return the error for a store that has the schema of an older or newer MLflow release."""
    here = version("mlflow")
    if _known(revision):
        upgrade = f"mlflow db upgrade {shlex.quote(shown(address))}"
        return StoreError(
            f"{where} was written by an older MLflow than the installed MLflow {here} (database schema "
            f"{revision}); make a copy of the database, then run `{upgrade}`"
        )
    return StoreError(
        f"{where} was written by a newer MLflow than the installed MLflow {here} (database schema {revision}); "
        "install the MLflow that wrote the database, or use an older copy of the database"
    )


@lru_cache(maxsize=1)
def head() -> str:
    """Return the database schema revision of the installed MLflow."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    return str(_get_latest_schema_revision())  # type: ignore[no-untyped-call]


def _known(revision: str) -> bool:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db.utils import _get_alembic_config

    try:
        return ScriptDirectory.from_config(_get_alembic_config("")).get_revision(revision) is not None  # type: ignore[no-untyped-call]
    except CommandError:
        return False


def _driver(error: ImportError) -> str:
    module = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not module:
        return f"the database driver cannot be used here ({error})"
    package = PACKAGES.get(module, module)
    return f"the database driver, package {package}, is not installed; run `pip install '{package}'`"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, all errors that caused `error`, and all errors that `error` wraps."""
    seen: set[int] = set()
    open_: list[Any] = [error]
    while open_:
        cause = open_.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        # SQLAlchemy, MLflow and urllib3 keep the original error in these attributes.
        open_ += [
            cause.__cause__,
            cause.__context__,
            *(getattr(cause, name, None) for name in ("orig", "message", "reason")),
        ]
        open_ += cause.args[:1]


def busy(error: sqlite3.Error) -> bool:
    """Return whether the error means that another program has locked the database."""
    return bool(LOCKED.search(str(error)))


def at_the_edge(error: Exception, address: str, name: str) -> StoreError | None:
    """Explain an uncaught error of MLflow, a database or a server; return None for other errors.

    Parameters
    ----------
    address, name : address and name of the store in use; both are empty if no store is in use.
    """
    errors = list(_chain(error))
    modules = {type(cause).__module__.partition(".")[0] for cause in errors}
    if not modules & {"mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3"}:
        return None
    if known := explain(error, address, name):
        return known
    if isinstance(error, sqlite3.Error) or _of_server(errors):
        return StoreError(f"{name or shown(address)}: {reason(error, address)}")
    return None


def reason(error: BaseException, address: str) -> str:
    """Return an error's message in one line, without secrets.

    If a server failed or could not be reached, return the message of the innermost error.
    """
    errors = list(_chain(error))
    unreached = (
        [cause for cause in errors if not type(cause).__module__.startswith("mlflow")] if _of_server(errors) else []
    )
    source = unreached[-1] if unreached else error
    message = " ".join(str(getattr(source, "message", source)).split()) or type(source).__name__
    message = hide(message, address)
    return message if len(message) <= LONGEST else f"{message[:LONGEST]} ..."


def _of_server(errors: list[BaseException]) -> bool:
    """Return whether any error in `errors` means that a server failed or could not be reached."""
    return any(type(cause).__name__ in SERVERS for cause in errors)
