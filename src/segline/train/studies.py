"""Open the storage of a search, and let workers claim trials. A killed worker loses its claims and damages nothing."""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import optuna
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from sqlalchemy import URL, Engine, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from segline import parse
from segline.addresses import SETTING, hide, shown
from segline.text import MESSAGE, cut

ALONE = -1  # a worker claims this number, which no trial has, while it creates trials or tables
CONNECT = 10  # seconds for the server to accept a connection
FORM = "postgresql+psycopg://USER@HOST/NAME"


class StudyError(RuntimeError):
    """The search cannot be opened or joined; the message says what to do."""


class Claims(Protocol):
    """Locks with which workers claim trials. A claim is released when the worker's process ends or is killed."""

    def claim(self, number: int, wait: bool = False) -> AbstractContextManager[bool]:
        """Claim trial `number`; yield whether the claim succeeded. If `wait` is set, wait until the trial is free."""
        ...


class FileClaims:
    """Claims for workers that share a file system: a worker claims a trial by locking a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def claim(self, number: int, wait: bool = False) -> Iterator[bool]:
        """Claim trial `number` as described in `Claims.claim`."""
        lock = FileLock(self.folder / f"{'alone' if number == ALONE else f'trial-{number}'}.lock")
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


class PostgresClaims:
    """Claims made by advisory locks of a PostgreSQL server. A lock is free again when the worker's connection ends."""

    def __init__(self, engine: Engine, study: str) -> None:
        self.engine = engine
        self.study = study

    @contextmanager
    def claim(self, number: int, wait: bool = False) -> Iterator[bool]:
        """Claim trial `number` as described in `Claims.claim`."""
        digest = hashlib.md5(f"{self.study} {number}".encode(), usedforsecurity=False).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        # Use AUTOCOMMIT: a transaction open for a whole trial would keep VACUUM in PostgreSQL from removing dead rows.
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if wait:
                connection.exec_driver_sql(f"SELECT pg_advisory_lock({key})")
                yield True
            else:
                yield bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({key})").scalar())


class _JournalLock:
    """Lock for a journal file. A killed holder loses the lock, and the next holder deletes an incomplete last line."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.lock = FileLock(journal.with_suffix(".lock"))

    def acquire(self) -> bool:
        self.lock.acquire()
        if self.journal.exists():
            content = self.journal.read_bytes()
            if not content.endswith(b"\n") and content:
                with self.journal.open("r+b") as stream:
                    stream.truncate(content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self.lock.release()


def open_storage(address: str, study: str, *, new: bool = True) -> tuple[BaseStorage, Claims]:
    """Return two objects: the storage at `address` (journal path or database URL), and the locks for trials of `study`.

    If `new` is False, the journal must already exist.

    Raises
    ------
    StudyError
        The journal is missing or damaged; the database is not PostgreSQL, cannot be reached or lacks its driver; the
        address contains a password.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" in address:
        return _open_database(address, study)
    journal = Path(address)
    if not new and not journal.is_file():
        raise StudyError(
            f"the journal {shown(address)} does not exist; give the journal of the search (mlruns/studies/*.journal in "
            f"the folder where the search runs), or the address of its database ({FORM})"
        )
    journal.parent.mkdir(parents=True, exist_ok=True)
    lock: Any = _JournalLock(journal)  # Optuna's base class of locks is not public
    backend: BaseJournalBackend = JournalFileBackend(str(journal), lock_obj=lock)
    try:
        if journal.exists():
            _check(journal)
        storage = JournalStorage(backend)
    except OSError:
        raise
    except Exception as error:  # Optuna raises many exception types for lines that it has not written
        raise StudyError(
            f"{journal} is damaged, or is not the journal of a search ({type(error).__name__}: "
            f"{cut(str(error), MESSAGE)}); move it away to start the search from the beginning"
        ) from error
    return storage, FileClaims(journal.with_suffix(""))


def _check(journal: Path) -> None:
    """Raise ValueError if a journal line is not a JSON object with an op_code.

    Without this check, Optuna would fail later, during a trial.
    """
    for number, line in enumerate(parse.read(journal, parse.DATA_SIZE).split(b"\n")[:-1], 1):
        record = parse.from_json(line, loose=True) if line else {"op_code": 0}
        if not isinstance(record, dict) or type(record.get("op_code")) is not int:
            raise ValueError(f"line {number} is not a JSON object with an op_code")


def _open_database(address: str, study: str) -> tuple[BaseStorage, Claims]:
    url = _url(address)
    try:
        # Use no connection pool. An idle pooled connection would keep its locks, and could break during the training.
        timeout = {"connect_timeout": CONNECT} if url.get_driver_name().startswith("psycopg") else {}
        settings = {"poolclass": NullPool, "connect_args": {} if "connect_timeout" in url.query else timeout}
        engine = create_engine(url, **settings)
        # Hold a lock while creating the tables. If several processes created them at once, all but one would fail.
        with PostgresClaims(engine, "tables").claim(ALONE, wait=True):
            storage = RDBStorage(address, engine_kwargs=settings)
    except ImportError as error:
        raise StudyError(f"{shown(address)} needs a database driver ({error}); install this driver with pip") from error
    except Exception as error:  # drivers raise many exception types when there is no server
        raise StudyError(f"the database {shown(address)} cannot be opened: {hide(str(error), address)}") from error
    return storage, PostgresClaims(engine, study)


def _url(address: str) -> URL:
    shown = f"{address.partition('://')[0]}://..."  # every later part may contain a password
    if not address.startswith("postgresql"):
        raise StudyError(
            f"{shown} is not supported; use a journal file or a PostgreSQL database ({FORM}), because their locks are "
            "released when a worker is killed"
        )
    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:  # ValueError is raised for a wrong port
        raise StudyError(f"{shown} is not the address of a database; write {FORM}") from error
    if url.password is not None or any(SETTING.match(f"{name}=x") and name != "passfile" for name in url.query):
        raise StudyError(
            f"the address {shown} contains a password, but others can read params.yaml and command lines; "
            "move the password to ~/.pgpass or PGPASSWORD"
        )
    return url
