"""Protect uvicorn from slow, silent and hostile HTTP clients: set deadlines, limit connections, and parse strictly.

uvicorn sets no deadline for the head of a request or for the delivery of a response. uvicorn never closes a waiting
connection, and drops a client that closes its sending side. tests/serve/test_protocol.py checks the internals of
uvicorn and h11 that this module uses.
"""

import asyncio
import json
import re
import time
from collections import deque
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD = 10  # seconds for the head of a request, counted from the connection or from the end of the previous response
REST = 5  # seconds for the remaining body of a request that was refused before the whole body arrived
DELIVERY = 120  # seconds in which a client must receive a response
LINGER = 2  # seconds in which a client that violated the protocol can still read why it was refused
CLOSING = 10  # seconds for the last bytes of a response on a connection that is being closed
ENDING = 5  # seconds that replace longer deadlines while the server shuts down
TICK = 0.5  # seconds between two checks of a connection's deadline

HEAD_BYTES = 16_384  # maximum bytes of a request line with headers, of a chunk header, or of the trailers
LINES = 100  # maximum number of lines in a request head or in trailers
READ = 16_384  # bytes read at once, so that no client holds the event loop for long
CHUNKS = 200  # number of chunks at the start of a body that are accepted at any size
CHUNK = 64  # bytes that all further chunks must have on average
CONNECTIONS = 128  # maximum number of open connections
ROOM = 8  # connections closed at once when there are too many
FRESH = 1  # seconds; connections that have waited for a shorter time are closed last, new clients last of all

_END_OF_HEAD = re.compile(rb"\n\r?\n")
_LAST_CHUNK = re.compile(rb"\s{0,2}0{1,20}\s{0,2}(?:;[^\n]*)?\n")


class Parser(h11.Connection):
    """Server-side h11 parser that also refuses ambiguous requests and requests that are expensive to parse."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self.refusal: h11.RemoteProtocolError | None = None
        """Protocol error that the client has made, or None."""
        self._chunks = self._bytes = 0
        self._between_chunks = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event; replace ConnectionClosed, which uvicorn does not support, with NEED_DATA."""
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
        """Refuse a request if its head or trailers have too many lines. The lines begin at byte `start` of the data."""
        received = self.trailing_data[0]
        end = _END_OF_HEAD.search(received, start)
        if received.count(b"\n", start, end.start() if end else len(received)) >= LINES:
            raise h11.RemoteProtocolError(f"the request has more than {LINES} header lines", 431)

    def _check_request(self, request: h11.Request) -> None:
        self._chunks = self._bytes = 0
        names = [name for name, _ in request.headers]
        self._between_chunks = b"transfer-encoding" in names
        if request.http_version not in (b"1.0", b"1.1"):
            raise h11.RemoteProtocolError("only HTTP/1.0 and HTTP/1.1 are supported")
        if b"transfer-encoding" in names and b"content-length" in names:
            raise h11.RemoteProtocolError("a request must not have both Transfer-Encoding and Content-Length")

    def _check_chunks(self, data: h11.Data) -> None:
        self._bytes += len(data.data)
        self._chunks += data.chunk_start
        self._between_chunks = data.chunk_end
        if self._chunks > CHUNKS + self._bytes / CHUNK:
            raise h11.RemoteProtocolError(
                f"the chunks of the body have fewer than {CHUNK} bytes on average; send larger chunks"
            )


class Turns:
    """Queue of the connections that have received data; each iteration of the event loop handles one connection.

    The answer to a new client takes several iterations. If each iteration handled a request of every connection, the
    new client would wait for all other clients several times. New clients have a queue of their own. The two
    queues take turns, so that many large requests do not delay a new client.
    """

    def __init__(self) -> None:
        self._new, self._others = deque[Connection](), deque[Connection]()
        self._queues = [self._new, self._others]

    def add(self, connection: "Connection") -> None:
        """Add `connection` to the queue if it is not queued yet."""
        if connection in self:
            return
        if not any(self._queues):
            connection.loop.call_soon(self._handle_next)
        (self._others if connection.has_asked() else self._new).append(connection)

    def __contains__(self, connection: object) -> bool:
        """Return whether `connection` is queued."""
        return connection in self._new or connection in self._others

    def _handle_next(self) -> None:
        self._queues.reverse()
        connection = (self._queues[0] or self._queues[1]).popleft()
        if any(self._queues):
            connection.loop.call_soon(self._handle_next)
        connection.handle_received()


class Connection(H11Protocol, asyncio.BufferedProtocol):
    """Connection to a client, with a deadline for each phase in which the server waits for the client."""

    def __init__(self, *args: Any, turns: Turns, limit: int = CONNECTIONS, **kwargs: Any) -> None:
        """Create one connection.

        Parameters
        ----------
        turns : the queue that all connections of the server share
        limit : maximum number of connections that the server keeps open
        """
        super().__init__(*args, **kwargs)
        self.conn = self._parser = Parser()
        self._turns, self._limit = turns, limit
        self._input = bytearray(READ)
        self._refused = self._half_closed = self._aborted = self._ending = False
        self._phase: tuple[str, Any] = ("head", None)
        self._since = time.monotonic()
        self._watching: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection. If too many are open, close those that have waited longest for their clients."""
        super().connection_made(transport)
        self._watch()
        connections = [c for c in self.connections if isinstance(c, Connection) and not c._aborted]
        if len(connections) > self._limit:
            self._make_room([connection for connection in connections if connection is not self])

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadlines of a closed connection."""
        self._aborted = True
        if self._watching is not None:
            self._watching.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
        """Return the buffer of `READ` bytes into which the transport writes received bytes."""
        return self._input

    def buffer_updated(self, nbytes: int) -> None:
        """Pass the `nbytes` received bytes to the parser."""
        if not self._refused:
            self.data_received(bytes(self._input[:nbytes]))

    def eof_received(self) -> bool:  # type: ignore[override]
        """Handle a client that closed its sending side; return True to keep the connection open for the response."""
        if self._refused or self.transport.is_closing():
            return False
        if self._half_closed:  # uvicorn has resumed reading, and the transport has met the end of the data again
            return True
        self._half_closed = True
        self.conn.receive_data(b"")
        self.handle_events()
        return True

    def handle_events(self) -> None:
        """Put this connection into the queue; uvicorn calls this method when data arrives, and after each response."""
        self.transport.pause_reading()  # so that a client in the queue cannot fill the memory
        self._turns.add(self)

    def handle_received(self) -> None:
        """Parse and handle the received data, unless the request was refused or the connection is closing."""
        if not (self._refused or self.transport.is_closing()):
            try:
                super().handle_events()
            except Exception:
                self._abort()  # reading is paused, so the client could never end the connection
                raise
            if self._half_closed and not self._refused and not self._answering():
                self.transport.close()
        if self._ending:
            self._finish()
        # After the end of the data, do not resume reading: each iteration of the event loop would report the end again.
        if not self.flow.read_paused and not self._half_closed:
            self.transport.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not valid HTTP; answer in JSON, in the same format as for other refused requests."""
        error = self._parser.refusal
        status = error.error_status_hint if error is not None and error.error_status_hint == 431 else 400
        self._refuse(status, f"the request is not valid HTTP: {error or msg}")

    def shutdown(self) -> None:
        """At server stop, finish a request whose whole body has arrived, refuse any other; then close the connection.

        A connection in the queue is handled first, because a whole request may have arrived.
        """
        self._ending = True
        if self not in self._turns:
            self._finish()

    def _finish(self) -> None:
        if not self._answering():
            self.transport.close()
        elif self.cycle.more_body and not self.cycle.response_started:
            self._refuse(503, "the server is shutting down")
        else:
            self.cycle.keep_alive = False

    def _should_upgrade(self) -> bool:
        return False

    def has_asked(self) -> bool:
        """Return whether the head of the first request has arrived."""
        return self.cycle is not None

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _phase_now(self) -> str:
        """Return the name of the connection's current phase, such as head, body or delivery."""
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
        """Check the connection every TICK seconds, and close it if its current phase takes too long.

        If the phase has changed since the last check, note the time. `_phase_now` names the phases.
        """
        phase = self._phase_now()
        if (phase, self.cycle) != self._phase:
            self._phase, self._since = (phase, self.cycle), time.monotonic()
        waited = time.monotonic() - self._since
        if waited > self._deadline(phase):
            if phase == "head" and self.conn.trailing_data[0]:
                self._refuse(408, f"the head of the request did not arrive within {HEAD} seconds")
            elif phase in ("head", "rest"):
                self.transport.close()
            else:
                self._abort()
        self._watching = None if self._aborted else self.loop.call_later(TICK, self._watch)

    def _deadline(self, phase: str) -> float:
        """Return the time limit of `phase` in seconds.

        The limit is infinity for "work" and "body"; `body.read` itself limits "body".
        """
        deadlines = {"head": HEAD, "rest": REST, "delivery": DELIVERY, "lingering": LINGER, "closing": CLOSING}
        seconds = deadlines.get(phase, float("inf"))
        return min(seconds, ENDING) if self._ending and phase in deadlines else seconds

    def _make_room(self, others: list["Connection"]) -> None:
        """Close other connections that wait for their clients. If no connection waits for its client, refuse this one.

        Several connections are closed at once. If all waiting connections belong to new clients, only one is closed. A
        connection in the queue waits for the server. It is closed last, and never while its first request waits there.
        """
        now = time.monotonic()
        order = ["lingering", "closing", "rest", "head", "delivery"]

        def rank(other: Connection) -> tuple[bool, bool, int, float]:
            return other in self._turns, now - other._since < FRESH, order.index(other._phase_now()), other._since

        waiting = [
            other for other in others if other._phase_now() in order and (other.has_asked() or other not in self._turns)
        ]
        new = [other for other in waiting if not other.has_asked() and now - other._since < FRESH]
        established = sorted((other for other in waiting if other not in new), key=rank)
        oldest = established[: min(ROOM, self._limit // 4 + 1)] or sorted(new, key=rank)[:1]
        if not oldest:
            self._refuse(503, f"{self._limit} connections are open; try again in a second")
        for other in oldest:
            if other._phase_now() == "head" and other.conn.trailing_data[0]:
                other._refuse(
                    503, f"more than {self._limit} connections are open, and this one has waited longest; try again"
                )
            other._abort()

    def _refuse(self, status: int, reason: str) -> None:
        """Send a response with status and reason, unless another response has started; then close the connection."""
        self._refused = True
        answer_started = self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE)
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if answer_started or self.transport.is_closing():
            self.transport.close()
            return
        self._unset_keepalive_if_required()
        self.transport.write(self._refusal(status, reason))
        # Closing at once would reset the connection while the client still sends.
        # After a reset, the client would lose the response that explains the refusal.
        self.flow.resume_reading()
        if self._half_closed:
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except OSError:  # the client has reset the connection meanwhile
            self._abort()

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
