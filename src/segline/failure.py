"""Explain operating system errors, such as a full disk, in one message that names the file and the remedy."""

import errno
from collections.abc import Iterator

from segline.text import MESSAGE, cut, shown

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Messages about a full disk from libraries that hide the error number: SQLite, safetensors, numpy's `tofile`.
FULL_MESSAGES = ("No space left on device", "Disk quota exceeded", "database or disk is full", "requested and")
WRITABLE = "only commands that read can run here; to train, register or promote, copy the project to a writable folder"
AGAIN = "free space on the disk, then repeat the command"


def is_full(error: BaseException) -> bool:
    """Return whether a full disk or an exhausted quota caused `error`. The next write would then fail, too."""
    return any((isinstance(cause, OSError) and cause.errno in FULL) or _says_full(cause) for cause in _causes(error))


def explain(error: BaseException) -> str | None:
    """Return a message about `error` for the user; None if the operating system did not cause the error."""
    if is_full(error):
        named = [cause for cause in _causes(error) if isinstance(cause, OSError)]
        if named:
            reason = named[0].strerror or "No space left on device"
            return f"{_file(named[0])} cannot be written: {reason}; {AGAIN}"
        return f"the disk is full ({cut(' '.join(str(error).split()), MESSAGE)}); {AGAIN}"
    if isinstance(error, UnicodeEncodeError):
        return f"the file name {shown(error.object)} is not valid Unicode and cannot be written; rename the file"
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return f"{_file(error)} is on a read-only file system; {WRITABLE}"
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return f"{_file(error)}: {error.strerror}; the disk or its connection is failing"
    if isinstance(error, PermissionError) and error.filename is not None:
        return f"{_file(error)}: {error.strerror}; check the owner and permissions, or use your own copy"
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
        return f"no temporary folder is writable ({error}); set TMPDIR to a folder with free space"
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
    return any(words in str(error) for words in FULL_MESSAGES)


def _file(error: OSError) -> str:
    name = error.filename2 or error.filename
    return "a file" if name is None else name.decode(errors="surrogateescape") if isinstance(name, bytes) else f"{name}"
