"""The file in a form: its bytes, whatever the form says of charsets, names and types."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segline.serve.forms import FIELDS, file_of
from segline.serve.refused import RefusedError

KIND = "multipart/form-data; boundary=x"


def part(data: bytes, *headers: str) -> bytes:
    lines = headers or ('Content-Disposition: form-data; name="file"; filename="a.png"',)
    return b"--x\r\n" + b"".join(line.encode() + b"\r\n" for line in lines) + b"\r\n" + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x--\r\n"


@pytest.mark.parametrize(
    "charset",
    [
        "undefined",
        "punycode",
        "idna",
        "utf-7",
        "utf-16",
        "base64_codec",
        "rot13",
        "zlib_codec",
        "bz2",
        "no-such",
        "",
        "a" * 3000,
        "unicode_escape",
        "raw_unicode_escape",
        "mbcs",
        "hex",
        "../../x",
        "utf-8\x00",
        '"',
    ],
)
def test_a_charset_is_not_used(charset: str) -> None:
    data = b"a-999999999\xff\x00xn--999"
    field = part(b"a-99999999999999", f"Content-Disposition: form-data; name=a; charset={charset}")
    body = form(field, part(data), part(charset.encode(), "Content-Disposition: form-data; name=_charset_"))
    assert file_of(body, f"{KIND}; charset={charset}") == data


@pytest.mark.parametrize(
    "name",
    [
        'filename=""',
        'filename="клетки.png"',
        'filename="a\\"b;c.png"',
        "filename=a.png; filename*=punycode''a-9999999",
        'filename="=?punycode?q?a-999999?="',
        'filename="../../etc/passwd"',
        "filename=" + "a" * 2000,
    ],
)
def test_the_name_of_the_file_is_not_used(name: str) -> None:
    assert file_of(form(part(b"data", f"Content-Disposition: form-data; name=f; {name}")), KIND) == b"data"


def test_other_headers_of_a_part_are_not_used() -> None:
    headers = ["content-DISPOSITION: form-data; name=f; filename=a", "Content-Type: text/plain; charset=punycode"]
    headers += ["Content-Transfer-Encoding: base64", "Content-Encoding: gzip"]
    assert file_of(form(part(b"YQ==", *headers)), KIND) == b"YQ=="


def test_a_form_within_the_file_is_data() -> None:
    inner = b"--y\r\nContent-Disposition: form-data; name=b; filename=b\r\n\r\nx\r\n--y--\r\n"
    assert file_of(form(part(inner)), KIND) == inner


@given(st.binary(max_size=2000).filter(lambda data: b"\r\n--x" not in data))
def test_any_bytes_come_back(data: bytes) -> None:
    assert file_of(form(part(b"", "Content-Disposition: form-data; name=a"), part(data)), KIND) == data


def test_bytes_around_the_pieces_come_back() -> None:
    data = b"\r\n-" * 60_000
    assert file_of(form(part(data)), KIND) == data


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (form(part(b"")), "multipart/form-data", "no boundary"),
        (form(part(b"")), "multipart/form-data; boundary=", "no boundary"),
        (form(part(b"")), 'multipart/form-data; boundary="', "not a readable form"),
        (form(part(b"")), f"multipart/form-data; boundary={'x' * 2000}", "not a readable form"),
        (b"", KIND, "without a file"),
        (form(), KIND, "without a file"),
        (form(part(b"", "Content-Disposition: form-data; name=a")), KIND, "without a file"),
        (form(part(b"", "Content-Disposition: form-data; name=a; filename*=UTF-8''a")), KIND, "without a file"),
        (form(part(b""), part(b"")), KIND, "several files"),
        (form(part(b"", "Content-Disposition: attachment; filename=a")), KIND, "Content-Disposition"),
        (form(part(b"", "Content-Disposition: form-data; filename=a")), KIND, "Content-Disposition"),
        (form(part(b"", "Content-Type: image/png")), KIND, "Content-Disposition"),
        (form(*[part(b"", "Content-Disposition: form-data; name=a")] * (FIELDS + 1)), KIND, "more than 8 fields"),
        (form(part(b"", *["A: b"] * 10_000)), KIND, "not a readable form"),
        (form(part(b"", "A: " + "b" * 100_000)), KIND, "not a readable form"),
        (part(b"data"), KIND, "ends early"),
        (form(part(b"data"))[:-5], KIND, "ends early"),
        (b"preamble" * 1000 + form(part(b"data")), KIND, "not a readable form"),
        (b"\xff" * 1000, KIND, "not a readable form"),
    ],
)
def test_what_is_refused(body: bytes, kind: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason) as caught:
        file_of(body, kind)
    assert caught.value.status == 400


@given(st.binary(max_size=300), st.text(max_size=30))
def test_anything_is_read_or_refused(body: bytes, kind: str) -> None:
    for data in (body, b"--x\r\n" + body, form(part(b""))[: len(body)] + body):
        for content_type in (KIND, f"{KIND}{kind}".encode("latin-1", "replace").decode("latin-1")):
            with suppress(RefusedError):
                assert isinstance(file_of(data, content_type), bytes)
