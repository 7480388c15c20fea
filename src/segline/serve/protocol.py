"""HTTP/1.1 as uvicorn speaks it, for clients that are slow, silent or hostile: deadlines, a cap, stricter parsing.

uvicorn has no deadline for the head of a request and for the taking of an answer, keeps every connection, and drops a
client that closes its sending side. tests/serve/test_protocol.py checks what is used of uvicorn and h11.
"""

import asyncio
import json
import re
import time
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD = 10  # seconds for the head of a request, from the connection or the end of the answer before
REST = 5  # seconds for the rest of a body that was refused before it had come
DELIVERY = 120  # seconds in which a client must have taken an answer
LINGER = 2  # seconds in which a client that breaks the protocol may still read why
CLOSING = 10  # seconds for the last bytes of an answer, after which the connection is closed
ENDING = 5  # seconds for each of these, once the server was asked to end
TICK = 0.5  # seconds between two looks at a connection's deadline

HEAD_BYTES = 16_384  # of a request line and headers, of a chunk's header, of trailers
LINES = 100  # of a request line and headers
READ = 16_384  # bytes read at once, so that no client holds the event loop for long
CHUNKS = 200  # of a body, beyond which they must have CHUNK bytes on average
CHUNK = 64  # bytes
CONNECTIONS = 64  # open at once; each may have a request handled before another is heard
ROOM = 8  # connections closed at once, when there are too many
FRESH = 1  # seconds in which a connection is closed last of all, when there are too many
WAITING_FOR_CLIENT = {"head", "rest", "delivery", "lingering", "closing"}

_END_OF_HEAD = re.compile(rb"\n\r?\n")
_LAST_CHUNK = re.compile(rb"\s{0,2}0{1,20}\s{0,2}(?:;[^\n]*)?\n")


class Parser(h11.Connection):
    """h11's server side, that refuses what costs much time to parse or may be read in two ways."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self.refusal: h11.RemoteProtocolError | None = None
        """Why the last event could not be read."""
        self._chunks = self._bytes = 0
        self._between_chunks = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event, but NEED_DATA at the end of the client's data, which uvicorn does not know."""
        try:
            if self.their_state is h11.IDLE:
                self._check_lines(0)
            elif self._between_chunks and (last_chunk := _LAST_CHUNK.match(self.trailing_data[0])):
                self._check_lines(last_chunk.end())
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._check_request(event)
            elif isinstance(event, h11.Data):
                self._check_chunks(event)
        except h11.RemoteProtocolError as error:
            self.refusal = error
            raise
        return h11.NEED_DATA if isinstance(event, h11.ConnectionClosed) else event

    def _check_lines(self, start: int) -> None:
        """Refuse a head, or trailers, of too many lines that begin at `start`."""
        received = self.trailing_data[0]
        end = _END_OF_HEAD.search(received, start)
        if received.count(b"\n", start, end.start() if end else len(received)) >= LINES:
            raise h11.RemoteProtocolError(f"a request of more than {LINES} header lines", 431)

    def _check_request(self, request: h11.Request) -> None:
        self._chunks = self._bytes = 0
        names = [name for name, _ in request.headers]
        self._between_chunks = b"transfer-encoding" in names
        if request.http_version not in (b"1.0", b"1.1"):
            raise h11.RemoteProtocolError("HTTP/1.0 and HTTP/1.1 are spoken here")
        if b"transfer-encoding" in names and b"content-length" in names:
            raise h11.RemoteProtocolError("Transfer-Encoding and Content-Length exclude each other")

    def _check_chunks(self, data: h11.Data) -> None:
        self._bytes += len(data.data)
        self._chunks += data.chunk_start
        self._between_chunks = data.chunk_end
        if self._chunks > CHUNKS + self._bytes / CHUNK:
            raise h11.RemoteProtocolError(f"chunks of fewer than {CHUNK} bytes on average")


class Connection(H11Protocol, asyncio.BufferedProtocol):
    """A client's connection, with a deadline for each thing that the server waits for."""

    def __init__(self, *args: Any, most: int = CONNECTIONS, **kwargs: Any) -> None:
        """Make the protocol; `most` connections are open at once."""
        super().__init__(*args, **kwargs)
        self.conn = self._parser = Parser()
        self._most = most
        self._input = bytearray(READ)
        self._refused = self._half_closed = self._aborted = self._ending = False
        self._phase: tuple[str, Any] = ("head", None)
        self._since = time.monotonic()
        self._watching: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection; when there are too many, close the one that has waited longest for its client."""
        super().connection_made(transport)
        self._watch()
        others = [other for other in self.connections if isinstance(other, Connection) and not other._aborted]
        if len(others) > self._most:
            self._make_room([other for other in others if other is not self])

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._aborted = True
        if self._watching is not None:
            self._watching.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
        """Return where the transport puts what it reads: READ bytes at most."""
        return self._input

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read."""
        if not self._refused:
            self.data_received(bytes(self._input[:nbytes]))

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what a client asked that sends no more; return whether the connection stays open for that."""
        if self._refused or self.transport.is_closing():
            return False
        self._half_closed = True
        self.conn.receive_data(b"")
        self.handle_events()
        return not (self._refused or self.transport.is_closing())

    def handle_events(self) -> None:
        """Handle what was parsed."""
        if self._refused or self.transport.is_closing():
            return
        super().handle_events()
        if self._half_closed and not self._refused and not self._answering():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the form of all refusals."""
        error = self._parser.refusal
        status = error.error_status_hint if error is not None and error.error_status_hint == 431 else 400
        self._refuse(status, f"no HTTP that is understood: {error or msg}")

    def shutdown(self) -> None:
        """Finish the request that is under way, if all of it has come, and close the connection."""
        self._ending = True
        if not self._answering():
            self.transport.close()
        elif self.cycle.more_body and not self.cycle.response_started:
            self._refuse(503, "the server ends")
        else:
            self.cycle.keep_alive = False

    def _should_upgrade(self) -> bool:
        return False

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _phase_now(self) -> str:
        """What the connection waits for."""
        if self.transport.is_closing():
            return "closing"
        if self._refused:
            return "lingering"
        if self._answering():
            if self.cycle.response_started:
                return "delivery"
            return "body" if self.cycle.more_body else "work"
        if self.transport.get_write_buffer_size():
            return "delivery"
        return "head" if self.conn.their_state is h11.IDLE else "rest"

    def _watch(self) -> None:
        """Note since when the connection waits for the same thing, and end what has waited too long."""
        phase = self._phase_now()
        if (phase, self.cycle) != self._phase:
            self._phase, self._since = (phase, self.cycle), time.monotonic()
        waited = time.monotonic() - self._since
        if waited > self._patience(phase):
            if phase == "head" and self.conn.trailing_data[0]:
                self._refuse(408, f"the head of the request did not come within {HEAD} seconds")
            elif phase in ("head", "rest"):
                self.transport.close()
            else:
                self._abort()
        self._watching = None if self._aborted else self.loop.call_later(TICK, self._watch)

    def _patience(self, phase: str) -> float:
        """Seconds that the connection may be in this phase; bodies have a deadline in the application."""
        patience = {"head": HEAD, "rest": REST, "delivery": DELIVERY, "lingering": LINGER, "closing": CLOSING}
        seconds = patience.get(phase, float("inf"))
        return min(seconds, ENDING) if self._ending and phase in patience else seconds

    def _make_room(self, others: list["Connection"]) -> None:
        waiting = [other for other in others if other._phase_now() in WAITING_FOR_CLIENT]
        if not waiting:
            self._refuse(503, f"{self._most} connections are open; ask again in a second")
            return
        now = time.monotonic()
        order = ["lingering", "closing", "rest", "head", "delivery"]
        waiting.sort(key=lambda other: (now - other._since < FRESH, order.index(other._phase_now()), other._since))
        for oldest in waiting[: min(ROOM, self._most // 4 + 1)]:
            if oldest._phase_now() == "head" and oldest.conn.trailing_data[0]:
                oldest._refuse(503, f"more than {self._most} connections are open, and this one waited longest")
            oldest._abort()

    def _refuse(self, status: int, reason: str) -> None:
        """Say why the client is not answered, unless it was, and close the connection."""
        self._refused = True
        begun = self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE)
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if begun or self.transport.is_closing():
            self.transport.close()
            return
        self._unset_keepalive_if_required()
        self.transport.write(self._refusal(status, reason))
        # Closing at once would reset the connection while the client still sends, and the reason would be lost.
        self.flow.resume_reading()
        if not self._half_closed:
            self.transport.write_eof()
        else:
            self.transport.close()

    def _refusal(self, status: int, reason: str) -> bytes:
        phrase = HTTPStatus(status).phrase
        content = json.dumps({"error_code": HTTPStatus(status).name, "message": reason}).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            *([(b"retry-after", b"1")] if status == 503 else []),
            (b"connection", b"close"),
        ]
        lines = [f"HTTP/1.1 {status} {phrase}".encode(), *(name + b": " + value for name, value in headers)]
        return b"\r\n".join([*lines, b"", content])

    def _abort(self) -> None:
        self._aborted = True
        self.transport.abort()
