"""A dataset folder in the making: interrupted, it waits beside its place until the same command goes on with it."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from segline import files

PACKAGE = Path(files.__file__).parent
CODE = (PACKAGE / "importing", PACKAGE / "data", PACKAGE / "model")  # the result of an import depends on these rooms


class BusyError(RuntimeError):
    """A folder is being filled by another process; the message says which, and what to do."""


@contextmanager
def folder(target: Path, key: str) -> Iterator[Path]:
    """A folder to fill, that becomes `target`, in place of what was there, when all went well.

    An error removes it. Whatever else ends the process leaves it, and the next call with the same `key` is given it
    again; one with another key is given an empty one. So what is filled in has to be written whole or not at all, and
    what is found there needs not be made again.

    Raises
    ------
    BusyError
        Another process fills it.
    """
    workshop = target.with_name(f".{target.name}.partial")
    with _alone(workshop, target.name):
        try:
            filled = _filled(workshop, target.name, key)
            yield filled
        except Exception:
            shutil.rmtree(workshop, ignore_errors=True)
            raise
        files.put_in_place(filled, target)
        shutil.rmtree(workshop, ignore_errors=True)


@contextmanager
def _alone(workshop: Path, name: str) -> Iterator[None]:
    """Hold the lock of `workshop`, in which it lies and with which it goes; when the process ends, so does its hold."""
    if workshop.is_symlink():
        raise BusyError(f"{workshop} is a link; remove it: an import fills and empties this folder")
    workshop.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workshop / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(f"another import of {name} is going on; wait for its end, or choose another --name") from None
    except OSError:
        with suppress(OSError):
            workshop.rmdir()
        raise
    try:
        yield
    finally:
        lock.release()


def _filled(workshop: Path, name: str, key: str) -> Path:
    """The folder to fill, emptied where it was begun with another key."""
    mark, filled = workshop / "key", workshop / name
    if not mark.is_file() or files.read_bytes(mark) != key.encode() or _holds_links(filled):
        files.make_folder(filled)
        files.write_bytes(mark, key.encode())
    filled.mkdir(exist_ok=True)
    return filled


def _holds_links(folder: Path) -> bool:
    """Whether anything written to `folder` could land elsewhere."""
    return folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*"))


def fingerprint(source: Path, used: Iterable[Path], *said: object) -> str:
    """64 hexadecimal digits that change with what was `said`, with name, size or time of any file, and with our code.

    Parameters
    ----------
    used : files and folders that count beside those below `source`.
    """
    digest = hashlib.sha256(repr(said).encode())
    for module in sorted(file for folder in CODE for file in folder.rglob("*.py")):
        digest.update(files.read_bytes(module))
    for path in _below(source):
        _add(digest, path)
    for path in sorted(set(used)):
        _add(digest, path)
    return digest.hexdigest()


def _below(source: Path) -> Iterator[Path]:
    for path, folders, names in os.walk(source):
        folders.sort()
        yield from (Path(path) / name for name in sorted(names))


def _add(digest: "hashlib._Hash", path: Path) -> None:
    try:
        state = path.stat()
        seen = f"{state.st_size} {state.st_mtime_ns}"
    except OSError:  # a link that leads nowhere, say; whether it is needed, reading will tell
        seen = "gone"
    digest.update(os.fsencode(path) + b"\0" + seen.encode() + b"\n")
