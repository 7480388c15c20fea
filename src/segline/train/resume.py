"""Where an unfinished training is kept until it goes on: one folder for all that shapes its result."""

import fcntl
import hashlib
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
WAIT = 0.2  # seconds between two looks at a lock
OTHERS = 3  # unfinished trainings of other settings that are kept, the latest
Word = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,64}$")]
SHOWN = 3  # differences that are named


@dataclass
class Claim:
    """A folder that no other process uses, and what its content follows from, by name."""

    folder: Path
    parts: Mapping[str, str]

    @property
    def key(self) -> str:
        """The md5 of the parts."""
        return self.folder.name

    @property
    def run(self) -> str | None:
        """Id of the run that belongs to the training."""
        return self._record(RUN, "run", "a run of its own begins")

    @run.setter
    def run(self, run: str) -> None:
        files.write_json(self.folder / RUN, {"run": run})

    @property
    def finished(self) -> str | None:
        """MD5 of the model that the training ended with, where it came to its end."""
        return self._record(FINISHED, "model", "the training is gone on with")

    def _record(self, name: str, field: str, otherwise: str) -> str | None:
        """The one field of a file; FileError where it is damaged."""
        file = self.folder / name
        if not file.exists():
            return None
        found = files.read_record(file, dict[str, Word], f"remove it, and {otherwise}")
        return found.get(field)

    def finish(self, model_md5: str, keep: bool) -> None:
        """Note that the training came to its end with this model; where need be, `keep` what it was made from."""
        if keep:
            files.write_json(self.folder / FINISHED, {"model": model_md5})
        else:
            self.clear()

    def clear(self) -> None:
        """Remove what is in the folder: it is finished."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in (PARTS, LOCK):
                path.unlink()

    def others(self) -> str | None:
        """What sets the latest unfinished training of other settings apart, in words; None where there is none."""
        former = next((parts for folder in _kept(self.folder.parent) if (parts := self._others(folder))), None)
        if former is None:
            return None
        names = sorted(name for name in {*former, *self.parts} if former.get(name) != self.parts.get(name))
        said = [f"{name} ({former.get(name, 'none')} before)" for name in names[:SHOWN]]
        return ", ".join([*said, f"{len(names) - SHOWN} more"] if len(names) > SHOWN else said)

    def _others(self, folder: Path) -> Mapping[str, str] | None:
        """What another training follows from; None of this one, and of one that is being removed at this moment."""
        if folder == self.folder:
            return None
        try:
            return files.read_record(folder / PARTS, dict[str, str], "")
        except files.FileError:
            return None

    def prune(self) -> None:
        """Remove all but the latest few unfinished trainings of other settings; what runs just now stays."""
        others = [folder for folder in _claims(self.folder.parent) if folder != self.folder]
        for folder in set(others) - set(_kept(self.folder.parent)[: OTHERS + 1]):
            if lock := _lock(folder):
                with lock:
                    _remove(folder)


@contextmanager
def claim(root: Path, parts: Mapping[str, str], say: Callable[[str], None]) -> Iterator[Claim]:
    """The folder below `root` for a training that follows from `parts`, for this process alone.

    A process that has it is waited for, and `say` is told: it may be about to leave, or train the same elsewhere.
    """
    content = "".join(f"{name} {value}\n" for name, value in sorted(parts.items()))
    folder = root / hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
    said = False
    while (lock := _lock(folder)) is None:
        if not said:
            say(f"another process trains by the same settings and data; waiting for its end ({folder})")
        said = True
        time.sleep(WAIT)
    with lock:
        files.write_json(folder / PARTS, dict(sorted(parts.items())))
        yield Claim(folder, parts)
        if {path.name for path in folder.iterdir()} <= {PARTS, LOCK}:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder whose lock this process has.

    The lock goes last, for without it another process may have the folder at once, with all that is still there.
    """
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    (folder / LOCK).unlink()
    with suppress(OSError):  # the next one has made its lock there already, or removed it with the folder
        folder.rmdir()


def _claims(root: Path) -> Iterator[Path]:
    """The folders of trainings; what else lies beside them is left alone."""
    for path in root.iterdir():
        if re.fullmatch("[0-9a-f]{32}", path.name) and path.is_dir() and not path.is_symlink():
            yield path


def _kept(root: Path) -> list[Path]:
    """Folders that can be gone on from, the latest first; other processes may remove some meanwhile."""
    found = {}
    for folder in _claims(root):
        with suppress(FileNotFoundError):
            if any(folder.glob("epoch-*")) and not (folder / FINISHED).exists():
                found[folder] = folder.stat().st_mtime
    return sorted(found, key=lambda folder: found[folder], reverse=True)


def _lock(folder: Path) -> IO[str] | None:
    """The open lock of `folder`, which is made where it is not there; None where another process has it.

    A lock of POSIX ends with its process, however that ends, and the workers that it has forked do not share it.
    """
    while True:
        with suppress(FileExistsError):  # `exist_ok` looks whether it is a folder, and fails where it is gone by then
            folder.mkdir(parents=True)
        with suppress(FileNotFoundError), ExitStack() as opened:
            stream = opened.enter_context((folder / LOCK).open("w"))
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            # Whoever had it may have removed the folder in the meantime, and this file with it.
            if os.path.samestat(os.fstat(stream.fileno()), (folder / LOCK).stat()):
                opened.pop_all()
                return stream
