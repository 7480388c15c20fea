"""The file in an uploaded form. Only its bytes matter: names and texts of a form are never decoded."""

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from segline.serve.refused import RefusedError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELDS = 8  # of a form, beside the file
PIECE = 65_536  # bytes parsed at once, so that other threads get their turn


class _File:
    """Collects the one file while a form is parsed."""

    def __init__(self) -> None:
        self.data: bytearray | None = None
        self._name, self._value = b"", b""
        self._disposition: bytes | None = None
        self._in_file = False
        self._fields = 0
        self.ended = False

    def on_part_begin(self) -> None:
        self._disposition = None

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = b"", b""

    def on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise RefusedError(400, "not a readable form: a part without Content-Disposition: form-data and a name")
        self._in_file = b"filename" in options
        if self._in_file and self.data is not None:
            raise RefusedError(400, "a form with several files; send one image a request, or JSON")
        if self._in_file:
            self.data = bytearray()
        self._fields += not self._in_file
        if self._fields > FIELDS:
            raise RefusedError(400, f"a form with more than {FIELDS} fields beside the file")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file and self.data is not None:
            self.data += data[start:end]

    def on_end(self) -> None:
        self.ended = True


def file_of(body: bytes | bytearray, content_type: str) -> bytes:
    """The bytes of the one file in a form, whatever its field, name or type is.

    Raises
    ------
    RefusedError
        The body is no form, ends early, or holds no file or several.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise RefusedError(400, "not a readable form: its Content-Type names no boundary")
    file = _File()
    callbacks: MultipartCallbacks = {
        "on_part_begin": file.on_part_begin,
        "on_header_field": file.on_header_field,
        "on_header_value": file.on_header_value,
        "on_header_end": file.on_header_end,
        "on_headers_finished": file.on_headers_finished,
        "on_part_data": file.on_part_data,
        "on_end": file.on_end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        for start in range(0, len(body), PIECE):
            parser.write(bytes(body[start : start + PIECE]))
    except FormParserError as error:
        raise RefusedError(400, f"not a readable form: {error}") from error
    if body and not file.ended:
        raise RefusedError(400, "not a readable form: it ends early")
    if file.data is None:
        raise RefusedError(400, "a form without a file; send one as curl -F file=@IMAGE does")
    return bytes(file.data)
