"""The file of a form is extracted byte by byte; charsets, names and types of the form have no effect."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segline.serve.body import MAX_FIELDS, extract_file
from segline.serve.refusals import RefusedError

FORM = "multipart/form-data; boundary=x"


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
def test_a_charset_has_no_effect(charset: str) -> None:
    data = b"a-999999999\xff\x00xn--999"
    field = part(b"a-99999999999999", f"Content-Disposition: form-data; name=a; charset={charset}")
    body = form(field, part(data), part(charset.encode(), "Content-Disposition: form-data; name=_charset_"))
    assert extract_file(body, f"{FORM}; charset={charset}") == data


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
def test_the_name_of_the_file_has_no_effect(name: str) -> None:
    assert extract_file(form(part(b"data", f"Content-Disposition: form-data; name=f; {name}")), FORM) == b"data"


def test_other_headers_of_a_part_have_no_effect() -> None:
    headers = ["content-DISPOSITION: form-data; name=f; filename=a", "Content-Type: text/plain; charset=punycode"]
    headers += ["Content-Transfer-Encoding: base64", "Content-Encoding: gzip"]
    assert extract_file(form(part(b"YQ==", *headers)), FORM) == b"YQ=="


def test_a_form_inside_the_file_is_returned_as_data() -> None:
    inner = b"--y\r\nContent-Disposition: form-data; name=b; filename=b\r\n\r\nx\r\n--y--\r\n"
    assert extract_file(form(part(inner)), FORM) == inner


@given(st.binary(max_size=2000).filter(lambda data: b"\r\n--x" not in data))
def test_any_file_content_is_returned_unchanged(data: bytes) -> None:
    assert extract_file(form(part(b"", "Content-Disposition: form-data; name=a"), part(data)), FORM) == data


def test_content_across_piece_boundaries_is_returned_unchanged() -> None:
    data = b"\r\n-" * 60_000
    assert extract_file(form(part(data)), FORM) == data


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (form(part(b"")), "multipart/form-data", "no boundary"),
        (form(part(b"")), "multipart/form-data; boundary=", "no boundary"),
        (form(part(b"")), 'multipart/form-data; boundary="', "form cannot be read"),
        (form(part(b"")), f"multipart/form-data; boundary={'x' * 2000}", "form cannot be read"),
        (b"", FORM, "has no file"),
        (form(), FORM, "has no file"),
        (form(part(b"", "Content-Disposition: form-data; name=a")), FORM, "has no file"),
        (form(part(b"", "Content-Disposition: form-data; name=a; filename*=UTF-8''a")), FORM, "has no file"),
        (form(part(b""), part(b"")), FORM, "several files"),
        (form(part(b"", "Content-Disposition: attachment; filename=a")), FORM, "Content-Disposition"),
        (form(part(b"", "Content-Disposition: form-data; filename=a")), FORM, "Content-Disposition"),
        (form(part(b"", "Content-Type: image/png")), FORM, "Content-Disposition"),
        (form(*[part(b"", "Content-Disposition: form-data; name=a")] * (MAX_FIELDS + 1)), FORM, "more than 8 fields"),
        (form(part(b"", *["A: b"] * 10_000)), FORM, "form cannot be read"),
        (form(part(b"", "A: " + "b" * 100_000)), FORM, "form cannot be read"),
        (part(b"data"), FORM, "truncated"),
        (form(part(b"data"))[:-5], FORM, "truncated"),
        (b"preamble" * 1000 + form(part(b"data")), FORM, "form cannot be read"),
        (b"\xff" * 1000, FORM, "form cannot be read"),
    ],
)
def test_an_invalid_form_is_refused(body: bytes, content_type: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason) as caught:
        extract_file(body, content_type)
    assert caught.value.status == 400


@given(st.binary(max_size=300), st.text(max_size=30))
def test_random_bytes_are_read_or_refused(body: bytes, suffix: str) -> None:
    for data in (body, b"--x\r\n" + body, form(part(b""))[: len(body)] + body):
        for content_type in (FORM, f"{FORM}{suffix}".encode("latin-1", "replace").decode("latin-1")):
            with suppress(RefusedError):
                assert isinstance(extract_file(data, content_type), bytes)
