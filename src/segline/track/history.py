"""registry.jsonl: which versions were registered, promoted or rolled back, when and why; MLflow keeps no history."""

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from segline import names
from segline.text import shown, visible
from segline.track.entries import open_regular

HISTORY = "registry.jsonl"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
MAX_LINE = 2**16  # bytes
MAX_FILE = 2**26  # bytes; about 200,000 lines
MAX_REASON = 5_000  # characters; JSON may need 12 bytes for each


class RegistryError(ValueError):
    """What the registry cannot do; the message says what to change."""


@dataclass(frozen=True)
class Promotion:
    """One line of registry.jsonl: an alias was given to a version.

    The line says, too, that the version of this md5 is one of ours: only such versions are trusted.
    """

    time: str
    name: str
    alias: str
    """challenger with action register, else champion"""
    version_md5: str
    model_md5: str
    commit: str
    """Its content made the version; "" where none was asked for or none is known."""
    dirty: str
    who: str
    reason: str
    action: str = "promote"
    """register, promote or rollback"""
    forced: bool = False


def _is_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _name(text: str) -> str:
    if not names.is_model(text):
        raise ValueError("is no name of a registered model")
    return text


def _text(value: object) -> object:
    # JSON can escape half a surrogate pair, which cannot be printed.
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


Hex32 = Annotated[str, Field(pattern=r"\A[0-9a-f]{32}\z")]


class _Line(BaseModel):
    """What a line must be like."""

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
    """The lines of registry.jsonl, oldest first; empty lines count as none.

    Raises
    ------
    RegistryError
        The file cannot be read, or a line is not as segline writes it.
    """
    try:
        with open_regular(file) as stream:
            content = stream.read(MAX_FILE + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RegistryError(f"{file} cannot be read ({error.strerror or error}); restore it from git") from error
    if len(content) > MAX_FILE:
        raise RegistryError(f"{file} is larger than {MAX_FILE} bytes, which segline never writes; restore it from git")
    promotions = []
    # Not splitlines: a reason may hold a line separator of Unicode's, which JSON does not escape.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            promotions.append(parse(line))
        except ValueError as error:
            raise RegistryError(f"{file}, line {number}: {error}; {_way_out(line)}") from None
    return promotions


def parse(line: bytes) -> Promotion:
    """What a line says; ValueError, with a message that can be printed, where segline did not write it."""
    if len(line) > MAX_LINE:
        raise ValueError(f"has {len(line)} bytes, more than the {MAX_LINE} that segline writes")
    try:
        content = json.loads(line.decode(), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise ValueError(f"is no UTF-8 (byte {error.start + 1})") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is no JSON object ({str(error)[:120]}): {shown(line.decode())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"is no JSON object: {shown(line.decode())}")
    try:
        checked = _Line.model_validate(content)
    except ValidationError as error:
        raise ValueError(_said(error)) from None
    return Promotion(**checked.model_dump())


def text(line: Promotion) -> bytes:
    """A line as it is written; what is no text becomes an escape of JSON's."""
    return json.dumps(asdict(line), ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def append(file: Path, line: Promotion) -> None:
    """Write one more line, whole and to the disk, before this returns.

    Raises
    ------
    RegistryError
        It cannot be written, or could not be read again; the file is as it was.
    """
    content = text(line)
    try:
        parse(content)
    except ValueError as error:
        raise RegistryError(f"{file}: a line for it would not be valid: {error}") from None
    try:
        with file.open("a+b", buffering=0) as stream:
            _write(stream, content)
    except OSError as error:
        raise RegistryError(
            f"{file} cannot be written ({error.strerror}); nothing was changed: make room on the disk, or see whether "
            "you may write there, and give the command again"
        ) from error


def _write(stream: Any, content: bytes) -> None:
    """Write at the end of a file, all or nothing."""
    end = stream.tell()
    if end and not _ends_line(stream):  # edited by hand
        content = b"\n" + content
    try:
        if stream.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(stream.fileno())
    except OSError:
        stream.truncate(end)
        raise


def champions(lines: Sequence[Promotion]) -> list[str]:
    """The md5s of the versions that a rollback goes back through, @champion's last and @previous's before it.

    A promotion adds its version; a rollback takes away all that came after the version it goes to.
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
    """The object of these pairs, in which a key may come once."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is there twice")
    return content


def _said(error: ValidationError) -> str:
    """What is wrong with the first field that is wrong."""
    first = error.errors(include_url=False)[0]
    field = visible(".".join(str(part) for part in first["loc"]))[:80]
    if first["type"] == "missing":
        return f"{field} is missing"
    if first["type"] == "extra_forbidden":
        return f"{field} is not known; a newer segline may have written it"
    return f"{field} = {shown(first['input'])}: {first['msg']}"


def _way_out(line: bytes) -> str:
    if line.startswith((b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||")):
        return "a merge left its mark: keep the lines of both sides and delete the marks"
    return "restore the line from git; if a power cut left half of it as the last line, delete it"


def _ends_line(stream: Any) -> bool:
    stream.seek(-1, os.SEEK_END)
    return bool(stream.read(1) == b"\n")
