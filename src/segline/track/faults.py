"""What the errors of a store mean: one message with the way out, in the place of a traceback."""

import re
import shlex
import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from segline.addresses import hide, shown
from segline.failure import WRITABLE

PATIENCE = 30  # seconds that a command waits for a database which another program uses
# Python's modules whose package has another name.
PACKAGES = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]"}
LOCKED = re.compile(r"(database|database table|database schema) is locked|locking protocol", re.IGNORECASE)
DAMAGED = re.compile(r"not a database|malformed|file is encrypted", re.IGNORECASE)
READ_ONLY = re.compile(r"readonly database|read-only", re.IGNORECASE)
FULL = re.compile(r"disk is full|no space left", re.IGNORECASE)
SCHEMA = re.compile(r"schema \(found version (\w+)|Can't locate revision identified by '(\w+)'")
DELETED = re.compile(r"The (experiment|run) (\S+) must be in the 'active' state", re.IGNORECASE)
# Names of classes of MLflow and requests: an answer of a server, and none.
SERVERS = ("RestException", "ConnectionError", "Timeout", "MaxRetryError", "SSLError")
LONGEST = 300  # characters of another program's error that are shown
GONE = re.compile(r"(no (such )?(experiment|run)\b.*(id|name)|run (with id=)?'?\w{32}'? not found)", re.IGNORECASE)


class StoreError(RuntimeError):
    """The store cannot be found or used; the message says what to do."""


def explain(error: BaseException, address: str, name: str = "") -> StoreError | None:
    """Return what `error`, raised by a use of the store at `address`, means; None if it is of no known kind.

    Parameters
    ----------
    address : a database's or a server's; its secrets are not shown.
    name : what the message calls the store; without it, the address.
    """
    errors = list(_chain(error))
    text = " ".join(map(str, errors))
    where = name or shown(address)
    if found := SCHEMA.search(text):
        return other_schema(found[1] or found[2], address, where)
    if missing := next((each for each in errors if isinstance(each, ImportError)), None):
        return StoreError(f"{where}: {_driver(missing)}")
    said = _database(text, where) if _of_database(errors) or LOCKED.search(text) else ""
    said = said or _deleted(text, address, where)
    return StoreError(hide(said, address)) if said else None


def _of_database(errors: list[BaseException]) -> bool:
    modules = {type(each).__module__.partition(".")[0] for each in errors}
    return bool(modules & {"sqlite3", "sqlalchemy"})


def _database(text: str, where: str) -> str:
    """Say what a database's error means; empty for others."""
    first = text.splitlines()[0][:200] if text else "no reason given"
    if "Can't load plugin" in text:
        return f"{where}: SQLAlchemy knows no such kind of database ({first}); see MLFLOW_TRACKING_URI"
    if LOCKED.search(text):
        return (
            f"{where} is in use by another program (the database is locked, also after {PATIENCE} seconds); wait until "
            "that program (a backup, a database browser, another segline) is done, and try again"
        )
    if DAMAGED.search(text):
        return f"{where} cannot be read ({first}); restore it from a copy, or move it away"
    if READ_ONLY.search(text):
        return f"{where} is read-only here; {WRITABLE}"
    if FULL.search(text):
        return f"{where} cannot be written: the disk is full; make room and run the command again"
    if "unable to open database file" in text:
        return f"{where} cannot be opened: see whether its folder is there and may be written to"
    if "disk I/O error" in text:
        return f"{where} cannot be read or written (disk I/O error): see whether the disk is full or failing"
    return ""


def _deleted(text: str, address: str, where: str) -> str:
    """Say that somebody deleted what a command works with; empty for other errors."""
    if found := DELETED.search(text):
        kind, number = found[1].lower(), found[2].strip("'`")
        return f"{where}: {kind} {number} was deleted; bring it back with `{restore(kind, number, address)}`"
    if GONE.search(text):
        return (
            f"{where}: what the command works with was deleted meanwhile ({text.splitlines()[0][:200]}); run it again"
        )
    return ""


def restore(kind: str, number: str, address: str) -> str:
    """Return the command that brings back a deleted experiment or run."""
    option = "-x" if kind == "experiment" else "--run-id"
    return f"MLFLOW_TRACKING_URI={shlex.quote(shown(address))} mlflow {kind}s restore {option} {number}"


def other_schema(revision: str, address: str, where: str) -> StoreError:
    """Return the error of a store that another version of MLflow wrote."""
    here = version("mlflow")
    if _known(revision):
        upgrade = f"mlflow db upgrade {shlex.quote(shown(address))}"
        return StoreError(
            f"{where} was written by an older MLflow than the {here} that is installed (its schema is {revision}); "
            f"make a copy of it, then run `{upgrade}`"
        )
    return StoreError(
        f"{where} was written by a newer MLflow than the {here} that is installed (its schema is {revision}, which "
        "this MLflow does not know); install the MLflow that wrote it, or use a copy of the store from before"
    )


@lru_cache(maxsize=1)
def head() -> str:
    """Return the schema of the MLflow that is installed."""
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
        return f"its driver cannot be used here ({error})"
    package = PACKAGES.get(module, module)
    return f"its driver, the package {package}, is not installed; run `pip install '{package}'`"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Find an error and those that led to it."""
    seen: set[int] = set()
    open_: list[Any] = [error]
    while open_:
        each = open_.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        # Of SQLAlchemy, MLflow, urllib3: the errors that they carry.
        open_ += [
            each.__cause__,
            each.__context__,
            *(getattr(each, name, None) for name in ("orig", "message", "reason")),
        ]
        open_ += each.args[:1]


def busy(error: sqlite3.Error) -> bool:
    """Tell whether another program's lock is the reason of `error`."""
    return bool(LOCKED.search(str(error)))


def at_the_edge(error: Exception, address: str, name: str) -> StoreError | None:
    """Return what an error that reached the command line means; None for those that are our own mistakes.

    Parameters
    ----------
    address, name : of the store in use; empty where there is none.
    """
    errors = list(_chain(error))
    modules = {type(each).__module__.partition(".")[0] for each in errors}
    if not modules & {"mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3"}:
        return None
    if known := explain(error, address, name):
        return known
    if isinstance(error, sqlite3.Error) or _of_server(errors):
        return StoreError(f"{name or shown(address)}: {reason(error, address)}")
    return None


def reason(error: BaseException, address: str) -> str:
    """Return what an error says, in one line and without secrets; of a server that is not reached, why it is not."""
    errors = list(_chain(error))
    unreached = (
        [each for each in errors if not type(each).__module__.startswith("mlflow")] if _of_server(errors) else []
    )
    told = unreached[-1] if unreached else error
    said = " ".join(str(getattr(told, "message", told)).split()) or type(told).__name__
    said = hide(said, address)
    return said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."


def _of_server(errors: list[BaseException]) -> bool:
    """Tell whether a server answered with an error, or could not be reached."""
    return any(type(each).__name__ in SERVERS for each in errors)
