"""`segline serve` with hostile clients: half-open, slow, pipelined, reset, half-closed, not reading, damaged requests.

SEGLINE_SOAK_CLIENTS sets the number of clients, by default 4,000: about 570 of each kind, from 8 threads.
"""

import http.client
import os
import subprocess
import threading
import time
from contextlib import closing

import psutil
import pytest

from segline.serve import protocol
from segline.track.packaging import Parts
from tests.serve.clients import ALLOWED, Crowd
from tests.soak import test_serve

pytestmark = pytest.mark.soak

CLIENTS = int(os.environ.get("SEGLINE_SOAK_CLIENTS", "4000"))
THREADS = 8
GROWTH = 64 * 2**20  # bytes
SECONDS = 5  # limit for /health, which usually takes milliseconds

made, project, store, parts = test_serve.made, test_serve.project, test_serve.store, test_serve.parts
other_code, no_surroundings = test_serve.other_code, test_serve.no_surroundings
versions, server, port = test_serve.versions, test_serve.server, test_serve.port


def test_hostile_clients_cause_no_server_error(server: "subprocess.Popen[str]", port: int, parts: Parts) -> None:
    """No server error but 503; /health answers meanwhile; memory does not grow; all connections are closed."""
    process = psutil.Process(server.pid)
    crowds = [Crowd(port, parts.example, seed) for seed in range(THREADS)]
    _run_clients(crowds, CLIENTS // 10)
    files, memory = _files_at_rest(process, crowds), process.memory_info().rss
    stop, probes = threading.Event(), list[tuple[int, float]]()
    probing = threading.Thread(target=_probe, args=(port, stop, probes))
    probing.start()
    try:
        _run_clients(crowds, CLIENTS)
    finally:
        stop.set()
        probing.join()
    assert _files_at_rest(process, crowds) <= files
    grown = process.memory_info().rss - memory
    statuses = sum((crowd.statuses for crowd in crowds[1:]), crowds[0].statuses)
    slowest = max(seconds for _, seconds in probes)
    print(  # noqa: T201
        f"{sum(crowd.kinds.total() for crowd in crowds)} clients: {dict(sorted(statuses.items()))}; {len(probes)} "
        f"times /health, at most {slowest * 1e3:.0f} ms; memory grew by {grown / 2**20:.1f} MiB"
    )
    assert set(statuses) <= ALLOWED
    assert {status for status, _ in probes} == {200} and slowest < SECONDS
    assert grown < GROWTH
    assert "Traceback" not in test_serve.ended(server)


def _run_clients(crowds: list[Crowd], number: int) -> None:
    def run(crowd: Crowd) -> None:
        for _ in range(number // THREADS):
            crowd.act()

    threads = [threading.Thread(target=run, args=(crowd,)) for crowd in crowds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _files_at_rest(process: psutil.Process, crowds: list[Crowd]) -> int:
    """Count the open files of the server after all clients have left and every deadline has passed."""
    for crowd in crowds:
        crowd.leave()
    limit = time.monotonic() + protocol.HEAD + protocol.DELIVERY
    while len(process.net_connections()) > 1 and time.monotonic() < limit:  # the listener remains
        time.sleep(0.5)
    return int(process.num_fds())


def _probe(port: int, stop: threading.Event, probes: list[tuple[int, float]]) -> None:
    while not stop.wait(0.05):
        start = time.monotonic()
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request("GET", "/health")
                status = connection.getresponse().status
        except OSError:
            status = 0
        probes.append((status, time.monotonic() - start))
