"""Where the runs are kept: the project's root, its MLflow database, and its addresses after a move of the folder."""

import hashlib
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

from segline.failure import WRITABLE
from segline.track.faults import PATIENCE, StoreError, explain, head, other_schema

ROOT_TAG = "segline.root"
OPENING = 120  # seconds that a process waits for another one that opens the store
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
    """Where a project keeps its runs.

    ``uri`` is the project's own ``mlruns/mlflow.db``, or MLFLOW_TRACKING_URI where that names another. ``copy`` is the
    folder of a copy of the own database, of a project that cannot be written to; it is not kept.
    """

    root: Path
    uri: str
    copy: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder that MLflow owns."""
        return self.root / "mlruns"

    @property
    def database(self) -> Path:
        """The project's own database."""
        return (self.copy or self.folder) / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """The folder of the project's own artifacts."""
        return self.folder / "artifacts"

    @property
    def resume(self) -> Path:
        """The folder of trainings that have not ended."""
        return self.folder / "resume"

    @property
    def own(self) -> bool:
        """Whether the runs are in the project's own store, not on a team's server."""
        return self.uri == sqlite_address(self.database)

    @property
    def writable(self) -> bool:
        """Whether this user may write to the project's store: SQLite needs its folder, too."""
        if not self.folder.is_dir():
            return os.access(self.root, os.W_OK)
        database = self.folder / "mlflow.db"
        folder = Path(os.path.realpath(database)).parent  # it may be a link to a faster disk
        paths = (self.folder, folder, database, self.folder / "open.lock")
        return all(os.access(path, os.W_OK) for path in paths if path.exists())

    def refuse_read_only(self) -> None:
        """Raise StoreError where the own store is a copy that nobody would see changes of."""
        if self.copy is not None:
            raise StoreError(f"{self.folder} is read-only here; {WRITABLE}")

    def lock(self, name: str) -> FileLock:
        """Return a lock between the processes of this project, freed when its holder ends, however it ends.

        Raises
        ------
        StoreError
            The project is read-only, and the lock is one of those that are held to write.
        """
        if name == "open" and not self.writable:
            return FileLock(_private(f"{name}.lock", self.root))
        if not self.writable:
            raise StoreError(f"{self.folder} is read-only here; {WRITABLE}")
        self.folder.mkdir(exist_ok=True)
        return FileLock(self.folder / f"{name}.lock")


@contextmanager
def opening(place: Place) -> Iterator[None]:
    """Hold the lock under which a store is made, moved along or first connected to.

    Raises
    ------
    StoreError
        Another process holds it for too long.
    """
    lock = place.lock("open")
    try:
        lock.acquire(timeout=OPENING)
    except Timeout:
        raise StoreError(
            f"another segline has been opening {place.folder} for {OPENING} seconds; wait for it, and try again"
        ) from None
    try:
        yield
    finally:
        lock.release()


def locate() -> Place:
    """The store of the project that the working directory belongs to; MLFLOW_TRACKING_URI wins.

    Raises
    ------
    StoreError
        There is no project here, or its path cannot be part of a database's address.
    """
    root = project_root()
    database = root / "mlruns" / "mlflow.db"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(database)
    if uri.startswith("sqlite:///") and Path(uri.removeprefix("sqlite:///")).resolve() == database:
        uri = sqlite_address(database)
    place = Place(root, uri)
    if place.own and (refused := set("%?#") & set(str(root))):
        raise StoreError(f"MLflow cannot keep runs in {root}: rename the folder without {' '.join(sorted(refused))}")
    return place


def project_root() -> Path:
    """The project's folder: DVC_ROOT where DVC sets it, else the nearest folder upward that holds dvc.yaml or .dvc.

    In `dvc exp run --temp` and `--queue` the stages run in a clone, and DVC_ROOT names the main checkout.

    Raises
    ------
    StoreError
        There is no such folder.
    """
    if root := os.environ.get("DVC_ROOT"):
        if not Path(root).is_dir():
            raise StoreError(f"DVC_ROOT = {root!r} is no folder; unset it, or set it to the folder that holds dvc.yaml")
        return Path(root).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() or (folder / ".dvc").is_dir():
            return folder
    raise StoreError(f"neither {here} nor a folder above it holds dvc.yaml or .dvc; run segline inside a project")


def recorded_root(database: Path) -> str | None:
    """The folder for which the addresses in `database` were written; None when it is new or half made.

    Raises
    ------
    StoreError
        It cannot be read, or is in use for too long.
    """
    return _first(database, "SELECT value FROM experiment_tags WHERE key = ?", ROOT_TAG)


def check_schema(database: Path) -> None:
    """Refuse a database that another version of MLflow wrote, before MLflow alters it.

    Raises
    ------
    StoreError
        The message names the command that brings it up to date, or the MLflow that is needed.
    """
    revision = _first(database, "SELECT version_num FROM alembic_version")
    if revision is not None and revision != head():
        raise other_schema(revision, sqlite_address(database), str(database))


def _first(database: Path, query: str, *values: str) -> str | None:
    """The first value that a query finds; None without any, or without the file or the table."""
    if not database.is_file():
        return None
    # To be written to: what a process that was killed had half written is first taken back.
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=PATIENCE)) as connection:
            found = connection.execute(query, values).fetchone()
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):
            return None
        raise explain(error, sqlite_address(database), str(database)) or StoreError(
            f"{database} cannot be read ({error}); see whether you may read and write it and its folder"
        ) from error
    return str(found[0]) if found and found[0] is not None else None


def relocate(database: Path, old: Path, new: Path) -> Path:
    """Rewrite every address below `old` to one below `new`, in one transaction; returns the backup made before.

    MLflow keeps absolute addresses: without this, after a move of the folder models do not load, and new runs write
    into the old place.
    """
    backup = database.with_name(f"mlflow-before-move-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db")
    with (
        closing(sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)) as connection,
        closing(sqlite3.connect(database)) as reader,
        closing(sqlite3.connect(backup)) as copy,
    ):
        connection.execute("BEGIN IMMEDIATE")  # before the backup, which would wait for another writer without end
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
    """Return the address by which SQLAlchemy opens a database."""
    return f"sqlite:///{database}"


def _private(name: str, root: Path) -> Path:
    """A path for a file of this user's that belongs to the project at `root`, outside of it."""
    key = hashlib.md5(str(root).encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()
    return Path(tempfile.gettempdir(), f"segline-{os.getuid()}-{key}-{name}")


def _file(folder: Path) -> str:
    return f"file://{quote(str(folder))}/"
