"""Read and write registry.jsonl: the history of registrations, promotions and rollbacks. MLflow keeps no such history.

While a promotion is in progress, mlruns/ contains an empty marker file. If the process is killed, the next command
finds the marker file and completes the promotion. Only registry.jsonl says which version has which alias. Therefore
nobody can promote a version, or make a version trusted, by writing into mlruns/.
"""

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from segline import files, names
from segline.text import shown, visible
from segline.track.entries import open_regular

HISTORY = "registry.jsonl"
MARKER = "promotion.json"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
MAX_LINE = 2**16  # bytes; maximum length of a line
MAX_FILE = 2**26  # bytes; maximum size of the file, which is enough for about 200,000 lines
MAX_REASON = 5_000  # characters; maximum length of a reason; one character may need 12 bytes in JSON


class RegistryError(ValueError):
    """Raised if a registry operation is not possible; the message says what to do."""


@dataclass(frozen=True)
class Promotion:
    """One line of registry.jsonl; the line records that a version got an alias.

    The line also makes the version trusted, because segline refuses versions that have no line.
    """

    time: str
    name: str
    alias: str
    """``challenger`` if the action is ``register``, else ``champion``."""
    version_md5: str
    model_md5: str
    commit: str
    """Commit that the version was made from; empty if the commit is not known."""
    dirty: str
    who: str
    reason: str
    action: str = "promote"
    """``register``, ``promote`` or ``rollback``."""
    forced: bool = False


def _is_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _name(text: str) -> str:
    if not names.is_model(text):
        raise ValueError("not a valid name of a registered model")
    return text


def _text(value: object) -> object:
    # JSON such as "\ud800" decodes to a lone surrogate, and a text with a lone surrogate cannot be printed.
    # Therefore lone surrogates are written as escapes.
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


Hex32 = Annotated[str, Field(pattern=r"\A[0-9a-f]{32}\z")]


class _Line(BaseModel):
    """Schema of a line in registry.jsonl."""

    model_config = ConfigDict(extra="forbid", strict=True)

    time: Annotated[str, Field(max_length=64), AfterValidator(_is_time)]
    name: Annotated[str, Field(max_length=256), AfterValidator(_name)]
    alias: Literal["champion", "challenger"]
    version_md5: Hex32
    model_md5: Annotated[str, Field(pattern=r"\A([0-9a-f]{32})?\z")]
    commit: Annotated[str, Field(pattern=r"\A([0-9a-f]{7,64})?\z")]
    dirty: Literal["true", "false", "unknown"]
    who: Annotated[str, Field(max_length=1000), BeforeValidator(_text)]
    reason: Annotated[str, Field(max_length=MAX_LINE), BeforeValidator(_text)]
    action: Literal["register", "promote", "rollback"] = "promote"
    forced: bool = False


def read_history(file: Path) -> list[Promotion]:
    """Read all lines of registry.jsonl, oldest first, and skip empty lines.

    Raises
    ------
    RegistryError
        The file cannot be read, or a line is invalid.
    """
    try:
        with open_regular(file) as stream:
            content = stream.read(MAX_FILE + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RegistryError(f"{file} cannot be read ({error.strerror or error}); restore it from git") from error
    if len(content) > MAX_FILE:
        raise RegistryError(f"{file} is larger than the maximum of {MAX_FILE} bytes; restore it from git")
    promotions = []
    # splitlines() would also split at Unicode line separators, which the field `reason` may contain.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            promotions.append(parse(line))
        except ValueError as error:
            raise RegistryError(f"{file}, line {number}: {error}; {_way_out(line)}") from None
    return promotions


def parse(line: bytes) -> Promotion:
    """Parse a line of registry.jsonl; raise ValueError with a printable message if the line is invalid."""
    if len(line) > MAX_LINE:
        raise ValueError(f"the line has {len(line)} bytes, more than the maximum of {MAX_LINE}")
    try:
        content = json.loads(line.decode(), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid UTF-8 (byte {error.start + 1})") from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not a JSON object ({str(error)[:120]}): {shown(line.decode())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"not a JSON object: {shown(line.decode())}")
    try:
        checked = _Line.model_validate(content)
    except ValidationError as error:
        raise ValueError(_first_problem(error)) from None
    return Promotion(**checked.model_dump())


def text(line: Promotion) -> bytes:
    """Encode a line for registry.jsonl; write lone surrogates as JSON escapes."""
    return json.dumps(asdict(line), ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def append(file: Path, line: Promotion) -> None:
    """Append a line to `file` and flush the file to the disk; after an error the file is unchanged.

    Raises
    ------
    RegistryError
        The line is invalid, or the file cannot be written.
    """
    content = text(line)
    try:
        parse(content)
    except ValueError as error:
        raise RegistryError(
            f"{file} was not changed, because the line to be written would be invalid: {error}"
        ) from None
    try:
        with file.open("a+b", buffering=0) as stream:
            _write(stream, content)
    except OSError as error:
        raise RegistryError(
            f"{file} cannot be written ({error.strerror}); nothing was changed. Make room on the disk, or check your "
            "permissions, and run the command again"
        ) from error


def _write(stream: Any, content: bytes) -> None:
    """Append the content atomically: after an error, cut the file back to its former length."""
    end = stream.tell()
    if end and not _ends_line(stream):  # somebody edited the file and removed the last line break
        content = b"\n" + content
    try:
        if stream.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(stream.fileno())
    except OSError:
        stream.truncate(end)
        raise


def champions(lines: Sequence[Promotion]) -> list[str]:
    """Return the md5s of the present champion and its predecessors, oldest first.

    The last md5 is that of @champion, and the last but one is that of @previous. A promotion appends an md5. A rollback
    to a version removes all md5s after the md5 of this version.
    """
    held: list[str] = []
    for line in lines:
        if line.alias != CHAMPION or (held and held[-1] == line.version_md5):
            continue
        if line.action == "rollback" and line.version_md5 in held:
            while held[-1] != line.version_md5:
                held.pop()
        else:
            held.append(line.version_md5)
    return held


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict from the pairs of a JSON object; raise ValueError if a key is repeated."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is repeated")
    return content


def _first_problem(error: ValidationError) -> str:
    """Describe the first invalid field of a line."""
    first = error.errors(include_url=False)[0]
    field = visible(".".join(str(part) for part in first["loc"]))[:80]
    if first["type"] == "missing":
        return f"the field {field} is missing"
    if first["type"] == "extra_forbidden":
        return f"the field {field} is unknown; a newer segline may have written the line"
    return f"the field {field} = {shown(first['input'])}: {first['msg']}"


def _way_out(line: bytes) -> str:
    if line.startswith((b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||")):
        return "the line is a conflict marker of git; keep the lines of both sides, and delete the markers"
    return "restore the line from git; if it is the last line, and a power cut left it incomplete, delete it"


def _ends_line(stream: Any) -> bool:
    stream.seek(-1, os.SEEK_END)
    return bool(stream.read(1) == b"\n")


def mark_move(folder: Path) -> None:
    """Before a change of the champion, create the marker file in `folder` and flush it to the disk."""
    try:
        (folder / MARKER).write_bytes(b"")
        files.sync(folder / MARKER)
    except OSError as error:
        raise _marker_error(folder, error) from error


def move_is_marked(folder: Path) -> bool:
    """Return whether `folder` has a marker file. The file means that a change of the champion is incomplete."""
    return os.path.lexists(folder / MARKER)


def clear_mark(folder: Path) -> None:
    """After a change of the champion, remove the marker file from `folder`."""
    try:
        (folder / MARKER).unlink(missing_ok=True)
    except OSError as error:
        raise _marker_error(folder, error) from error


def _marker_error(folder: Path, error: OSError) -> RegistryError:
    return RegistryError(
        f"the marker file {folder / MARKER} cannot be changed ({error.strerror}); remove it, or check your permissions"
    )
