"""A dataset folder in the making: interrupted, it waits beside its place until the same command goes on with it."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segline.data import files


@contextmanager
def folder(target: Path, key: str) -> Iterator[Path]:
    """A folder to fill, that becomes `target`, in place of what was there, when all went well.

    An error removes it. Whatever else ends the process leaves it, and the next call with the same `key` is given it
    again; one with another key is given an empty one. So what is filled in has to be written whole or not at all, and
    what is found there needs not be made again.
    """
    workshop = target.with_name(f".{target.name}.partial")
    mark, filled = workshop / "key", workshop / target.name
    if not mark.exists() or files.read_bytes(mark) != key.encode():
        files.make_folder(workshop)
        files.write_bytes(mark, key.encode())
    filled.mkdir(exist_ok=True)
    try:
        yield filled
    except Exception:
        shutil.rmtree(workshop)
        raise
    files.put_in_place(filled, target)
    shutil.rmtree(workshop)


def fingerprint(source: Path, used: Iterable[Path], *said: object) -> str:
    """64 hexadecimal digits that change with what was `said`, and with name, size or time of any file.

    Parameters
    ----------
    used : files and folders that count beside those below `source`.
    """
    digest = hashlib.sha256(repr(said).encode())
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
