"""Print safely: escape control characters in names and messages before they reach the terminal."""

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, TextIO

from segline.text import visible

if TYPE_CHECKING:
    from rich.console import Console

RED = "\x1b[31m{}\x1b[0m"


class Escaping(io.TextIOWrapper):
    """Output stream that escapes control characters.

    ``trusted`` is the wrapped stream, for code that writes control characters on purpose.
    """

    trusted: TextIO

    def write(self, text: str) -> int:
        """Write `text` with control characters escaped; return the length of `text`."""
        with self._name_stream():
            super().write(visible(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._name_stream():
            super().flush()

    @contextmanager
    def _name_stream(self) -> Iterator[None]:
        """If the with block raises an OSError without a file name, set the name to "standard output or error"."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or "standard output or error"
            raise


@contextmanager
def safe() -> Iterator[None]:
    """Escape control characters and unencodable characters in all output of the with block.

    The output is flushed at the end. If its reader, such as `head`, has exited, the output is lost without an error.
    """
    former = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams = _escaping(sys.stdout), _escaping(sys.stderr)
    try:
        yield
    finally:
        for stream in streams:
            if isinstance(stream, Escaping):
                _close(stream)
        sys.stdout, sys.stderr = former


def _close(stream: Escaping) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    with suppress(OSError, ValueError):
        stream.detach()  # otherwise the wrapped stream would be closed too


def _escaping(stream: TextIO) -> TextIO:
    """Wrap `stream` in an Escaping stream. A stream without a byte buffer, such as in tests, is returned unchanged."""
    if isinstance(stream, Escaping) or not hasattr(stream, "buffer"):
        return stream
    with suppress(OSError, ValueError):
        stream.flush()
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    escaping = Escaping(stream.buffer, stream.encoding, "backslashreplace", write_through=True, line_buffering=True)
    escaping.trusted = stream
    return escaping


def _trusted(stream: Any) -> IO[str]:
    trusted: IO[str] = getattr(stream, "trusted", stream)
    return trusted


def say(text: str) -> None:
    """Print to standard output without click.echo, which would remove text that looks like terminal codes."""
    print(visible(text), flush=True)  # noqa: T201


def fail(message: str) -> None:
    """Print an error message, in red if standard error is a terminal."""
    stream = _trusted(sys.stderr)
    text = visible(message)
    print(RED.format(text) if stream.isatty() else text, file=stream, flush=True)


def console(*, stderr: bool = False) -> "Console":
    """Return a rich console that prints text literally: no markup, no emoji, and control characters escaped."""
    from rich.console import Console
    from rich.segment import Segment

    class Literal(Console):
        """Console that escapes control characters in rendered text."""

        @property
        def file(self) -> IO[str]:  # read each time: sys.stdout and sys.stderr may be replaced
            """The underlying output stream, without an `Escaping` wrapper."""
            return _trusted(super().file)

        @file.setter
        def file(self, stream: IO[str]) -> None:
            self._file = stream

        def render(self, *args: Any, **options: Any) -> Iterable[Segment]:
            for segment in super().render(*args, **options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

    return Literal(stderr=stderr, markup=False, emoji=False)
