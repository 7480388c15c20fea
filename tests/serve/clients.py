"""Hostile clients: half-open, slow, pipelined, reset, half-closed, not reading, or sending damaged requests."""

import base64
import errno
import json
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

HEAD = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\n"
STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
ALLOWED = {200, 400, 403, 404, 405, 408, 413, 415, 421, 429, 431, 503}
HELD = 200  # half-open connections at once; more than the server keeps


def requests(image: bytes) -> list[bytes]:
    """Return valid requests, each answered with status 200."""
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + image + b"\r\n--x--\r\n"
    text = json.dumps({"inputs": [base64.b64encode(image).decode()]}).encode()
    half = len(image) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (image[:half], image[half:], b""))
    return [
        *(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in (b"/health", b"/version", b"/")),
        HEAD + b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(image) + image,
        HEAD + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n" % len(form) + form,
        HEAD + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text,
        HEAD + b"Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
    ]


class Crowd:
    """Random hostile clients of the server at `port`; `statuses` counts the answers, `kinds` the clients."""

    def __init__(self, port: int, image: bytes, seed: int) -> None:
        self.statuses: Counter[int] = Counter()
        self.kinds: Counter[str] = Counter()
        self._port, self._requests, self._rng = port, requests(image), np.random.default_rng(seed)
        self._held: list[socket.socket] = []

    def act(self) -> None:
        """Run one random client."""
        kinds: list[Callable[[], None]] = [
            self.half_open,
            self.slow,
            self.pipelined,
            self.reset,
            self.half_closed,
            self.unread,
            self.damaged,
        ]
        kind = kinds[self._rng.integers(len(kinds))]
        self.kinds[kind.__name__] += 1
        with suppress(ConnectionError):
            kind()

    def leave(self) -> None:
        """Close all open connections."""
        for client in self._held:
            client.close()
        self._held.clear()

    def half_open(self) -> None:
        """Send a part of a request, and nothing more."""
        client = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        self._held.append(client)
        client.sendall(self._part())
        if len(self._held) > HELD:
            self._held.pop(0).close()

    def slow(self) -> None:
        """Send a request in small pieces."""
        request = self._request()
        with self._connected() as client:
            step = max(1, len(request) // 20)
            for start in range(0, len(request), step):
                client.sendall(request[start : start + step])
                time.sleep(0.001)
            self._stop_sending(client)
            self._read(client)

    def pipelined(self) -> None:
        """Send several requests at once, the last of them damaged."""
        sent = [self._request() for _ in range(self._rng.integers(1, 20))]
        with self._connected() as client:
            client.sendall(b"".join([*sent, self._damage(self._request())]))
            self._stop_sending(client)
            self._read(client)

    def reset(self) -> None:
        """Reset the connection in the middle of a request."""
        with self._connected() as client:
            client.sendall(self._part())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def half_closed(self) -> None:
        """Send a part of a request, or all of it, and close the sending side."""
        with self._connected() as client:
            client.sendall(self._part() if self._rng.random() < 0.5 else self._request())
            self._stop_sending(client)
            self._read(client)

    def unread(self) -> None:
        """Send many requests and read no answer."""
        with self._connected() as client:
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.sendall(self._request() * 50)

    def damaged(self) -> None:
        """Send a damaged request."""
        with self._connected() as client:
            client.sendall(self._damage(self._request()))
            self._stop_sending(client)
            self._read(client)

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self._port), timeout=60) as client:
            yield client

    def _stop_sending(self, client: socket.socket) -> None:
        """Close the sending side, unless the server has reset the connection by then."""
        try:
            client.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    def _read(self, client: socket.socket) -> None:
        answers = b""
        try:
            while piece := client.recv(65_536):
                answers += piece
        finally:
            self.statuses.update(int(status) for status in STATUS.findall(answers))

    def _request(self) -> bytes:
        return self._requests[self._rng.integers(len(self._requests))]

    def _part(self) -> bytes:
        request = self._request()
        return request[: self._rng.integers(len(request))]

    def _damage(self, data: bytes) -> bytes:
        """Change, remove, double or insert bytes of `data`, more often in its head than in its body."""
        damaged = bytearray(data)
        for _ in range(self._rng.integers(1, 5)):
            limit = len(damaged) if self._rng.random() < 0.3 else min(len(damaged), 150)
            start = int(self._rng.integers(limit + 1))
            end = start + int(self._rng.integers(8))
            other = self._request()[start : start + 40]
            piece = [self._rng.bytes(3), b"", damaged[start:end] * 2, b"\r\n", b"\x00", b" ", b":", other, b"9" * 30]
            damaged[start:end] = piece[self._rng.integers(len(piece))]
        return bytes(damaged)
