"""Locate a project's folder and MLflow database; if the project was moved, update the paths in the database."""

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
OPENING = 120  # seconds; maximum time that a process waits while another process opens the store
# All tables and columns in which MLflow keeps absolute paths or URIs of artifacts.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


@dataclass(frozen=True)
class Place:
    """The project folder and the URI of the project's MLflow store.

    ``uri`` is MLFLOW_TRACKING_URI or, if that is not set, the URI of the project's own database ``mlruns/mlflow.db``.
    If the project is read-only, ``copy`` is the folder with a temporary copy of this database.
    """

    root: Path
    uri: str
    copy: Path | None = None

    @property
    def folder(self) -> Path:
        """Folder in the project for MLflow's files."""
        return self.root / "mlruns"

    @property
    def database(self) -> Path:
        """Database of the project's own store."""
        return (self.copy or self.folder) / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """Folder for artifacts in the project's own store."""
        return self.folder / "artifacts"

    @property
    def resume(self) -> Path:
        """Folder for the checkpoints of unfinished training runs."""
        return self.folder / "resume"

    @property
    def own(self) -> bool:
        """True if MLflow runs are kept in the project's own store, not on a team's server."""
        return self.uri == sqlite_address(self.database)

    @property
    def writable(self) -> bool:
        """True if this user may write to the store's database and to the database's folder, where SQLite adds files."""
        if not self.folder.is_dir():
            return os.access(self.root, os.W_OK)
        database = self.folder / "mlflow.db"
        folder = Path(os.path.realpath(database)).parent  # the database may be a link to a faster disk
        paths = (self.folder, folder, database, self.folder / "open.lock")
        return all(os.access(path, os.W_OK) for path in paths if path.exists())

    def refuse_read_only(self) -> None:
        """Raise StoreError if the store is only a temporary copy, because changes to a copy would be lost."""
        if self.copy is not None:
            raise StoreError(f"the folder {self.folder} is read-only for this user; {WRITABLE}")

    def lock(self, name: str) -> FileLock:
        """Return the lock `name` of this project; if the process that holds the lock ends, the lock is released.

        Raises
        ------
        StoreError
            The project is read-only, and `name` is a lock for writing (any lock except ``open``).
        """
        if name == "open" and not self.writable:
            return FileLock(_private(f"{name}.lock", self.root))
        if not self.writable:
            raise StoreError(f"the folder {self.folder} is read-only for this user; {WRITABLE}")
        self.folder.mkdir(exist_ok=True)
        return FileLock(self.folder / f"{name}.lock")


@contextmanager
def opening(place: Place) -> Iterator[None]:
    """Hold the lock that a process needs to create, relocate or open a store.

    Raises
    ------
    StoreError
        Another process has held the lock for more than `OPENING` seconds.
    """
    lock = place.lock("open")
    try:
        lock.acquire(timeout=OPENING)
    except Timeout:
        raise StoreError(
            f"another segline process has been opening the store in {place.folder} for {OPENING} seconds; wait until "
            "that process has finished, and try again"
        ) from None
    try:
        yield
    finally:
        lock.release()


def locate() -> Place:
    """Locate the project that contains the working directory; MLFLOW_TRACKING_URI overrides the project's own store.

    Raises
    ------
    StoreError
        The working directory is in no project, or the project's path has characters that a database URI cannot contain.
    """
    root = project_root()
    database = root / "mlruns" / "mlflow.db"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(database)
    if uri.startswith("sqlite:///") and Path(uri.removeprefix("sqlite:///")).resolve() == database:
        uri = sqlite_address(database)
    place = Place(root, uri)
    if place.own and (refused := set("%?#") & set(str(root))):
        raise StoreError(
            f"MLflow cannot store runs in {root}; rename the folder so that the path contains none of the characters "
            f"{' '.join(sorted(refused))}"
        )
    return place


def project_root() -> Path:
    """Return the folder of the current project.

    If DVC_ROOT is set, it names this folder. Otherwise the folder is searched from the working directory upwards: it is
    the nearest folder that holds dvc.yaml or .dvc.

    In `dvc exp run --temp` and `--queue` the stages run in a clone, and DVC sets DVC_ROOT to the main checkout.

    Raises
    ------
    StoreError
        DVC_ROOT is not a folder, or no folder upwards holds dvc.yaml or .dvc.
    """
    if root := os.environ.get("DVC_ROOT"):
        if not Path(root).is_dir():
            raise StoreError(
                f"the environment variable DVC_ROOT is {root!r}, which is not a folder; unset DVC_ROOT, or set it to "
                "the folder that holds dvc.yaml"
            )
        return Path(root).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() or (folder / ".dvc").is_dir():
            return folder
    raise StoreError(f"neither {here} nor a folder above it holds dvc.yaml or .dvc; run segline inside a project")


def recorded_root(database: Path) -> str | None:
    """Return the project folder recorded in a database; None if the database is new or incomplete.

    Raises
    ------
    StoreError
        The database cannot be read, or another program has locked the database for too long.
    """
    return _first(database, "SELECT value FROM experiment_tags WHERE key = ?", ROOT_TAG)


def check_schema(database: Path) -> None:
    """Check that the database has the schema of the installed MLflow, before MLflow opens and alters the database.

    Raises
    ------
    StoreError
        The schema differs; the message names the command for the upgrade, or asks for a newer MLflow.
    """
    revision = _first(database, "SELECT version_num FROM alembic_version")
    if revision is not None and revision != head():
        raise other_schema(revision, sqlite_address(database), str(database))


def _first(database: Path, query: str, *values: str) -> str | None:
    """Return the first value that a query returns; None if the database file, the table or the row is missing."""
    if not database.is_file():
        return None
    # The database is opened for writing, so that SQLite can roll back a transaction that a killed process left.
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=PATIENCE)) as connection:
            row = connection.execute(query, values).fetchone()
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):
            return None
        raise explain(error, sqlite_address(database), str(database)) or StoreError(
            f"{database} cannot be read ({error}); check that you may read and write this file and its folder"
        ) from error
    return str(row[0]) if row and row[0] is not None else None


def relocate(database: Path, old: Path, new: Path) -> Path:
    """Replace the project folder `old` with `new` in all paths of a database; return the path of a backup.

    The backup is made first. The change is one transaction. MLflow stores absolute paths. Without the change, models
    would not load after a move of the folder, and new runs would be written to the old folder.
    """
    backup = database.with_name(f"mlflow-before-move-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db")
    with (
        closing(sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)) as connection,
        closing(sqlite3.connect(database)) as reader,
        closing(sqlite3.connect(backup)) as copy,
    ):
        connection.execute("BEGIN IMMEDIATE")  # lock first, since the backup would wait for another writer forever
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
    """Return the SQLAlchemy URI of a SQLite database."""
    return f"sqlite:///{database}"


def _private(name: str, root: Path) -> Path:
    """Return the path of a temporary file for this user and the project at `root`."""
    key = files.bytes_md5(str(root).encode(errors="surrogateescape"))
    return Path(tempfile.gettempdir(), f"segline-{os.getuid()}-{key}-{name}")


def _file(folder: Path) -> str:
    return f"file://{quote(str(folder))}/"
