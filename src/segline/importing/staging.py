"""Build a dataset in a temporary folder beside its final path, then move it there. An interrupted import can resume."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from segline import files

PACKAGE = Path(files.__file__).parent
CODE = (PACKAGE / "importing", PACKAGE / "data", PACKAGE / "model")  # these packages determine the result of an import


class BusyError(RuntimeError):
    """Raised if another process is filling the folder; the message names the folder and the remedy."""


@contextmanager
def folder(target: Path, key: str) -> Iterator[Path]:
    """Provide a temporary folder to fill, and move it to `target` after success.

    An error removes the folder. If the process is killed or interrupted, the folder stays. The next call with the same
    `key` continues with the files in the folder, while a call with another key starts with an empty folder. So the
    caller must write each file atomically, and need not write existing files again.

    Raises
    ------
    BusyError
        Another process is filling the folder.
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
    """Lock the folder `workshop` against other processes; the system releases the lock when this process ends."""
    if workshop.is_symlink():
        raise BusyError(f"{workshop} is a link, but `segline import` fills and empties this folder; remove the link")
    workshop.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workshop / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(f"another import of {name} is running; wait until it ends, or choose another --name") from None
    except OSError:
        with suppress(OSError):
            workshop.rmdir()
        raise
    try:
        yield
    finally:
        lock.release()


def _filled(workshop: Path, name: str, key: str) -> Path:
    """Return the folder to fill, emptied if its stored digest differs from `key`, or if the folder contains links."""
    mark, filled = workshop / "key", workshop / name
    if not mark.is_file() or files.read_bytes(mark) != key.encode() or _holds_links(filled):
        files.make_empty_folder(filled)
        files.write_bytes(mark, key.encode())
    filled.mkdir(exist_ok=True)
    return filled


def _holds_links(folder: Path) -> bool:
    """Return whether `folder` is or contains a link; through a link, files would be written outside `folder`."""
    return folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*"))


def fingerprint(source: Path, used: Iterable[Path], *settings: object) -> str:
    """Return a SHA-256 digest that changes if `settings`, a source file or segline's code changes.

    The digest covers the path, the size and the modification time of each file below `source` and in `used`.

    Parameters
    ----------
    used : files and folders to include in addition to the files below `source`.
    """
    digest = hashlib.sha256(repr(settings).encode())
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
        version = f"{state.st_size} {state.st_mtime_ns}"
    except OSError:  # for example, a broken link; reading the file later reports the error
        version = "gone"
    digest.update(os.fsencode(path) + b"\0" + version.encode() + b"\n")
