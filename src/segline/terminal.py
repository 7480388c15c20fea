"""Everything that segline prints passes here: no control character of a name or a message reaches the terminal."""

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
    """A stream that makes control characters visible, and `trusted`, the one beneath it for who writes them itself."""

    trusted: TextIO

    def write(self, text: str) -> int:
        """Write `text`, and return its length."""
        with self._named():
            super().write(visible(text))
        return len(text)

    def flush(self) -> None:
        """Write what waits."""
        with self._named():
            super().flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say which stream an OSError is of: it comes without the name of a file."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or "standard output or error"
            raise


@contextmanager
def safe() -> Iterator[None]:
    """Within the block, nothing that is printed holds control characters, and no encoding fails: what it lacks is
    escaped. After it nothing is left to write: a reader such as `head` may be gone by then.
    """
    former = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = made = _escaping(sys.stdout), _escaping(sys.stderr)
    try:
        yield
    finally:
        for stream in made:
            if isinstance(stream, Escaping):
                _end(stream)
        sys.stdout, sys.stderr = former


def _end(stream: Escaping) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    with suppress(OSError, ValueError):
        stream.detach()  # else the stream beneath it would be closed with it


def _escaping(stream: TextIO) -> TextIO:
    """`stream` as an Escaping one; itself where it has no bytes beneath it, such as one of a test."""
    if isinstance(stream, Escaping) or not hasattr(stream, "buffer"):
        return stream
    with suppress(OSError, ValueError):
        stream.flush()
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    made = Escaping(stream.buffer, stream.encoding, "backslashreplace", write_through=True, line_buffering=True)
    made.trusted = stream
    return made


def _beneath(stream: Any) -> IO[str]:
    beneath: IO[str] = getattr(stream, "trusted", stream)
    return beneath


def say(text: str) -> None:
    """Print to standard output; not by click, which leaves out what it takes for the codes of a terminal."""
    print(visible(text), flush=True)  # noqa: T201


def fail(message: str) -> None:
    """Print an error message, in red where standard error is a terminal."""
    stream = _beneath(sys.stderr)
    text = visible(message)
    print(RED.format(text) if stream.isatty() else text, file=stream, flush=True)


def console(*, stderr: bool = False) -> "Console":
    """A console of rich that shows names literally: no markup, no emoji, no control characters but its own."""
    from rich.console import Console
    from rich.segment import Segment

    class Literal(Console):
        """Makes control characters visible in all that is drawn."""

        @property
        def file(self) -> IO[str]:  # sys.stdout and sys.stderr may be others at another time
            """Where to write: beneath an `Escaping` stream."""
            return _beneath(super().file)

        @file.setter
        def file(self, stream: IO[str]) -> None:
            self._file = stream

        def render(self, *args: Any, **options: Any) -> Iterable[Segment]:
            for segment in super().render(*args, **options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

    return Literal(stderr=stderr, markup=False, emoji=False)
