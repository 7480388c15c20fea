"""Parse untrusted YAML and JSON within limits of size and depth. Every invalid document raises ParseError."""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segline.text import MESSAGE, cut, shown

YAML_SIZE = 2**18  # bytes; ruamel.yaml reads about 50 kB a second
RECORD_SIZE = 2**26  # bytes of a file that segline itself writes
DATA_SIZE = 2**30  # bytes of an annotation file; COCO's own files have 450 MB
DEPTH = 100  # levels of lists and mappings
NODES = 100_000  # values of a YAML document after its aliases are expanded
LARGEST = 2**64  # limit of integers

TOO_DEEP = f"nested too deeply: more than {DEPTH} levels of lists and mappings; flatten the document"


class ParseError(ValueError):
    """An invalid document; the message says what is invalid, and the caller adds the file name."""


def read(path: Path, largest: int) -> bytes:
    """Return the content of a file; raise ParseError for more than `largest` bytes, a pipe or a device.

    Raises
    ------
    ParseError
        The file has more bytes than `largest`, or is a pipe or a device. Their content may be endless.
    OSError
        The file cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(handle)
    if stat.S_ISDIR(status.st_mode):  # os.fdopen would name the number of the handle instead of the path
        os.close(handle)
        raise IsADirectoryError(21, os.strerror(21), str(path))
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(status.st_mode):
            raise ParseError("is not a regular file; replace it with a regular file")
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise ParseError(f"is larger than the limit of {_size(largest)}; check that it is the right file")
    return content


def from_json(data: bytes | str, *, surrogates: bool = False, loose: bool = False) -> Any:
    """Return the content of a JSON document.

    Parameters
    ----------
    loose : allow NaN, infinities and integers of any size, for a caller that checks each number itself and can say
        where it is.
    surrogates : allow strings with lone surrogates, Python's form of file names that are not valid UTF-8.

    Raises
    ------
    ParseError
        The document is not valid JSON (RFC 8259, which excludes NaN), or a name occurs twice in an object. Or a number
        is larger than 64 bits, a string is not valid Unicode or contains NUL, or there are more than 100 levels.
    """
    try:
        content = json.loads(data, parse_constant=float if loose else _refuse_constant, object_pairs_hook=_object)
    except ParseError:
        raise
    except RecursionError:
        raise ParseError(TOO_DEEP) from None
    except (ValueError, MemoryError) as error:
        raise ParseError(f"not valid JSON: {cut(str(error), MESSAGE)}") from error
    _check_values(content, surrogates, LARGEST if not loose else None)
    return content


def from_yaml(data: bytes | str) -> Any:
    """Return the content of a YAML document that uses only YAML's own types.

    Raises
    ------
    ParseError
        The document is not valid YAML, or has a value that its tag does not allow. Or the document exceeds the limits
        of `from_json`, or has more than 100,000 values once its aliases are expanded.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        _count(YAML(typ="safe", pure=True).parse(text))
        content = YAML(typ="safe", pure=True).load(text)
    except ParseError:
        raise
    except YAMLError as error:
        raise ParseError(f"not valid YAML: {cut(str(error), MESSAGE)}") from error
    except UnicodeDecodeError as error:
        raise ParseError(
            f"not valid YAML: byte {error.start}, 0x{data[error.start]:02x}, is not valid UTF-8"
        ) from error
    # For some values, ruamel.yaml raises errors other than YAMLError, such as the errors of float() and datetime().
    except Exception as error:
        raise ParseError(f"not valid YAML: {cut(f'{type(error).__name__}: {error}', MESSAGE)}") from error
    _check_values(content, surrogates=False, largest=LARGEST)
    return content


def _refuse_constant(name: str) -> None:
    raise ParseError(f"not valid JSON: JSON has no number {name}; write null, or leave the field out")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ParseError(f"not valid JSON: the key {shown(repeated)} occurs twice in one object; remove one of the two")
    return content


def _count(events: Iterator[Any]) -> None:
    """Raise ParseError if the document is nested too deeply, or has too many values once aliases are expanded.

    The events of the parser suffice for this check, so a document that fails it is never built.
    """
    from ruamel.yaml import events as kinds

    sizes: dict[str, int] = {}  # number of values below each anchor after aliases are expanded
    open_: list[tuple[str | None, int]] = []  # anchor and number of values of each collection that is not closed yet
    for event in events:
        if isinstance(event, kinds.CollectionStartEvent):
            open_.append((event.anchor, 1))
            if len(open_) > DEPTH:
                raise ParseError(TOO_DEEP)
            continue
        if isinstance(event, kinds.CollectionEndEvent):
            anchor, size = open_.pop()
        elif isinstance(event, kinds.AliasEvent):
            if event.anchor in (name for name, _ in open_):
                raise ParseError(
                    f"not valid YAML: alias *{cut(event.anchor, 80)} refers to a value that contains the alias"
                )
            anchor, size = None, sizes.get(event.anchor, 1)
        elif isinstance(event, kinds.ScalarEvent):
            anchor, size = event.anchor, 1
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        if open_:
            open_[-1] = (open_[-1][0], open_[-1][1] + size)
        if size > NODES or (open_ and open_[-1][1] > NODES):
            raise ParseError(f"has more than {NODES:,} values once its aliases are expanded; use fewer aliases")


def _check_values(content: Any, surrogates: bool, largest: int | None) -> None:
    """Raise ParseError for strings with invalid characters, integers above `largest`, and nesting that is too deep."""
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > DEPTH:
            raise ParseError(TOO_DEEP)
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is float or kind is bool or value is None:
                continue
            if kind is str:
                _check_string(value, surrogates)
            elif isinstance(value, dict):
                below.extend(value.keys())
                below.extend(value.values())
            elif isinstance(value, list | tuple | set):
                below.extend(value)
            elif kind is int and largest is not None and not -largest < value < largest:
                raise ParseError("an integer is larger than 64 bits; correct the number")
        level = below


_UNFIT = re.compile("[\x00\ud800-\udfff]")


def _check_string(text: str, surrogates: bool) -> None:
    if (match := _UNFIT.search(text)) and not (surrogates and match[0] != "\0" and "\0" not in text):
        raise ParseError(
            f"the string {shown(text)} contains {shown(match[0])}, which is not a valid character; remove the character"
        )


def _size(count: int) -> str:
    return f"{count // 2**20} MiB" if count >= 2**20 else f"{count // 2**10} KiB"
