"""registry.jsonl: who was promoted or rolled back, when and why. MLflow keeps no such history."""

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HISTORY = "registry.jsonl"
CHAMPION, PREVIOUS = "champion", "previous"


class RegistryError(ValueError):
    """What the registry cannot do; the message says what to change."""


@dataclass(frozen=True)
class Promotion:
    """One line of registry.jsonl: an alias was given to a version."""

    time: str
    name: str
    alias: str
    version_md5: str
    model_md5: str
    commit: str
    """Its content made the version; "" where none was asked for or none is known."""
    dirty: str
    who: str
    reason: str
    action: str = "promote"
    """promote or rollback"""
    forced: bool = False


def read_history(file: Path) -> list[Promotion]:
    """The lines of registry.jsonl, oldest first.

    Raises
    ------
    RegistryError
        A line is not as segline writes it.
    """
    content = file.read_bytes() if file.is_file() else b""
    # Not splitlines: a reason may hold a line separator of Unicode's, which JSON does not escape.
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    promotions = []
    for number, line in enumerate(lines, start=1):
        try:
            promotions.append(parse(line))
        except (ValueError, TypeError) as error:
            raise RegistryError(f"{file}, line {number}: {error}; restore the line from git") from None
    return promotions


def parse(line: bytes) -> Promotion:
    """What a line says; ValueError or TypeError where it is none of ours."""
    content: dict[str, Any] = json.loads(line)
    return Promotion(**content)


def text(line: Promotion) -> bytes:
    """A line as it is written; what is no text becomes an escape of JSON's."""
    return json.dumps(asdict(line), ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def append(file: Path, line: Promotion) -> None:
    """Write one more line, whole and to the disk, before this returns.

    Raises
    ------
    RegistryError
        It cannot be written; the file is as it was.
    """
    with file.open("a+b", buffering=0) as stream:
        end = stream.tell()
        content = text(line)
        if end and not _ends_line(stream):  # edited by hand
            content = b"\n" + content
        try:
            if stream.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(stream.fileno())
        except OSError as error:
            stream.truncate(end)
            raise RegistryError(
                f"{file} cannot be written ({error.strerror}); make room on the disk: the next promotion or rollback "
                "ends this one first"
            ) from error


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


def _ends_line(stream: Any) -> bool:
    stream.seek(-1, os.SEEK_END)
    return bool(stream.read(1) == b"\n")
