"""Read the body of a request, within limits on size and time, and extract the file from an uploaded form.

`read` runs on the event loop and only collects bytes. `extract_file` parses the body, so it runs in another thread.
"""

import asyncio
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from segline.serve.refusals import RefusedError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

BODY_TIMEOUT = 60  # seconds in which a whole body must arrive
IDLE_TIMEOUT = 10  # longest pause between two pieces of a body, seconds
MAX_FIELDS = 8  # maximum number of fields in a form, not counting the file
PIECE = 65_536  # bytes parsed at once, so that other threads get their turn


async def read(request: Request, max_bytes: int) -> bytearray:
    """Read the body of `request`.

    Raises
    ------
    RefusedError
        The body is compressed, has more bytes than `max_bytes`, or takes too long.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise RefusedError(415, "the body has a Content-Encoding; send it uncompressed, without that header")
    limit = f"{max_bytes / 1e6:g} MB"
    too_large = RefusedError(413, f"the body is larger than {limit}, the limit of this server (--max-megabytes)")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > max_bytes:
        raise too_large
    body = bytearray()  # a bytearray grows without copies; joining pieces would hold Python's lock
    stream = request.stream()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + BODY_TIMEOUT
    while True:
        try:
            async with asyncio.timeout(min(IDLE_TIMEOUT, deadline - loop.time())):
                piece = await anext(stream)
        except StopAsyncIteration:
            return body
        except TimeoutError:
            limits = f"within {BODY_TIMEOUT} seconds, or paused for {IDLE_TIMEOUT} seconds"
            raise RefusedError(408, f"the body did not arrive {limits}; send it again") from None
        if len(body) + len(piece) > max_bytes:
            raise too_large
        body += piece


def extract_file(body: bytes | bytearray, content_type: str) -> bytes:
    """Return the content of the only file in a form. The field's name and the file's name and type are ignored.

    Names and texts of the form are never decoded.

    Raises
    ------
    RefusedError
        The body is not a form, is truncated, or holds no file or more than one.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise RefusedError(400, "the form cannot be read: its Content-Type has no boundary")
    collector = _FileCollector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        for start in range(0, len(body), PIECE):
            parser.write(bytes(body[start : start + PIECE]))
    except FormParserError as error:
        raise RefusedError(400, f"the form cannot be read: {error}") from error
    if body and not collector.complete:
        raise RefusedError(400, "the form cannot be read: it is truncated")
    if collector.content is None:
        raise RefusedError(400, "the form has no file; send one as `curl -F file=@IMAGE` does")
    return bytes(collector.content)


class _FileCollector:
    """Collector that python-multipart calls while it parses a form; `content` holds the bytes of the file."""

    def __init__(self) -> None:
        self.content: bytearray | None = None
        self.complete = False
        self._header_name, self._header_value = b"", b""
        self._disposition: bytes | None = None
        self._in_file = False
        self._fields = 0

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_content,
            "on_end": self._end_form,
        }

    def _begin_part(self) -> None:
        self._disposition = None

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name, self._header_value = b"", b""

    def _end_headers(self) -> None:
        disposition, options = parse_options_header(self._disposition)
        if disposition != b"form-data" or b"name" not in options:
            reason = "a part has no header `Content-Disposition: form-data; name=...`"
            raise RefusedError(400, f"the form cannot be read: {reason}")
        self._in_file = b"filename" in options
        if self._in_file and self.content is not None:
            raise RefusedError(
                400, "the form has several files; send one image per request, or send several images as JSON"
            )
        if self._in_file:
            self.content = bytearray()
        self._fields += not self._in_file
        if self._fields > MAX_FIELDS:
            raise RefusedError(400, f"the form has more than {MAX_FIELDS} fields besides the file; leave some out")

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        if self._in_file and self.content is not None:
            self.content += data[start:end]

    def _end_form(self) -> None:
        self.complete = True
