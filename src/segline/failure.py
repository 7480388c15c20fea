"""Explain failures of the machine, such as a full disk, in one message that names the file and the way out."""

import errno
from collections.abc import Iterator

from segline.text import MESSAGE, cut, shown

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What libraries say that hide the number of the error: SQLite, safetensors, numpy's `tofile`.
FULL_SAID = ("No space left on device", "Disk quota exceeded", "database or disk is full", "requested and")
WRITABLE = (
    "commands that only read work; to train, register or promote, copy the project to a folder that you may write to"
)
AGAIN = "make room on the disk, then give the command again"


def is_full(error: BaseException) -> bool:
    """Whether a full disk or a quota is behind `error`: what is tried next would fail, too."""
    return any((isinstance(cause, OSError) and cause.errno in FULL) or _says_full(cause) for cause in _causes(error))


def explain(error: BaseException) -> str | None:
    """Return the message for `error`; None where it is none of the machine's failures, but a mistake of ours."""
    if is_full(error):
        named = [cause for cause in _causes(error) if isinstance(cause, OSError)]
        if named:
            reason = named[0].strerror or "No space left on device"
            return f"{_file(named[0])} cannot be written: {reason}; {AGAIN}"
        return f"the disk is full ({cut(' '.join(str(error).split()), MESSAGE)}); {AGAIN}"
    if isinstance(error, UnicodeEncodeError):
        return f"the name {shown(error.object)} is no Unicode and cannot be written; rename the file that is called so"
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return f"{_file(error)} is on a read-only file system; {WRITABLE}"
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return f"{_file(error)}: {error.strerror}; the disk or its connection fails"
    if isinstance(error, PermissionError) and error.filename is not None:
        return f"{_file(error)}: {error.strerror}; see who owns it, or use a copy of your own"
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
        return f"no temporary folder can be written to ({error}); set TMPDIR to a folder with free space"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{_file(error)}: {error.strerror}"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _says_full(error: BaseException) -> bool:
    return any(words in str(error) for words in FULL_SAID)


def _file(error: OSError) -> str:
    name = error.filename2 or error.filename
    return "a file" if name is None else name.decode(errors="surrogateescape") if isinstance(name, bytes) else f"{name}"
