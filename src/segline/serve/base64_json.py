"""Parse and write JSON with long base64 strings in small steps, so that other requests are not blocked.

json.loads and base64 of 64 MB hold Python's lock (GIL) for 0.1 to 1 s, during which no other request is answered.
Therefore the long strings are cut out first, the rest is parsed as usual, and the strings are decoded piece by piece.
"""

import base64
import binascii
import json
from typing import Any

from segline.serve.refusals import RefusedError

MAX_PARTS = 100_000  # total of objects, lists and entries in a request; base64 has no braces, brackets or commas
LONG_STRING = 4096  # bytes; longer strings are cut out before parsing
MAX_SKELETON = 8_000_000  # bytes of JSON without the strings that were cut out
PIECE = 2**18  # characters decoded at once
MAX_BACKSLASHES = 64  # consecutive backslashes in a string; base64 has none


class Document:
    """JSON document whose long strings were cut out; `content` has a placeholder, such as ``#0``, for each string."""

    def __init__(self, body: bytes | bytearray) -> None:
        """Parse the JSON in `body`, and cut out the long strings.

        Raises
        ------
        RefusedError
            The body is not JSON in UTF-8, or has more parts than a genuine request.
        """
        _check_parts(body)
        self._strings: dict[str, memoryview] = {}
        skeleton = self._cut(body)
        if len(skeleton) > MAX_SKELETON:
            raise RefusedError(413, f"the JSON has more than {MAX_SKELETON / 1e6:g} MB apart from its base64 strings")
        try:
            self.content: Any = json.loads(skeleton.decode("utf-8-sig"))
        except RecursionError:
            raise RefusedError(400, "the JSON is nested too deeply; see docs/serve.md for the format") from None
        except ValueError as error:
            raise RefusedError(400, f"the body is not valid JSON: {error}") from None

    def decode(self, entry: str) -> bytes | None:
        """Decode the base64 string that placeholder `entry` stands for; return None if `entry` is not a placeholder.

        Each string is returned only once, so that a small request cannot use one large string many times.

        Raises
        ------
        ValueError
            The string is not valid base64.
        """
        string = self._strings.pop(entry, None)
        return None if string is None else _decode(string)

    def _cut(self, body: bytes | bytearray) -> bytes:
        """Replace the long strings of `body` with ``"#0"``, ``"#1"`` ...; the ``#`` cannot occur in base64."""
        view, copied = memoryview(body), 0
        skeleton: list[bytes | memoryview] = []
        start = body.find(b'"')
        while start >= 0 and (end := _closing_quote(body, start + 1)) >= 0:
            if end - start > LONG_STRING:
                placeholder = f"#{len(self._strings)}"
                self._strings[placeholder] = view[start + 1 : end]
                skeleton += [view[copied:start], f'"{placeholder}"'.encode()]
                copied = end + 1
            start = body.find(b'"', end + 1)
        skeleton.append(view[copied:])
        return b"".join(skeleton)


def encode(data: bytes) -> list[bytes]:
    """Encode `data` as base64; return the base64 text in pieces, first to last."""
    step = 3 * (PIECE // 4)
    return [base64.b64encode(data[start : start + step]) for start in range(0, len(data), step)]


def _check_parts(body: bytes | bytearray) -> None:
    marks = quotes = 0
    for start in range(0, len(body), PIECE):
        marks += sum(body.count(mark, start, start + PIECE) for mark in (b"{", b"[", b","))
        quotes += body.count(b'"', start, start + PIECE)
        if marks > MAX_PARTS or quotes > 4 * MAX_PARTS:
            raise RefusedError(
                413,
                f"the JSON has more than {MAX_PARTS} parts (objects, lists, entries); send each image as one base64 "
                "string",
            )


def _closing_quote(body: bytes | bytearray, start: int) -> int:
    """Return the index of the quote that closes the string whose content starts at `start`; -1 if there is none."""
    end = body.find(b'"', start)
    while end >= 0:
        before = body[max(start, end - MAX_BACKSLASHES) : end]
        backslashes = len(before) - len(before.rstrip(b"\\"))
        if backslashes == MAX_BACKSLASHES:
            raise RefusedError(
                400,
                f"the JSON has {MAX_BACKSLASHES} backslashes in a row; send each image as a base64 string, which needs "
                "no backslashes",
            )
        if backslashes % 2 == 0:
            break
        end = body.find(b'"', end + 1)
    return end


def _decode(string: memoryview) -> bytes:
    """Decode a base64 string as it is written in JSON, where it may contain escapes and white space."""
    decoded, pending, start = [], "", 0
    while start < len(string):
        end = min(start + PIECE, len(string))
        if end < len(string) and (escape := bytes(string[end - 6 : end]).rfind(b"\\")) >= 0:
            end += escape - 6  # an escape must not be cut in two
        pending += "".join(json.loads(b'"' + bytes(string[start:end]) + b'"').split())
        start = end
        complete = max(0, len(pending) // 4 - 1) * 4  # the last four characters may hold padding
        if "=" in pending[:complete]:
            raise ValueError("the base64 string has characters after its padding")
        decoded.append(base64.b64decode(pending[:complete], validate=True))
        pending = pending[complete:]
    try:
        return b"".join([*decoded, base64.b64decode(pending, validate=True)])
    except binascii.Error as error:
        raise ValueError(str(error)) from error
