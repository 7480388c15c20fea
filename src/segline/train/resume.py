"""Manage the folders of unfinished training runs: one folder for each combination of settings, data and code."""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

from pydantic import StringConstraints

from segline import files

PARTS = "parts.json"
LOCK = "lock"
RUN = "run.json"
FINISHED = "finished.json"
POLL_INTERVAL = 0.2  # seconds between two attempts to lock
OTHERS = 3  # number of other unfinished training runs whose folders are kept
Word = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,64}$")]
SHOWN = 3  # number of differences listed in a message


@dataclass
class Claim:
    """Folder that this process has locked for a training run. The names and values in `parts` form the resume key."""

    folder: Path
    parts: Mapping[str, str]

    @property
    def key(self) -> str:
        """Resume key, which is also the name of the folder: MD5 of all names and values in `parts`."""
        return self.folder.name

    @property
    def run(self) -> str | None:
        """Id of the MLflow run that records this training; None if this MLflow run has not started yet."""
        return self._record(RUN, "run", "the training then gets a new run")

    @run.setter
    def run(self, run: str) -> None:
        files.write_json(self.folder / RUN, {"run": run})

    @property
    def finished(self) -> str | None:
        """MD5 of the trained model; None until the training has finished."""
        return self._record(FINISHED, "model", "the training then resumes")

    def _record(self, name: str, field: str, otherwise: str) -> str | None:
        """Return the value of `field` in the JSON file `name`; None if there is no file.

        Raises
        ------
        FileError
            The file is damaged.
        """
        file = self.folder / name
        if not file.exists():
            return None
        record = files.read_record(file, dict[str, Word], f"remove this file; {otherwise}")
        return record.get(field)

    def finish(self, model_md5: str, keep: bool) -> None:
        """If `keep` is set, record the end of the training and the MD5 of its model; else clear the folder."""
        if keep:
            files.write_json(self.folder / FINISHED, {"model": model_md5})
        else:
            self.clear()

    def clear(self) -> None:
        """Remove everything from the folder of a finished training run, except parts.json and the lock file."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in (PARTS, LOCK):
                path.unlink()

    def differences(self) -> str | None:
        """Describe how this run differs from the latest of the other unfinished runs; None if there are no others."""
        former = next((parts for folder in _unfinished(self.folder.parent) if (parts := self._parts_of(folder))), None)
        if former is None:
            return None
        names = sorted(name for name in {*former, *self.parts} if former.get(name) != self.parts.get(name))
        texts = [f"{name} ({former.get(name, 'none')} before)" for name in names[:SHOWN]]
        return ", ".join([*texts, f"{len(names) - SHOWN} more"] if len(names) > SHOWN else texts)

    def _parts_of(self, folder: Path) -> Mapping[str, str] | None:
        """Return the content of parts.json in `folder`; None for this run's own folder, or if reading fails."""
        if folder == self.folder:
            return None
        try:
            return files.read_record(folder / PARTS, dict[str, str], "")
        except files.FileError:
            return None

    def prune(self) -> None:
        """Remove the folders of other training runs.

        Locked folders stay. The latest `OTHERS` + 1 unfinished folders also stay; one of them may be this run's own.
        """
        others = [folder for folder in _claims(self.folder.parent) if folder != self.folder]
        for folder in set(others) - set(_unfinished(self.folder.parent)[: OTHERS + 1]):
            if lock := _lock(folder):
                with lock:
                    _remove(folder)


@contextmanager
def claim(root: Path, parts: Mapping[str, str], say: Callable[[str], None]) -> Iterator[Claim]:
    """Lock the folder of a training run in `root`. The names and values in `parts` form the resume key of the run.

    If another process holds the lock, call `say` once and wait. That process may be stopping, or training the same
    model.
    """
    content = "".join(f"{name} {value}\n" for name, value in sorted(parts.items()))
    folder = root / files.bytes_md5(content.encode())
    waiting = False
    while (lock := _lock(folder)) is None:
        if not waiting:
            say(f"another process trains with the same settings and data; waiting until it ends (folder {folder})")
        waiting = True
        time.sleep(POLL_INTERVAL)
    with lock:
        files.write_json(folder / PARTS, dict(sorted(parts.items())))
        yield Claim(folder, parts)
        if {path.name for path in folder.iterdir()} <= {PARTS, LOCK}:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder that this process has locked.

    The lock file is removed last: as soon as it is gone, another process may claim the folder with its content.
    """
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    (folder / LOCK).unlink()
    with suppress(OSError):  # another process has already claimed or removed the folder
        folder.rmdir()


def _claims(root: Path) -> Iterator[Path]:
    """Yield the folders of training runs in `root`; skip other files and folders."""
    for path in root.iterdir():
        if re.fullmatch("[0-9a-f]{32}", path.name) and path.is_dir() and not path.is_symlink():
            yield path


def _unfinished(root: Path) -> list[Path]:
    """List the folders of training runs that can be resumed, latest first; skip folders that disappear meanwhile."""
    times = {}
    for folder in _claims(root):
        with suppress(FileNotFoundError):
            if any(folder.glob("epoch-*")) and not (folder / FINISHED).exists():
                times[folder] = folder.stat().st_mtime
    return sorted(times, key=lambda folder: times[folder], reverse=True)


def _lock(folder: Path) -> IO[str] | None:
    """Create `folder` if needed and lock it; return the open lock file, or None if another process holds the lock.

    A POSIX lock is released when its process ends, even by a kill, and forked workers do not inherit it.
    """
    while True:
        with suppress(FileExistsError):  # even `exist_ok` fails if the folder is removed meanwhile
            folder.mkdir(parents=True)
        with suppress(FileNotFoundError), ExitStack() as opened:
            stream = opened.enter_context((folder / LOCK).open("w"))
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            # Try again if another process removed the folder and its lock file before this process got the lock.
            if os.path.samestat(os.fstat(stream.fileno()), (folder / LOCK).stat()):
                opened.pop_all()
                return stream
