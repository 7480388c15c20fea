"""Copy the database of a read-only project, such as an archive, a shared mount or another user's folder."""

import atexit
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from segline.track.creation import BESIDE
from segline.track.faults import PATIENCE, busy, explain
from segline.track.location import Place, sqlite_address

_folders: dict[Path, Path] = {}  # temporary folders by project; they are removed when this process ends


def copied(place: Place) -> Place:
    """Copy the database of `place` to a temporary folder where MLflow may write; return a `Place` for the copy.

    Each process makes only one copy of a project's database, so the process does not see later changes.

    Raises
    ------
    StoreError
        Another program has locked the database, or the database cannot be read.
    """
    if place.folder not in _folders:
        folder = Path(mkdtemp(prefix="segline-read-only-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        database = Path(os.path.realpath(place.database))
        if database.is_file():
            try:
                _copy(database, folder / "mlflow.db")
            except sqlite3.Error as error:
                raise explain(error, place.uri, str(database)) or error from error
        _folders[place.folder] = folder
    target = _folders[place.folder]
    return replace(place, uri=sqlite_address(target / "mlflow.db"), copy=target)


def _copy(database: Path, target: Path) -> None:
    """Copy a database to which other processes may write at the same time."""
    try:
        with (
            closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=PATIENCE)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.execute("BEGIN")
            source.execute(
                "SELECT COUNT(*) FROM sqlite_master"
            )  # if another process writes, this query waits until a timeout; a backup would wait forever
            source.backup(copy)
            return
    except sqlite3.OperationalError as error:
        if busy(error):
            raise
    # A killed process left a journal or write-ahead log. SQLite cannot apply such a file in a read-only folder.
    # Therefore the database is copied with its journal and log, and SQLite applies them to the copy.
    target.unlink(missing_ok=True)
    for ending in ("", *BESIDE[:2]):
        file = database.with_name(database.name + ending)
        if file.is_file():
            copied_file = target.with_name(target.name + ending)
            shutil.copyfile(file, copied_file)
    with closing(sqlite3.connect(target)) as copy:
        copy.execute("SELECT COUNT(*) FROM sqlite_master")
