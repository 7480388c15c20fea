"""Latency of `/health` while hostile clients attack the server from the same machine.

segline serve --model models:/cells@champion --port 8000
python benchmarks/bench_health.py 8000 IMAGE    # three minutes
"""

import argparse
import base64
import http.client
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

SECONDS = 11  # length of one measurement
PAUSE = 0.05  # seconds between two requests
POST = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
FORM = POST + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def main() -> None:
    """Measure without an attack, then under each attack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("image", type=Path, help="image that the model accepts")
    parser.add_argument("--attack", help=argparse.SUPPRESS)  # be the process of the attacking clients
    arguments = parser.parse_args()
    if arguments.attack:
        attack(arguments.port, arguments.image.read_bytes(), arguments.attack)
        return
    print("| attack | clients | answers | median, ms | 95 %, ms | slowest, ms | not 200 |")
    print("|---|---|---|---|---|---|---|")
    for name, (clients, _) in {"none": (0, b""), **attacks(b"")}.items():
        command = [sys.executable, __file__, str(arguments.port), str(arguments.image), "--attack", name]
        process = subprocess.Popen(command) if clients else None
        try:
            time.sleep(1)  # until all clients attack
            milliseconds, failures = measure(arguments.port)
        finally:
            if process is not None:
                process.kill()
                process.wait()
        time.sleep(1)
        percentile = milliseconds[int(0.95 * len(milliseconds))] if milliseconds else math.nan
        values = (statistics.median(milliseconds or [math.nan]), percentile, max(milliseconds, default=math.nan))
        figures = " | ".join(f"{value:.0f}" for value in values)
        print(f"| {name} | {clients} | {len(milliseconds)} | {figures} | {failures} |", flush=True)


def measure(port: int) -> tuple[list[float], int]:
    """Return the latencies of /health in milliseconds, sorted, and the number of requests without status 200."""
    milliseconds, failures, end = list[float](), 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        start = time.perf_counter()
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            try:
                connection.request("GET", "/health")
                response = connection.getresponse()
                response.read()
                failures += response.status != 200
                milliseconds.append((time.perf_counter() - start) * 1e3)
            except (OSError, http.client.HTTPException):
                failures += 1
        time.sleep(PAUSE)
    return sorted(milliseconds), failures


def attacks(image: bytes) -> dict[str, tuple[int, bytes]]:
    """Return the number of clients of each attack, and the bytes that each client sends again and again."""
    form = PART + image + b"\r\n--x--\r\n"
    images = json.dumps({"inputs": [base64.b64encode(os.urandom(3000)).decode()] * 900}).encode()
    return {
        "half a head": (100, POST + b"Content-Le"),
        "slow body": (60, POST + b"Content-Type: image/png\r\nContent-Length: 100000\r\n\r\n"),
        "chunks of one byte": (8, CHUNKED + b"1\r\na\r\n" * 20_000),
        "chunks of 100 bytes": (8, CHUNKED + (b"64\r\n" + b"a" * 100 + b"\r\n") * 20_000),
        "2,000 pipelined requests": (40, HEALTH * 2000),
        "forms": (8, FORM % len(form) + form),
        "400,000 parts of a form": (4, FORM % (5 * 400_000) + b"--x\r\n" * 400_000),
        "900 images in JSON": (
            4,
            POST + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(images) + images,
        ),
        "clients that leave": (
            32,
            POST + b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(image) + image,
        ),
        "images": (4, POST + b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(image) + image),
        "2,000 header lines": (16, HEALTH[:-2] + b"".join(b"X-%d: a\r\n" % number for number in range(2000))),
    }


def attack(port: int, image: bytes, name: str) -> None:
    """Run the clients of one attack until this process is killed."""
    clients, data = attacks(image)[name]
    finish: Callable[[socket.socket], None] = {"half a head": wait, "slow body": drip, "clients that leave": leave}.get(
        name, read
    )

    def client() -> None:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(data)
                finish(connection)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()


def wait(_: socket.socket) -> None:
    """Hold the connection for a second."""
    time.sleep(1)


def leave(connection: socket.socket) -> None:
    """Close the sending side, and wait for the response."""
    connection.shutdown(socket.SHUT_WR)
    read(connection)


def drip(connection: socket.socket) -> None:
    """Send single bytes of a body for two seconds."""
    for _ in range(40):
        connection.sendall(b"x")
        time.sleep(0.05)


def read(connection: socket.socket) -> None:
    """Read the answers until the server has sent nothing for half a second."""
    connection.settimeout(0.5)
    while connection.recv(65_536):
        pass


if __name__ == "__main__":
    main()
