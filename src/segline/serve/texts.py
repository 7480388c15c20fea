"""JSON with long base64 texts, read in small steps.

json.loads and base64 of 64 MB hold Python's lock (GIL) for 0.1 to 1 s, in which nobody is answered. Here the long texts
are cut out first, the rest is parsed as a whole, and the texts are decoded piece by piece.
"""

import base64
import binascii
import json
from typing import Any

from segline.serve.refused import RefusedError

PARTS = 100_000  # objects, lists and entries in a request; base64 holds none of the characters that make them
LONG = 4096  # bytes of a text that is cut out
SKELETON = 8_000_000  # bytes of JSON without the texts that were cut out
PIECE = 2**18  # characters decoded at once
ESCAPES = 64  # backslashes in a row; base64 has none


class Document:
    """A JSON text whose long texts were cut out: `content` holds ``#NUMBER`` for each."""

    def __init__(self, body: bytes | bytearray) -> None:
        """Parse `body`.

        Raises
        ------
        RefusedError
            It is not JSON in UTF-8, or has more parts than an honest request.
        """
        _check_parts(body)
        self._texts: dict[str, memoryview] = {}
        skeleton = self._cut(body)
        if len(skeleton) > SKELETON:
            raise RefusedError(413, f"JSON of more than {SKELETON / 1e6:g} MB beside its base64 texts")
        try:
            self.content: Any = json.loads(skeleton.decode("utf-8-sig"))
        except RecursionError:
            raise RefusedError(400, "JSON with lists within lists, too deep to be read") from None
        except ValueError as error:
            raise RefusedError(400, f"the body is not valid JSON: {error}") from None

    def decode(self, entry: str) -> bytes | None:
        """The bytes of the base64 text that `entry` stands for, None where it stands for none; ValueError: no base64.

        A text is given once: a small request could else ask for the same large one many times.
        """
        text = self._texts.pop(entry, None)
        return None if text is None else _decoded(text)

    def _cut(self, body: bytes | bytearray) -> bytes:
        """`body` with ``"#0"``, ``"#1"`` ... in the place of long texts; # is no character of base64."""
        view, done = memoryview(body), 0
        kept: list[bytes | memoryview] = []
        start = body.find(b'"')
        while start >= 0 and (end := _end_of_text(body, start + 1)) >= 0:
            if end - start > LONG:
                name = f"#{len(self._texts)}"
                self._texts[name] = view[start + 1 : end]
                kept += [view[done:start], f'"{name}"'.encode()]
                done = end + 1
            start = body.find(b'"', end + 1)
        kept.append(view[done:])
        return b"".join(kept)


def encode(data: bytes) -> list[bytes]:
    """The base64 text of `data`, in pieces."""
    step = 3 * (PIECE // 4)
    return [base64.b64encode(data[start : start + step]) for start in range(0, len(data), step)]


def _check_parts(body: bytes | bytearray) -> None:
    marks = quotes = 0
    for start in range(0, len(body), PIECE):
        marks += sum(body.count(mark, start, start + PIECE) for mark in (b"{", b"[", b","))
        quotes += body.count(b'"', start, start + PIECE)
        if marks > PARTS or quotes > 4 * PARTS:
            raise RefusedError(413, f"JSON of more than {PARTS} parts; an image is one base64 text")


def _end_of_text(body: bytes | bytearray, start: int) -> int:
    """Where the quote is that ends the text that begins at `start`; -1 for nowhere."""
    end = body.find(b'"', start)
    while end >= 0:
        before = body[max(start, end - ESCAPES) : end]
        escapes = len(before) - len(before.rstrip(b"\\"))
        if escapes == ESCAPES:
            raise RefusedError(400, f"JSON with {ESCAPES} backslashes in a row; base64 has none")
        if escapes % 2 == 0:
            break
        end = body.find(b'"', end + 1)
    return end


def _decoded(text: memoryview) -> bytes:
    """The bytes of a base64 text as it stands in JSON, blanks left out."""
    decoded, waiting, start = [], "", 0
    while start < len(text):
        end = min(start + PIECE, len(text))
        if end < len(text) and (escape := bytes(text[end - 6 : end]).rfind(b"\\")) >= 0:
            end += escape - 6  # no escape is cut in two
        waiting += "".join(json.loads(b'"' + bytes(text[start:end]) + b'"').split())
        start = end
        ready = max(0, len(waiting) // 4 - 1) * 4  # the last four may be padded
        if "=" in waiting[:ready]:
            raise ValueError("text after the end")
        decoded.append(base64.b64decode(waiting[:ready], validate=True))
        waiting = waiting[ready:]
    try:
        return b"".join([*decoded, base64.b64decode(waiting, validate=True)])
    except binascii.Error as error:
        raise ValueError(str(error)) from error
