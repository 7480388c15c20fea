"""Where a search is kept, and which of its workers has which trial; both outlive a worker that is killed."""

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

ALONE = -1  # claimed like a trial by who makes trials
CONNECT = 10  # seconds for the server to take a connection
FORM = "postgresql+psycopg://USER@HOST/NAME"


class StudyError(RuntimeError):
    """A search that cannot be opened or joined; the message says what to do."""


class Claims(Protocol):
    """Who works on which trial. A claim ends with its holder, however that ends."""

    def claim(self, number: int, wait: bool = False) -> AbstractContextManager[bool]:
        """Hold trial `number` within a `with` block; False when another worker has it."""
        ...


class FileClaims:
    """Claims as locked files, for workers that share a file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def claim(self, number: int, wait: bool = False) -> Iterator[bool]:
        """See `Claims`."""
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
    """Claims as advisory locks of a PostgreSQL server, which frees them when a worker's connection ends."""

    def __init__(self, engine: Engine, study: str) -> None:
        self.engine = engine
        self.study = study

    @contextmanager
    def claim(self, number: int, wait: bool = False) -> Iterator[bool]:
        """See `Claims`."""
        digest = hashlib.md5(f"{self.study} {number}".encode(), usedforsecurity=False).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        # Nothing waits in a transaction, which would keep the server from tidying up for as long as a trial takes.
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if wait:
                connection.exec_driver_sql(f"SELECT pg_advisory_lock({key})")
                yield True
            else:
                yield bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({key})").scalar())


class _WholeLines:
    """The lock of a journal. It is freed when its holder is killed, and what that one left half written is cut off."""

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
    """The storage at `address`, a journal's path or a database's address, and the claims on the trials of `study`.

    Without `new`, a journal has to be there.

    Raises
    ------
    StudyError
        There is no such journal; the database is of another kind, cannot be reached, or lacks its driver; the address
        holds a password.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" in address:
        return _open_database(address, study)
    journal = Path(address)
    if not new and not journal.is_file():
        raise StudyError(
            f"{shown(address)}: there is no such file; the journal of a search is mlruns/studies/*.journal in the "
            f"folder where it runs, and a database is written {FORM}"
        )
    journal.parent.mkdir(parents=True, exist_ok=True)
    lock: Any = _WholeLines(journal)  # Optuna's base class of locks is not public
    backend: BaseJournalBackend = JournalFileBackend(str(journal), lock_obj=lock)
    try:
        if journal.exists():
            _doubt(journal)
        storage = JournalStorage(backend)
    except OSError:
        raise
    except Exception as error:  # whatever Optuna meets in lines that it has not written
        raise StudyError(
            f"{journal}: damaged, or no journal of a search ({type(error).__name__}: {cut(str(error), MESSAGE)}); move "
            "it away, and the search begins afresh"
        ) from error
    return storage, FileClaims(journal.with_suffix(""))


def _doubt(journal: Path) -> None:
    """Refuse lines that are no JSON objects with a kind: Optuna would meet them later, in the middle of a trial."""
    for number, line in enumerate(parse.read(journal, parse.DATA_SIZE).split(b"\n")[:-1], 1):
        said = parse.from_json(line, loose=True) if line else {"op_code": 0}
        if not isinstance(said, dict) or type(said.get("op_code")) is not int:
            raise ValueError(f"line {number}: no object with an op_code")


def _open_database(address: str, study: str) -> tuple[BaseStorage, Claims]:
    url = _url(address)
    try:
        # No pool: a connection that is kept would keep its locks, and may be cut while a trial is trained.
        within = {"connect_timeout": CONNECT} if url.get_driver_name().startswith("psycopg") else {}
        settings = {"poolclass": NullPool, "connect_args": {} if "connect_timeout" in url.query else within}
        engine = create_engine(url, **settings)
        # One after the other: of processes that make the same tables at once, all but one fail.
        with PostgresClaims(engine, "tables").claim(ALONE, wait=True):
            storage = RDBStorage(address, engine_kwargs=settings)
    except ImportError as error:
        raise StudyError(f"{shown(address)}: {error}; pip install the driver that it names") from error
    except Exception as error:  # whatever the driver raises when there is no server
        raise StudyError(f"{shown(address)}: cannot be opened: {hide(str(error), address)}") from error
    return storage, PostgresClaims(engine, study)


def _url(address: str) -> URL:
    shown = f"{address.partition('://')[0]}://..."  # there may be a password in it, anywhere
    if not address.startswith("postgresql"):
        raise StudyError(
            f"{shown}: workers share a journal file or a PostgreSQL database ({FORM}), whose locks end with their "
            "holder; others have none"
        )
    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:  # ValueError: of a port
        raise StudyError(f"{shown}: this is no address of a database; write {FORM}") from error
    if url.password is not None or any(SETTING.match(f"{name}=x") and name != "passfile" for name in url.query):
        raise StudyError(
            f"{shown}: leave the password out, for params.yaml and command lines are read by others; "
            "it is taken from ~/.pgpass or PGPASSWORD"
        )
    return url
