"""Slow, silent and hostile clients: deadlines, the connection limit, stricter parsing, half-closed connections."""

import asyncio
import asyncio.selector_events
import errno
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from segline.model.images import encode_png
from segline.serve import app, body, protocol
from segline.track.registry import Answer

PNG = encode_png(np.zeros((4, 4), np.uint8))
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
IMAGE = POST + b"Content-Length: %d\r\n\r\n" % len(PNG) + PNG
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "TICK", 0.02)


@pytest.fixture
def connect(port: int) -> Iterator[Callable[[], socket.socket]]:
    with ExitStack() as opened:
        yield lambda: opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))


STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
Connect = Callable[[], socket.socket]


def read_all(client: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    pieces = []
    try:
        while piece := client.recv(65_536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def refusal(answer: bytes) -> tuple[int, str]:
    """Return status and reason of the last answer, which must close the connection."""
    *_, last = STATUS.finditer(answer)
    head, _, content = answer[last.start() :].partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head.lower() and b"\r\ncontent-type: application/json" in head.lower()
    reason = json.loads(content)
    assert set(reason) == {"error_code", "message"}
    return int(head.split()[1]), reason["message"]


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in STATUS.findall(answers)]


def status_of(client: socket.socket) -> int:
    """Read one complete answer and return its status."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    rest = int(re.findall(rb"content-length: ([0-9]+)", head)[0])
    while rest:
        rest -= len(client.recv(rest))
    return statuses(head)[0]


@pytest.mark.parametrize(
    "data", [b"G", b"GET / HTTP/1.1\r\n", b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nA: b"]
)
def test_an_incomplete_head_is_refused_after_its_deadline(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD", 0.1)
    client = connect()
    client.sendall(data)
    assert refusal(read_all(client))[0] == 408


def test_a_head_sent_byte_by_byte_is_refused_after_its_deadline(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD", 0.3)
    client, stop = connect(), threading.Event()

    def send() -> None:
        while not stop.wait(0.01):
            try:
                client.sendall(b"a")
            except OSError:
                return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert refusal(read_all(client))[0] == 408
    finally:
        stop.set()
        sender.join()


def test_a_silent_connection_is_closed(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD", 0.1)
    assert read_all(connect()) == b""


def test_an_incomplete_head_after_an_answer_is_refused(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD", 0.2)
    client = connect()
    client.sendall(HEALTH + HEALTH[:20])
    answers = read_all(client)
    assert statuses(answers) == [200, 408]


def test_a_body_that_stops_is_refused(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "IDLE_TIMEOUT", 0.1)
    for head in (POST + b"Content-Length: 9\r\n\r\na", CHUNKED + b"3\r\na"):
        client = connect()
        client.sendall(head)
        assert refusal(read_all(client))[0] == 408


def test_a_refused_body_that_continues_is_cut_off(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal arrives at once; the connection is closed although the client keeps sending."""
    monkeypatch.setattr(protocol, "REST", 0.2)
    client, stop = connect(), threading.Event()
    client.sendall(POST + b"Content-Length: 99999999999\r\n\r\n")
    assert status_of(client) == 413

    def send() -> None:
        while not stop.wait(0.01):
            try:
                client.sendall(b"a" * 100)
            except OSError:
                return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert statuses(read_all(client)) == []
    finally:
        stop.set()
        sender.join()


def test_an_answer_that_is_not_read_frees_its_place_after_the_deadline(
    connect: Connect, held: Any, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "DELIVERY", 0.3)
    monkeypatch.setattr(app, "MAX_REQUESTS", 1)
    held.serving = type(held.serving)("cells", "1", {}, lambda *_, **__: Answer(bytes(20_000_000)))
    client = connect()
    client.sendall(IMAGE)
    limit = time.monotonic() + 30
    while ask("POST /invocations", PNG, "image/png").status != 429:
        assert time.monotonic() < limit
    held.serving = type(held.serving)("cells", "1", {}, lambda *_, **__: Answer(PNG))
    while ask("POST /invocations", PNG, "image/png").status != 200:
        assert time.monotonic() < limit
    assert len(read_all(client)) < 20_000_000


def test_pipelined_requests_without_a_reader_are_cut_off(
    connect: Connect, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "DELIVERY", 0.3)
    client = connect()
    client.settimeout(0.5)
    requests = HEALTH.replace(b"/health", b"/openapi.json") * 100_000
    with pytest.raises(OSError):
        client.sendall(requests)
    assert ask("GET /health").status == 200


def test_the_connections_that_waited_longest_are_closed(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol.Connection.__init__, "__kwdefaults__", {"limit": 3})
    monkeypatch.setattr(protocol, "FRESH", 0)
    clients = []
    for number in range(8):
        clients.append(connect())
        clients[-1].sendall(HEALTH[: 10 + number])
        time.sleep(0.05)  # keeps the order of arrival
    closed = []
    for number, client in enumerate(clients):
        if number < 5:
            closed.append(statuses(read_all(client)))
        else:
            client.sendall(HEALTH[10 + number :])
            assert status_of(client) == 200
    assert [503] in closed and all(answers in ([], [503]) for answers in closed)  # no refusal before the first byte


def test_idle_connections_do_not_keep_others_out(
    connect: Connect, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol.Connection.__init__, "__kwdefaults__", {"limit": 8})
    for number in range(50):
        client = connect()
        client.sendall((b"", b"GET", HEALTH, POST + b"Content-Length: 9\r\n\r\n")[number % 4])
        if number % 10 == 0:
            assert ask("GET /health").status == 200
    assert ask("POST /invocations", PNG, "image/png").status == 200


def test_a_request_in_progress_is_not_closed_to_make_room(
    connect: Connect, held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol.Connection.__init__, "__kwdefaults__", {"limit": 1})
    called, allowed = threading.Event(), threading.Event()

    def answer(*_: Any, **__: Any) -> Answer:
        called.set()
        assert allowed.wait(30)
        return Answer(PNG)

    held.serving = type(held.serving)("cells", "1", {}, answer)
    client = connect()
    client.sendall(IMAGE)
    assert called.wait(30)
    assert refusal(read_all(connect())) == (503, "1 connections are open; try again in a second")
    allowed.set()
    assert status_of(client) == 200


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431, "header lines"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200, 431, "header lines"),
        (b"GET / HTTP/1.1\nHost: localhost\n" + b"A: b\n" * 200 + b"\n", 431, "header lines"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 40_000, 431, "too long"),
        (b"GET /" + b"a" * 40_000, 431, "too long"),
        (CHUNKED + b"0\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431, "header lines"),
        (CHUNKED + b"1\r\na\r\n000;x=y\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431, "header lines"),
        (CHUNKED + b"1\r\na\r\n" * 2000, 400, "64 bytes on average; send larger chunks"),
        (CHUNKED + b"1;" + b"a" * 40_000, 431, "too long"),
        (CHUNKED + b"zz\r\n", 400, "chunk"),
        (CHUNKED + b"-1\r\n", 400, "chunk"),
        (CHUNKED + b"1\r\nabc", 400, ""),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400, "must not have both"),
        (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "must not have both"),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "Content-Length"),
        (POST + b"Content-Length: +1\r\n\r\n", 400, "Content-Length"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400, "Transfer-Encoding"),
        (POST + b"Transfer-Encoding : chunked\r\n\r\n", 400, ""),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\n\r\n", 400, "Host"),
        (b"GET /\r\n\r\n", 400, ""),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 400, "HTTP/1.0 and HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, ""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, ""),
        (b"\r\n\r\n\r\n" + HEALTH, 400, ""),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x00\r\n\r\n", 400, ""),
    ],
)
def test_invalid_http_is_refused(connect: Connect, data: bytes, status: int, reason: str) -> None:
    client = connect()
    client.sendall(data)
    refused_with, message = refusal(read_all(client))
    assert refused_with == status and reason in message


def test_lines_of_a_body_do_not_count_as_header_lines(connect: Connect) -> None:
    # The data looks like the last chunk with trailers.
    data = b"0\r\n" + b"a\r\n" * 500
    for sent in (b"Content-Length: %d\r\n\r\n" % len(data) + data, b"Transfer-Encoding: chunked\r\n\r\n"):
        client = connect()
        client.sendall(POST + sent + (b"" if b"Content" in sent else b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)))
        assert status_of(client) == 400
        client.sendall(HEALTH)
        assert status_of(client) == 200


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET http://localhost/health HTTP/1.1", 400),
        (b"OPTIONS * HTTP/1.1", 400),
        (b"CONNECT localhost:80 HTTP/1.1", 400),
        (b"TRACE /health HTTP/1.1", 405),
        (b"OPTIONS /invocations HTTP/1.1", 405),
        (b"DELETE /invocations HTTP/1.1", 405),
        (b"BREW /health HTTP/1.1", 405),
        (b"GET //health HTTP/1.1", 404),
        (b"GET /../health HTTP/1.1", 404),
        (b"GET /%00%ff%0d%0a HTTP/1.1", 404),
        (b"GET /health?a=%0d%0ab HTTP/1.1", 200),
        (b"GET /health HTTP/1.0", 200),
    ],
)
def test_unusual_requests_have_the_expected_status(connect: Connect, request_line: bytes, status: int) -> None:
    for headers in (b"", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"):
        client = connect()
        client.sendall(request_line + b"\r\nHost: localhost\r\n" + headers + b"\r\n")
        assert status_of(client) == status


def test_a_client_that_expects_100_continue_is_answered(connect: Connect) -> None:
    client = connect()
    head, _, image = IMAGE.partition(b"\r\n\r\n")
    client.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
    assert client.recv(65_536).startswith(b"HTTP/1.1 100")
    client.sendall(image)
    assert status_of(client) == 200


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HEALTH, [200]),
        (b"GET /health HTTP/1.0\r\n\r\n", [200]),
        (IMAGE, [200]),
        (IMAGE + HEALTH + IMAGE, [200, 200, 200]),
        (HEALTH * 300, [200] * 300),
        (POST + b"Content-Length: 9999999\r\n\r\n", [413]),
        (b"", []),
        (HEALTH[:-2], [400]),
        (HEALTH + HEALTH[:-2], [200, 400]),
        (IMAGE[:-1], [400]),
        (CHUNKED + b"1\r\na\r\n", [400]),
        (CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(PNG), PNG), [200]),
    ],
)
def test_a_half_closed_connection_is_answered(connect: Connect, data: bytes, expected: list[int]) -> None:
    client = connect()
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    assert statuses(read_all(client)) == expected


def test_pipelined_requests_are_answered_in_order(connect: Connect) -> None:
    client = connect()
    paths = [b"/health", b"/none", b"/version", b"/", b"/openapi.json"] * 20
    client.sendall(b"".join(HEALTH.replace(b"/health", path) for path in paths))
    client.shutdown(socket.SHUT_WR)
    answers = read_all(client).split(b"HTTP/1.1 ")[1:]
    assert [int(answer[:3]) for answer in answers] == [404 if path == b"/none" else 200 for path in paths]
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answers]
    assert bodies[:5] * 20 == bodies and len(set(bodies)) == 5


@pytest.mark.parametrize("data", [HEALTH * 20_000, CHUNKED + b"64\r\n%b\r\n" % bytes(100) * 20_000])
def test_received_data_wait_in_the_operating_system(running: Any, connect: Connect, data: bytes) -> None:
    """The server never holds more than a few reads of one client, however fast all clients send."""
    server, _ = running
    clients = [connect() for _ in range(8)]
    threads = [threading.Thread(target=exchange, args=(client, data)) for client in clients]
    for thread in threads:
        thread.start()
    held = []
    while any(thread.is_alive() for thread in threads):
        held += [len(connection.conn.trailing_data[0]) for connection in list(server.server_state.connections)]
        time.sleep(0.002)
    assert 0 < max(held) <= 3 * protocol.READ


def exchange(client: socket.socket, data: bytes) -> None:
    """Send `data`, and read for a second at most whatever the server answers."""
    sender = threading.Thread(target=send_all, args=(client, data))
    sender.start()
    end = time.monotonic() + 1
    with suppress(OSError):  # the server may have refused the request and closed the connection
        while time.monotonic() < end and client.recv(65_536):
            pass
        client.shutdown(socket.SHUT_RDWR)
    sender.join()


def send_all(client: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        client.sendall(data)


@pytest.mark.parametrize("leave", [lambda client: client.shutdown(socket.SHUT_WR), lambda client: client.close()])
def test_the_end_of_a_request_is_handled_once(
    connect: Connect, held: Any, monkeypatch: pytest.MonkeyPatch, leave: Callable[[socket.socket], None]
) -> None:
    """The event loop does not spin while a client that sends no more waits for its answer, or has left."""
    ends: list[float] = []
    allowed, handle = threading.Event(), protocol.Connection.eof_received

    def count(connection: protocol.Connection) -> bool:
        ends.append(time.monotonic())
        return handle(connection)

    def answer(*_: Any, **__: Any) -> Answer:
        assert allowed.wait(30)
        return Answer(PNG)

    monkeypatch.setattr(protocol.Connection, "eof_received", count)
    held.serving = type(held.serving)("cells", "1", {}, answer)
    client = connect()
    client.sendall(IMAGE)
    leave(client)
    limit = time.monotonic() + 30
    while not ends:
        assert time.monotonic() < limit
    time.sleep(0.2)
    allowed.set()
    assert len(ends) <= 3


def test_a_request_in_the_queue_is_answered_before_the_shutdown(
    running: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, thread = running
    handle, held_back = protocol.Turns._handle_next, threading.Event()

    def wait(turns: protocol.Turns) -> None:
        held_back.set()
        asyncio.get_running_loop().call_later(0.5, handle, turns)

    monkeypatch.setattr(protocol.Turns, "_handle_next", wait)
    client = connect()
    client.sendall(HEALTH)
    assert held_back.wait(30)
    server.should_exit = True
    assert statuses(read_all(client)) == [200]
    thread.join(30)
    assert not thread.is_alive()


def test_a_client_that_resets_its_connection_causes_no_error(
    connect: Connect, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The reset may arrive between the last two calls of the server: the write, and the end of writing."""

    def reset(_: object) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.selector_events._SelectorSocketTransport, "write_eof", reset)  # type: ignore[attr-defined]
        client = connect()
        client.sendall(CHUNKED + b"zz\r\n")
        assert statuses(read_all(client)) in ([], [400])
    assert ask("GET /health").status == 200
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


class Waiting:
    """Connection in phase "head" that may be closed to make room."""

    conn = SimpleNamespace(trailing_data=(b"",))

    def __init__(self, closed: list["Waiting"], since: float, *, asked: bool) -> None:
        self._closed, self._since, self._asked = closed, since, asked

    def _phase_now(self) -> str:
        return "head"

    def has_asked(self) -> bool:
        return self._asked

    def _abort(self) -> None:
        self._closed.append(self)


@pytest.mark.parametrize(
    ("others", "queue", "expected"),
    [
        ([(9, True), (8, True), (0, True), (0, False)], [], [0, 1]),  # those that have waited longest; two at once
        ([(9, True), (8, True), (7, True)], [0], [1, 2]),  # a queued connection waits for the server: it is last
        ([(9, True), (0, False)], [0], [0]),  # ... but before a new client
        ([(0, False), (0.5, False), (0.2, False)], [], [1]),  # only one new client
        ([(0, False), (0.5, False), (0.2, False)], [1], [2]),  # none whose first request has arrived
        ([(0.5, False)], [0], []),
    ],
)
def test_connections_are_closed_in_the_right_order(
    others: list[tuple[float, bool]], queue: list[int], expected: list[int]
) -> None:
    """Each connection is (seconds since its client was last heard, whether it has sent a request)."""
    closed: list[Waiting] = []
    refused: list[int] = []
    now = time.monotonic()
    connections: list[Any] = [Waiting(closed, now - age, asked=asked) for age, asked in others]
    turns = protocol.Turns()
    for number in queue:
        (turns._others if others[number][1] else turns._new).append(connections[number])
    this: Any = SimpleNamespace(_turns=turns, _limit=4, _refuse=lambda status, _: refused.append(status))
    protocol.Connection._make_room(this, connections)
    assert [connections.index(connection) for connection in closed] == expected
    assert refused == ([] if expected else [503])


class Handled:
    """Connection that has received three requests; an error of the first connection must not stop the others."""

    def __init__(self, turns: protocol.Turns, log: list["Handled"], *, new: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self._turns, self._log, self._new = turns, log, new

    def has_asked(self) -> bool:
        return not self._new

    def handle_received(self) -> None:
        self._log.append(self)
        self._new = False
        if self._log.count(self) < 3:
            self._turns.add(self)  # type: ignore[arg-type]
        if self is self._log[0]:
            raise RuntimeError


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ([False] * 4, [0, 1, 2, 3] * 3),
        ([True] * 3, [0, 1, 0, 2, 1, 0, 2, 1, 2]),
        ([False, False, False, True, True], [0, 3, 1, 4, 2, 0, 3, 1, 4, 2, 0, 3, 1, 4, 2]),
    ],
)
def test_each_iteration_of_the_loop_handles_one_connection_in_turn(new: list[bool], expected: list[int]) -> None:
    """The order is worked out by hand. Only the first request of a new connection is preferred."""

    async def order() -> list[int]:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        turns, log = protocol.Turns(), list[Handled]()
        connections = [Handled(turns, log, new=is_new) for is_new in new]
        for connection in [*connections, *connections]:  # the second time, all are already in the queue
            turns.add(connection)  # type: ignore[arg-type]
        for iteration in range(len(expected) + 1):
            assert len(log) == iteration
            await asyncio.sleep(0)
        return [connections.index(connection) for connection in log]

    assert asyncio.run(order()) == expected


def test_a_compressed_body_is_refused(ask: Callable[..., Any]) -> None:
    assert ask("POST /invocations", PNG, "image/png", Content_Encoding="gzip").status == 415
    assert ask("POST /invocations", PNG, "image/png", Content_Encoding="identity").status == 200


@pytest.mark.parametrize("data", [b"", b"GET", HEALTH, POST + b"Content-Length: 9\r\n\r\na", b"\x00", HEALTH + b"GET"])
def test_no_client_delays_the_shutdown(running: Any, connect: Connect, data: bytes) -> None:
    server, thread = running
    client = connect()
    client.sendall(data)
    answers = client.recv(65_536) if data in (HEALTH, b"\x00") else b""
    limit = time.monotonic() + 30
    while not server.server_state.connections and data != b"\x00":
        assert time.monotonic() < limit
        time.sleep(0.01)
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()
    if data.startswith(b"POST"):
        assert refusal(answers + read_all(client))[0] == 503
