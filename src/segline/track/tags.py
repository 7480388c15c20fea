"""Read the tags of a version, and validate each value, because anyone can edit tags on MLflow's page."""

import json
import re
from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from segline.track.verdict import Verdict

VERSION_MD5 = "version.md5"
GATE = "gate"
CLASSES = "classes"
FILES = "files.md5"
CODE_FILES = "closure.files"
TABLES = (CLASSES, FILES, CODE_FILES)  # tags whose value is a JSON object; all values in this object are texts
DTYPES = ("uint8", "uint16", "float32")
MAX_CHANNELS = 1024

_TABLE = TypeAdapter(dict[str, str])
_VERDICT = TypeAdapter(Verdict)


def verdict(tags: Mapping[str, str]) -> Verdict | None:
    """Return the verdict stored in the tag ``gate``; None if the tag is missing or invalid."""
    try:
        return _VERDICT.validate_json(tags.get(GATE, ""))
    except ValidationError:
        return None


def interface(classes: Mapping[int, str], channels: int, dtype: str) -> dict[str, str]:
    """Return the tags that describe the input and the output of a model."""
    return {CLASSES: json.dumps(classes), "channels": str(channels), "dtype": dtype}


def table(tags: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the JSON object in the tag `name` (see `TABLES`) as a dict; empty if the tag is missing or invalid."""
    try:
        return _TABLE.validate_json(tags.get(name, ""))
    except ValidationError:
        return {}


def classes(tags: Mapping[str, str]) -> dict[int, str]:
    """Return the class names by class id from the tag ``classes``; empty if the tag is missing or invalid."""
    names = table(tags, CLASSES)
    return {int(number): name for number, name in names.items()} if all(map(_is_number, names)) else {}


def image_form(tags: Mapping[str, str]) -> tuple[int, str] | None:
    """Return the number of channels and the dtype of images that a version accepts; None if a tag is invalid."""
    channels, dtype = tags.get("channels", ""), tags.get("dtype", "")
    valid = _is_number(channels) and 0 < int(channels) <= MAX_CHANNELS and dtype in DTYPES
    return (int(channels), dtype) if valid else None


def is_md5(text: object) -> bool:
    """Return whether a text is an MD5 digest: 32 lower-case hexadecimal digits."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{32}", text, re.ASCII) is not None


def unreadable(tags: Mapping[str, str]) -> list[str]:
    """Return the sorted names of all tags whose values are invalid."""
    names = [name for name in TABLES if name in tags and not table(tags, name) and tags[name].strip() != "{}"]
    names += [CLASSES] if table(tags, CLASSES) and not classes(tags) else []
    names += [GATE] if GATE in tags and verdict(tags) is None else []
    names += [name for name in (VERSION_MD5, "code.md5") if name in tags and not is_md5(tags[name])]
    names += ["channels, dtype"] if {"channels", "dtype"} & set(tags) and image_form(tags) is None else []
    return sorted(names)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) is not None
