"""Where the runs are kept: the project's root, its MLflow database, and its addresses after a move of the folder."""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

ROOT_TAG = "segline.root"
# Every column in which MLflow keeps the absolute address of an artifact.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


class StoreError(RuntimeError):
    """The store cannot be found or used; the message says what to do."""


@dataclass(frozen=True)
class Place:
    """Where a project keeps its runs.

    ``uri`` is the project's own ``mlruns/mlflow.db``, or MLFLOW_TRACKING_URI where that names another.
    """

    root: Path
    uri: str

    @property
    def folder(self) -> Path:
        """The folder that MLflow owns."""
        return self.root / "mlruns"

    @property
    def database(self) -> Path:
        """The project's own database."""
        return self.folder / "mlflow.db"

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
        return self.uri == _sqlite(self.database)

    def lock(self, name: str) -> FileLock:
        """A lock between the processes of this project, freed when its holder ends, however it ends."""
        self.folder.mkdir(exist_ok=True)
        return FileLock(self.folder / f"{name}.lock")


def locate() -> Place:
    """The store of the project that the working directory belongs to; MLFLOW_TRACKING_URI wins.

    Raises
    ------
    StoreError
        There is no project here, or its path cannot be part of a database's address.
    """
    root = project_root()
    database = root / "mlruns" / "mlflow.db"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or _sqlite(database)
    if uri.startswith("sqlite:///") and Path(uri.removeprefix("sqlite:///")).resolve() == database:
        uri = _sqlite(database)
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
        It cannot be read.
    """
    if not database.is_file():
        return None
    # To be written to: what a process that was killed had half written is first taken back.
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=60)) as connection:
        try:
            found = connection.execute("SELECT value FROM experiment_tags WHERE key = ?", (ROOT_TAG,)).fetchone()
        except sqlite3.DatabaseError as error:
            if "no such table" in str(error):
                return None
            raise StoreError(f"{database} cannot be read ({error}); restore it from a copy, or move it away") from error
    return found[0] if found else None


def relocate(database: Path, old: Path, new: Path) -> Path:
    """Rewrite every address below `old` to one below `new`, in one transaction; returns the backup made before.

    MLflow keeps absolute addresses: without this, after a move of the folder models do not load, and new runs write
    into the old place.
    """
    backup = database.with_name(f"mlflow-before-move-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db")
    with (
        closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection,
        closing(sqlite3.connect(backup)) as copy,
    ):
        connection.backup(copy)
        connection.execute("BEGIN IMMEDIATE")
        for before, after in ((f"{old}/", f"{new}/"), (_file(old), _file(new))):
            for table, column in ADDRESSES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (after, len(before) + 1, len(before), before),
                )
        connection.execute("UPDATE experiment_tags SET value = ? WHERE key = ?", (str(new), ROOT_TAG))
        connection.execute("COMMIT")
    return backup


def _sqlite(database: Path) -> str:
    return f"sqlite:///{database}"


def _file(folder: Path) -> str:
    return f"file://{quote(str(folder))}/"
