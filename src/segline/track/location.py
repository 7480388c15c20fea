"""Locate the store of a project: its root, its MLflow database, and the addresses in it after a move of the folder."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from segline import files
from segline.failure import WRITABLE
from segline.track.faults import PATIENCE, StoreError, explain, head, other_schema

ROOT_TAG = "segline.root"
OPENING = 120  # seconds that a process waits while another process opens the store
# Every column in which MLflow keeps the absolute address of an artifact.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


@dataclass(frozen=True)
class Place:
    """The store of a project.

    ``uri`` is the address of the project's own ``mlruns/mlflow.db``, or MLFLOW_TRACKING_URI. ``copy`` is the folder of
    a temporary copy of the own database, if the project is read-only.
    """

    root: Path
    uri: str
    copy: Path | None = None

    @property
    def folder(self) -> Path:
        """Folder of MLflow's files."""
        return self.root / "mlruns"

    @property
    def database(self) -> Path:
        """Database of the project's own store."""
        return (self.copy or self.folder) / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts in the project's own store."""
        return self.folder / "artifacts"

    @property
    def resume(self) -> Path:
        """Folder of the checkpoints of unfinished trainings."""
        return self.folder / "resume"

    @property
    def own(self) -> bool:
        """True if the runs are in the project's own store, not on a team's server."""
        return self.uri == sqlite_address(self.database)

    @property
    def writable(self) -> bool:
        """True if this user may write to the project's store; SQLite also writes into its folder."""
        if not self.folder.is_dir():
            return os.access(self.root, os.W_OK)
        database = self.folder / "mlflow.db"
        folder = Path(os.path.realpath(database)).parent  # the database may be a link to a faster disk
        paths = (self.folder, folder, database, self.folder / "open.lock")
        return all(os.access(path, os.W_OK) for path in paths if path.exists())

    def refuse_read_only(self) -> None:
        """Raise StoreError if the store is a temporary copy, in which changes would be lost."""
        if self.copy is not None:
            raise StoreError(f"{self.folder} is read-only here; {WRITABLE}")

    def lock(self, name: str) -> FileLock:
        """Return a lock between the processes of this project; it is released when its holder ends or is killed.

        Raises
        ------
        StoreError
            The project is read-only, and the lock is for writing.
        """
        if name == "open" and not self.writable:
            return FileLock(_private(f"{name}.lock", self.root))
        if not self.writable:
            raise StoreError(f"{self.folder} is read-only here; {WRITABLE}")
        self.folder.mkdir(exist_ok=True)
        return FileLock(self.folder / f"{name}.lock")


@contextmanager
def opening(place: Place) -> Iterator[None]:
    """Hold the lock for creating, relocating or first opening a store.

    Raises
    ------
    StoreError
        Another process holds the lock for too long.
    """
    lock = place.lock("open")
    try:
        lock.acquire(timeout=OPENING)
    except Timeout:
        raise StoreError(
            f"another segline has been opening {place.folder} for {OPENING} seconds; wait until it has finished, and "
            "try again"
        ) from None
    try:
        yield
    finally:
        lock.release()


def locate() -> Place:
    """Locate the store of the project that holds the working directory; MLFLOW_TRACKING_URI takes precedence.

    Raises
    ------
    StoreError
        There is no project here, or its path cannot be part of the address of a database.
    """
    root = project_root()
    database = root / "mlruns" / "mlflow.db"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(database)
    if uri.startswith("sqlite:///") and Path(uri.removeprefix("sqlite:///")).resolve() == database:
        uri = sqlite_address(database)
    place = Place(root, uri)
    if place.own and (refused := set("%?#") & set(str(root))):
        raise StoreError(
            f"MLflow cannot store runs in {root}; rename the folder so that its path has no {' '.join(sorted(refused))}"
        )
    return place


def project_root() -> Path:
    """Return the folder of the project: DVC_ROOT if it is set, else the nearest parent folder with dvc.yaml or .dvc.

    In `dvc exp run --temp` and `--queue` the stages run in a clone, and DVC sets DVC_ROOT to the main checkout.

    Raises
    ------
    StoreError
        There is no such folder.
    """
    if root := os.environ.get("DVC_ROOT"):
        if not Path(root).is_dir():
            raise StoreError(
                f"DVC_ROOT = {root!r} is not a folder; unset it, or set it to the folder that holds dvc.yaml"
            )
        return Path(root).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() or (folder / ".dvc").is_dir():
            return folder
    raise StoreError(f"neither {here} nor a folder above it holds dvc.yaml or .dvc; run segline inside a project")


def recorded_root(database: Path) -> str | None:
    """Return the project folder that a database was written for; None if the database is new or incomplete.

    Raises
    ------
    StoreError
        The database cannot be read, or another program has locked it for too long.
    """
    return _first(database, "SELECT value FROM experiment_tags WHERE key = ?", ROOT_TAG)


def check_schema(database: Path) -> None:
    """Refuse a database that another version of MLflow wrote, before MLflow alters it.

    Raises
    ------
    StoreError
        The schema differs; the message names the command for the upgrade, or the required MLflow.
    """
    revision = _first(database, "SELECT version_num FROM alembic_version")
    if revision is not None and revision != head():
        raise other_schema(revision, sqlite_address(database), str(database))


def _first(database: Path, query: str, *values: str) -> str | None:
    """Return the first value of a query; None without a result, without the file or without the table."""
    if not database.is_file():
        return None
    # Opened for writing, so that SQLite rolls back an incomplete transaction of a killed process.
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=PATIENCE)) as connection:
            row = connection.execute(query, values).fetchone()
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):
            return None
        raise explain(error, sqlite_address(database), str(database)) or StoreError(
            f"{database} cannot be read ({error}); check that you may read and write it and its folder"
        ) from error
    return str(row[0]) if row and row[0] is not None else None


def relocate(database: Path, old: Path, new: Path) -> Path:
    """Replace the folder `old` by `new` in all addresses, in one transaction; return a backup made before.

    MLflow stores absolute addresses: after a move of the folder, models would not load, and new runs would be written
    to the old folder.
    """
    backup = database.with_name(f"mlflow-before-move-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db")
    with (
        closing(sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)) as connection,
        closing(sqlite3.connect(database)) as reader,
        closing(sqlite3.connect(backup)) as copy,
    ):
        connection.execute("BEGIN IMMEDIATE")  # before the backup, which would wait for another writer forever
        reader.backup(copy)
        for before, after in ((f"{old}/", f"{new}/"), (_file(old), _file(new))):
            for table, column in ADDRESSES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (after, len(before) + 1, len(before), before),
                )
        connection.execute("UPDATE experiment_tags SET value = ? WHERE key = ?", (str(new), ROOT_TAG))
        connection.execute("COMMIT")
    return backup


def sqlite_address(database: Path) -> str:
    """Return the address of a SQLite database for SQLAlchemy."""
    return f"sqlite:///{database}"


def _private(name: str, root: Path) -> Path:
    """Return the path of a temporary file of this user for the project at `root`."""
    key = files.bytes_md5(str(root).encode(errors="surrogateescape"))
    return Path(tempfile.gettempdir(), f"segline-{os.getuid()}-{key}-{name}")


def _file(folder: Path) -> str:
    return f"file://{quote(str(folder))}/"
