"""JSON with long base64 strings: parsing in small steps equals json.loads and base64."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segline.serve import base64_json
from segline.serve.base64_json import Document
from segline.serve.refusals import RefusedError

DATA = bytes(range(256)) * 30
BASE64 = base64.b64encode(DATA).decode()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base64_json, "PIECE", 1000)


def decode(string: str) -> bytes:
    """Decode a base64 string, written as in JSON."""
    document = Document(b'{"inputs": ["' + string.encode() + b'"]}')
    data = document.decode(document.content["inputs"][0])
    assert data is not None
    return data


@pytest.mark.parametrize("blank", ["", "\\n", " ", "\\u000a", "\\r\\n  ", "\\t"])
def test_blanks_in_a_long_string_are_skipped(blank: str) -> None:
    assert decode(blank.join(BASE64[start : start + 76] for start in range(0, len(BASE64), 76))) == DATA


def test_escapes_are_decoded() -> None:
    assert decode(BASE64.replace("/", "\\/")) == DATA
    assert decode("".join(f"\\u{ord(letter):04x}" for letter in BASE64)) == DATA


@pytest.mark.parametrize("size", range(4090, 4110))
def test_strings_around_the_limit_of_long_strings_are_decoded(size: int) -> None:
    data = DATA[: size * 3 // 4]
    document = Document(json.dumps([base64.b64encode(data).decode()]).encode())
    (entry,) = document.content
    decoded = document.decode(entry)
    assert (base64.b64decode(entry) if decoded is None else decoded) == data


@pytest.mark.parametrize(
    "string",
    [
        "!" + BASE64,
        BASE64 + "A",
        BASE64[:1000] + "=" + BASE64[1000:],
        BASE64[:1000] + "==" + BASE64[1000:],
        BASE64 + "=====",
        BASE64[:-1],
        BASE64 + "\\ud800",
        BASE64 + "\\x",
        BASE64 + "é",
        BASE64 + "\n",
        BASE64 + "\\\\",
        BASE64 + '\\"',
        BASE64 + "#",
    ],
)
def test_invalid_base64_is_refused(string: str) -> None:
    with pytest.raises(ValueError):
        decode(string)


def test_a_string_is_returned_only_once() -> None:
    document = Document(f'["{BASE64}", "#0", "#1", "#-1", "#"]'.encode())
    assert [document.decode(entry) for entry in document.content] == [DATA, None, None, None, None]


def test_several_long_strings_are_kept_apart() -> None:
    reverse = base64.b64encode(DATA[::-1]).decode()
    content: dict[str, Any] = {'a"\\': [BASE64, 'short "text"', reverse], "b\\": {"c": 1}, "\\\\": None}
    document = Document(json.dumps(content).encode())
    first, short, second = document.content['a"\\']
    assert (document.decode(first), document.decode(short), document.decode(second)) == (DATA, None, DATA[::-1])
    assert {name: value for name, value in document.content.items() if name != 'a"\\'} == {
        "b\\": {"c": 1},
        "\\\\": None,
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.text('"\\/a', max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.booleans())
def test_json_with_short_strings_equals_json_loads(value: Any, ascii_only: bool) -> None:
    value = json.loads(json.dumps(value, ensure_ascii=True).encode())
    try:
        body = json.dumps(value, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:  # half a surrogate pair
        body = json.dumps(value).encode()
    assert Document(body).content == value


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (json.dumps({"a": 1}).encode("utf-16"), 400, "not valid JSON"),
        (json.dumps({"a": 1}).encode("utf-32-be"), 400, "not valid JSON"),
        (b'{"a": "\xff"}', 400, "not valid JSON"),
        (b'"' + b"\\" * 10_000 + b'"', 400, "backslashes in a row"),
        (b'"' * 500_000, 413, "more than 100000 parts"),
        (b'"' + b"A" * 10_000, 400, "not valid JSON"),
        (b"1" * 9_000_000, 413, "apart from its base64 strings"),
    ],
)
def test_invalid_json_is_refused(body: bytes, status: int, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason) as caught:
        Document(body)
    assert caught.value.status == status


def test_a_byte_order_mark_is_skipped() -> None:
    assert Document(b"\xef\xbb\xbf{}").content == {}


@given(st.binary(max_size=3000))
def test_encode_equals_base64(data: bytes) -> None:
    assert b"".join(base64_json.encode(data)) == base64.b64encode(data)
