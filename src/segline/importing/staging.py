"""Fill a dataset folder beside its final place; an interrupted import resumes there."""

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
    """Another process is filling the folder; the message names the folder and the way out."""


@contextmanager
def folder(target: Path, key: str) -> Iterator[Path]:
    """Provide a folder to fill, which replaces `target` after success.

    An error removes the folder. If the process is killed or interrupted, the folder stays, and the next call with the
    same `key` continues with its files; another key starts with an empty folder. So each file must be written
    atomically, and existing files need not be written again.

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
    """Hold the lock of `workshop`, a file in that folder; the system releases it when the process ends."""
    if workshop.is_symlink():
        raise BusyError(f"{workshop} is a link, but import fills and empties this folder; remove the link")
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
    """Return the folder to fill; empty it first if it was started with another key."""
    mark, filled = workshop / "key", workshop / name
    if not mark.is_file() or files.read_bytes(mark) != key.encode() or _holds_links(filled):
        files.make_folder(filled)
        files.write_bytes(mark, key.encode())
    filled.mkdir(exist_ok=True)
    return filled


def _holds_links(folder: Path) -> bool:
    """Return whether links in `folder` could redirect written files elsewhere."""
    return folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*"))


def fingerprint(source: Path, used: Iterable[Path], *settings: object) -> str:
    """Return a SHA-256 digest of `settings`, of name, size and time of each file, and of the code of segline.

    Parameters
    ----------
    used : files and folders to include besides those below `source`.
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
    except OSError:  # such as a broken link; reading reports it if the file is needed
        version = "gone"
    digest.update(os.fsencode(path) + b"\0" + version.encode() + b"\n")
