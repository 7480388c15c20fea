"""Read registry.jsonl after git, a merge, an editor or an attacker: accepted, or refused with file and line."""

import json
import os
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segline.track.history import (
    MAX_FILE,
    MAX_LINE,
    MAX_REASON,
    Promotion,
    RegistryError,
    append,
    parse,
    read_history,
    text,
)

LINE = Promotion(
    "2026-01-01T00:00:00+00:00", "cells", "champion", "a" * 32, "b" * 32, "c" * 40, "false", "Ada", "first"
)
WRONG: dict[str, list[Any]] = {
    "time": [7, None, "yesterday", "2" * 5000, ["x"]],
    "name": [7, None, "", " ", "../../x", "a:b", 'it\'s "v1"', "\x1b]0;pwn\x07", "a\nb", "x" * 300],
    "alias": ["previous", "x", "", ["x"], None],
    "version_md5": ["x' OR 1=1", 7, None, ["a"], "A" * 32, "a" * 31, "a" * 32 + "\n", "\u0661" * 32, ""],
    "model_md5": [7, "--output=/tmp/x", "b" * 33, None],
    "commit": ["--upload-pack=x", "-x", "HEAD", "c" * 65, 7, None],
    "dirty": ["maybe", False, None],
    "who": [7, ["x"], "x" * 2000, None],
    "reason": [7, None, {"a": 1}],
    "action": ["delete", "", 7, None],
    "forced": ["true", 1, None],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "registry.jsonl"


def refused(file: Path) -> str:
    """Return the message about a file whose second line is invalid."""
    with pytest.raises(RegistryError) as raised:
        read_history(file)
    message = str(raised.value)
    assert message.startswith(f"{file}, line 2: ")
    assert message.isprintable() and len(message) < len(str(file)) + 500
    return message


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_an_invalid_value_is_refused_with_file_line_and_field(file: Path, field: str, value: Any) -> None:
    file.write_bytes(text(LINE) + json.dumps({**asdict(LINE), field: value}).encode() + b"\n" + text(LINE))
    assert f"the field {field} = " in refused(file)


@pytest.mark.parametrize("field", [field for field in WRONG if field not in ("action", "forced")])
def test_a_missing_field_is_named(file: Path, field: str) -> None:
    content = {name: value for name, value in asdict(LINE).items() if name != field}
    file.write_bytes(text(LINE) + json.dumps(content).encode())
    assert f"the field {field} is missing" in refused(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"<<<<<<< HEAD", "keep the lines of both sides"),
        (b"=======", "keep the lines of both sides"),
        (text(LINE)[:100], "delete it"),
        (b"[" * 60_000, "too deeply"),
        (b'{"a":' * 10_000, "too deeply"),
        (b'{"time":' + b"9" * 5000 + b"}", "not a JSON object"),
        (b'{"time": "x", "time": "y"}', "a key is repeated"),
        (b"\xff\xfe", "not valid UTF-8"),
        ("{}".encode("utf-16"), "not valid UTF-8"),
        (b"\xef\xbb\xbf" + text(LINE), "BOM"),
        (b"x" * (MAX_LINE + 1), "bytes, more than"),
        (b'{"\x1b]0;pwn": 1}', "not a JSON object"),
        (json.dumps({**asdict(LINE), "\x1b]0;pwn\x07": 1}).encode(), "is unknown; a newer segline"),
        (b"null", "not a JSON object"),
        (b"7 7", "not a JSON object"),
    ],
)
def test_an_invalid_line_is_refused(file: Path, line: bytes, message: str) -> None:
    file.write_bytes(text(LINE) + line + b"\n" + text(LINE))
    assert message in refused(file)


def test_line_ends_and_empty_lines_of_other_editors_are_read(file: Path) -> None:
    file.write_bytes(text(LINE).replace(b"\n", b"\r\n") + b"\r\n\n  \n" + text(LINE).rstrip())
    assert read_history(file) == [LINE, LINE]


def test_a_lone_surrogate_can_be_printed(file: Path) -> None:
    file.write_bytes(json.dumps({**asdict(LINE), "who": "\ud800", "reason": "\udcfc"}).encode())
    (line,) = read_history(file)
    assert (line.who, line.reason) == ("\\ud800", "\\udcfc")


def fifo(file: Path) -> None:
    os.mkfifo(file)


@pytest.mark.parametrize(
    "make",
    [
        fifo,
        Path.mkdir,
        lambda file: file.symlink_to("/dev/zero"),
        lambda file: os.truncate(touched(file), MAX_FILE + 1),
    ],
    ids=["FIFO", "folder", "link", "huge"],
)
def test_an_unreadable_history_is_refused(file: Path, make: Callable[[Path], object]) -> None:
    make(file)
    with pytest.raises(RegistryError, match=r"registry\.jsonl .* from git"):
        read_history(file)


def touched(file: Path) -> Path:
    file.touch()
    return file


def test_an_invalid_line_is_not_written(file: Path) -> None:
    append(file, replace(LINE, reason="\x00" * MAX_REASON))
    for invalid in (replace(LINE, version_md5="x"), replace(LINE, commit="HEAD"), replace(LINE, reason="x" * MAX_LINE)):
        with pytest.raises(RegistryError, match="would be invalid"):
            append(file, invalid)
    assert len(read_history(file)) == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150)
@given(field=st.sampled_from([*asdict(LINE), "other"]), value=VALUES)
def test_any_value_of_a_field_is_read_or_refused(field: str, value: Any) -> None:
    read_or_refused(json.dumps({**asdict(LINE), field: value}).encode())


@settings(max_examples=150)
@given(at=st.integers(0, len(text(LINE))), cut=st.integers(0, 40), new=st.binary(max_size=40))
def test_any_damaged_line_is_read_or_refused(at: int, cut: int, new: bytes) -> None:
    read_or_refused(text(LINE)[:at] + new + text(LINE)[at + cut :])


def read_or_refused(line: bytes) -> None:
    """Check that a line is read and can be written again, or is refused with a printable message."""
    refusal = ""
    try:
        promotion = parse(line)
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert refusal.isprintable() and len(refusal) < 600
        return
    assert parse(text(promotion)) == promotion
    assert promotion.version_md5.isalnum() and not promotion.commit.startswith("-")
    # Not isprintable(): a name may hold letters that are newer than Python's Unicode tables.
    assert not {unicodedata.category(letter) for letter in promotion.name} & {"Cc", "Cs", "Zl", "Zp"}
    promotion.who.encode()
    promotion.reason.encode()
