"""Explain failures of the machine, such as a full disk or too little memory, in one message that names the remedy."""

import errno
from collections.abc import Iterator

from segline.text import MESSAGE, cut, shown

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Messages about a full disk from libraries that hide the error number: SQLite, safetensors, numpy's `tofile`.
FULL_MESSAGES = ("No space left on device", "Disk quota exceeded", "database or disk is full", "requested and")
WRITABLE = "only commands that read can run here; to train, register or promote, copy the project to a writable folder"
AGAIN = "free space on the disk, then repeat the command"
# Messages of torch about too little memory; it raises no MemoryError.
MEMORY_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "Storage size calculation overflowed",
    "multiplication overflow",
)


def is_full(error: BaseException) -> bool:
    """Return whether a full disk or an exhausted quota caused `error`. The next write would then fail, too."""
    return any((isinstance(cause, OSError) and cause.errno in FULL) or _says_full(cause) for cause in _causes(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of the machine or of its GPU was too small."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY_MESSAGES)


def explain(error: BaseException) -> str | None:
    """Return a message about `error` for the user; None if the machine did not cause the error."""
    if is_full(error):
        named = [cause for cause in _causes(error) if isinstance(cause, OSError)]
        if named:
            reason = named[0].strerror or "No space left on device"
            return f"{_file(named[0])} cannot be written: {reason}; {AGAIN}"
        return f"the disk is full ({cut(' '.join(str(error).split()), MESSAGE)}); {AGAIN}"
    if is_out_of_memory(error):
        detail = cut(" ".join(str(error).split()), MESSAGE) or type(error).__name__
        return f"the memory is too small ({detail}); to train, lower train.batch_size, train.tile or model.width"
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
