"""Read a folder that other users may write to; report links, FIFOs and devices, but never open them."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CACHE = "a bytecode cache"
CACHES = ("__pycache__",)
BYTECODE = (".pyc", ".pyo")
DEEPEST = 32  # maximum depth of nested folders; os.fwalk keeps all folders above the current one open
KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
Read = Callable[[str, BinaryIO], None]


def visit(folder: Path, read: Read) -> dict[str, str]:
    """Call `read` with path and stream of each regular file; return the types of all other entries, such as links.

    Bytecode caches are neither read nor entered. Folders are opened by descriptor. Therefore, if somebody
    replaces a folder with a link meanwhile, the link is not followed.

    Returns
    -------
    Dict from the path relative to `folder` to the type of the entry. The type is a bytecode cache, a link, a FIFO, a
    socket, a device, an empty folder, or a folder nested too deeply.

    Raises
    ------
    OSError
        A folder or a file cannot be read.
    """
    others: dict[str, str] = {}
    for place, folders, names, descriptor in os.fwalk(folder, onerror=_raise):
        here = Path(place).relative_to(folder)
        if len(here.parts) > DEEPEST:
            others[here.as_posix()] = "a folder nested too deeply"
            folders[:] = []
            continue
        if not folders and not names and here != Path():
            others[here.as_posix()] = "an empty folder"
        for name in sorted(folders + names):
            path = (here / name).as_posix()
            mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            if name in CACHES or (name.endswith(BYTECODE) and stat.S_ISREG(mode)):
                others[path] = CACHE
            elif stat.S_ISREG(mode):
                with open_regular(name, descriptor) as stream:
                    read(path, stream)
            elif not stat.S_ISDIR(mode):
                others[path] = KINDS.get(stat.S_IFMT(mode), "not a file")
        folders[:] = sorted(name for name in folders if name not in CACHES)
    return others


@contextmanager
def open_regular(name: str | Path, folder: int | None = None) -> Iterator[BinaryIO]:
    """Open the regular file `name` for reading, but follow no link; `folder` is the descriptor of the file's folder.

    Raises
    ------
    OSError
        The file cannot be read, or is not a regular file.
    """
    # Without O_NONBLOCK, opening a FIFO that has no writer would block forever.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{name} is not a regular file")
        yield stream


def _raise(error: OSError) -> None:
    raise error
