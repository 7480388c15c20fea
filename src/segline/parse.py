"""Parse YAML and JSON that others may have written: bounded, and whatever goes wrong is one error."""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segline.text import MESSAGE, cut, shown

YAML_SIZE = 2**18  # bytes; ruamel.yaml reads about 50 kB a second
RECORD_SIZE = 2**26  # bytes of a record that segline wrote itself
DATA_SIZE = 2**30  # bytes of annotations; COCO's own are 450 MB
DEPTH = 100  # levels of lists and mappings
NODES = 100_000  # of a YAML document, aliases written out
LARGEST = 2**64  # of whole numbers


class ParseError(ValueError):
    """A document that cannot be used; the message says why, and whoever knows the file's name adds it."""


def read(path: Path, largest: int) -> bytes:
    """Return the content of a regular file.

    Raises
    ------
    ParseError
        The file is larger than `largest` bytes, or is a pipe or a device, which might never end.
    OSError
        The file cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(21, os.strerror(21), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise ParseError("is no regular file; put a file there")
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise ParseError(f"is larger than {_size(largest)}, the most that is read; is this the right file?")
    return content


def from_json(data: bytes | str, *, surrogates: bool = False, loose: bool = False) -> Any:
    """Return what a JSON document says.

    Parameters
    ----------
    loose : allow NaN, infinities and whole numbers of any size, as Python writes them, for a caller that checks each
        number itself and can say where it stands.
    surrogates : allow text with lone surrogates, as Python has file names that are no UTF-8.

    Raises
    ------
    ParseError
        The document is no JSON (RFC 8259; NaN is none), a name occurs twice in an object, a number is larger than
        64 bits, text is no Unicode or holds NUL, or there are more than 100 levels.
    """
    try:
        content = json.loads(data, parse_constant=float if loose else _refuse_constant, object_pairs_hook=_object)
    except ParseError:
        raise
    except RecursionError:
        raise ParseError("lists within lists, too deep to be read") from None
    except (ValueError, MemoryError) as error:
        raise ParseError(f"not valid JSON: {cut(str(error), MESSAGE)}") from error
    _doubt(content, surrogates, LARGEST if not loose else None)
    return content


def from_yaml(data: bytes | str) -> Any:
    """Return what a YAML document says, without any type but YAML's own.

    Raises
    ------
    ParseError
        The document is no YAML, holds a value that its tag does not allow, or exceeds the limits of `from_json`; or
        its aliases, written out, make more than 100,000 values.
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
        raise ParseError(f"not valid YAML: no UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from error
    # Constructors of ruamel.yaml pass on what float(), datetime() and dictionaries raise, and miss attributes.
    except Exception as error:
        raise ParseError(f"not valid YAML: {cut(f'{type(error).__name__}: {error}', MESSAGE)}") from error
    _doubt(content, surrogates=False, largest=LARGEST)
    return content


def _refuse_constant(name: str) -> None:
    raise ParseError(f"not valid JSON: {name} is no number of JSON; write null, or leave the field out")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ParseError(f"not valid JSON: {shown(twice)} is given twice in one object; leave one out")
    return content


def _count(events: Iterator[Any]) -> None:
    """Refuse documents that are too deep or, with their aliases written out, too large, before they are built."""
    from ruamel.yaml import events as kinds

    sizes: dict[str, int] = {}  # values below each anchor, aliases written out
    open_: list[tuple[str | None, int]] = []  # anchor and values of the collections that are not closed yet
    for event in events:
        if isinstance(event, kinds.CollectionStartEvent):
            open_.append((event.anchor, 1))
            if len(open_) > DEPTH:
                raise ParseError("lists within lists, too deep to be read")
            continue
        if isinstance(event, kinds.CollectionEndEvent):
            anchor, size = open_.pop()
        elif isinstance(event, kinds.AliasEvent):
            if event.anchor in (name for name, _ in open_):
                raise ParseError(f"not valid YAML: alias *{cut(event.anchor, 80)} is within what it stands for")
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
            raise ParseError(f"holds more than {NODES:,} values once its aliases are written out; write what is meant")


def _doubt(content: Any, surrogates: bool, largest: int | None) -> None:
    """Refuse what Python holds but files, terminals and 64-bit numbers do not, level by level."""
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > DEPTH:
            raise ParseError("lists within lists, too deep to be read")
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is float or kind is bool or value is None:
                continue
            if kind is str:
                _doubt_text(value, surrogates)
            elif isinstance(value, dict):
                below.extend(value.keys())
                below.extend(value.values())
            elif isinstance(value, list | tuple | set):
                below.extend(value)
            elif kind is int and largest is not None and not -largest < value < largest:
                raise ParseError("a whole number is larger than 64 bits; write the number that is meant")
        level = below


_UNFIT = re.compile("[\x00\ud800-\udfff]")


def _doubt_text(text: str, surrogates: bool) -> None:
    if (found := _UNFIT.search(text)) and not (surrogates and found[0] != "\0" and "\0" not in text):
        raise ParseError(f"the text {shown(text)} holds {shown(found[0])}, which is no character of a text")


def _size(count: int) -> str:
    return f"{count // 2**20} MiB" if count >= 2**20 else f"{count // 2**10} KiB"
