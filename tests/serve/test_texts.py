"""JSON with long base64 texts: what json.loads and base64 make of it is what comes out of the small steps."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segline.serve import texts
from segline.serve.refused import RefusedError
from segline.serve.texts import Document

DATA = bytes(range(256)) * 30
TEXT = base64.b64encode(DATA).decode()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "PIECE", 1000)


def decoded(text: str | bytes) -> bytes:
    """The bytes of a text, as it stands in JSON."""
    raw = text if isinstance(text, bytes) else text.encode()
    document = Document(b'{"inputs": ["' + raw + b'"]}')
    found = document.decode(document.content["inputs"][0])
    assert found is not None
    return found


@pytest.mark.parametrize("blank", ["", "\\n", " ", "\\u000a", "\\r\\n  ", "\\t"])
def test_a_long_text_with_blanks(blank: str) -> None:
    assert decoded(blank.join(TEXT[start : start + 76] for start in range(0, len(TEXT), 76))) == DATA


def test_escapes_are_read() -> None:
    assert decoded(TEXT.replace("/", "\\/")) == DATA
    assert decoded("".join(f"\\u{ord(letter):04x}" for letter in TEXT)) == DATA


@pytest.mark.parametrize("size", range(4090, 4110))
def test_sizes_around_the_limit(size: int) -> None:
    data = DATA[: size * 3 // 4]
    document = Document(json.dumps([base64.b64encode(data).decode()]).encode())
    (entry,) = document.content
    found = document.decode(entry)
    assert (base64.b64decode(entry) if found is None else found) == data


@pytest.mark.parametrize(
    "text",
    [
        "!" + TEXT,
        TEXT + "A",
        TEXT[:1000] + "=" + TEXT[1000:],
        TEXT[:1000] + "==" + TEXT[1000:],
        TEXT + "=====",
        TEXT[:-1],
        TEXT + "\\ud800",
        TEXT + "\\x",
        TEXT + "é",
        TEXT + "\n",
        TEXT + "\\\\",
        TEXT + '\\"',
        TEXT + "#",
    ],
)
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(ValueError):
        decoded(text)


def test_no_text_is_given_twice() -> None:
    document = Document(f'["{TEXT}", "#0", "#1", "#-1", "#"]'.encode())
    assert [document.decode(entry) for entry in document.content] == [DATA, None, None, None, None]


def test_a_document_with_several_texts() -> None:
    other = base64.b64encode(DATA[::-1]).decode()
    content: dict[str, Any] = {'a"\\': [TEXT, 'short "text"', other], "b\\": {"c": 1}, "\\\\": None}
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
def test_short_texts_are_read_as_json_does(value: Any, ascii_only: bool) -> None:
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
        (b"1" * 9_000_000, 413, "beside its base64 texts"),
    ],
)
def test_what_is_refused(body: bytes, status: int, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason) as caught:
        Document(body)
    assert caught.value.status == status


def test_a_byte_order_mark_is_passed_over() -> None:
    assert Document(b"\xef\xbb\xbf{}").content == {}


@given(st.binary(max_size=3000))
def test_encode(data: bytes) -> None:
    assert b"".join(texts.encode(data)) == base64.b64encode(data)
