"""`segline serve`: its address, its messages, its connection limit and its shutdown."""

import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from segline.commands import serve
from segline.commands.serve import ACCEPTED_AT_ONCE, RESERVED_FILES, ServeError, listening
from segline.model.images import encode_png
from segline.serve.access import Access
from segline.serve.protocol import CONNECTIONS

PNG = encode_png(np.zeros((4, 4), np.uint8))

SERVE = """
import sys, time
from segline import process
from segline.commands import serve
from segline.serve.app import Limits
from segline.serve.following import Serving
from segline.track.registry import Answer

class Held:
    problem, checked, name, aliases, address = None, "", "cells", (), "models:/cells@champion"
    def __init__(self, *_, **__):
        def answer(image, **_):
            print("request", flush=True)
            time.sleep(1)
            return Answer(image)
        self.serving = Serving("cells", "1", {}, answer)
    def check(self):
        pass

process.install()
serve.load_served = Held
serve.main("models:/cells@champion", "127.0.0.1", 0, Limits(10**6, 10**6), lambda line: print(line, flush=True))
print("ended", flush=True)
"""


@pytest.fixture
def process(tmp_path: Path, repository: Path) -> Iterator["subprocess.Popen[str]"]:
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    command = [sys.executable, "-c", SERVE]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as started:
        watchdog = threading.Timer(60, started.kill)
        watchdog.start()
        yield started
        watchdog.cancel()
        started.kill()


@pytest.mark.parametrize(
    ("address", "announced"),
    [("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000"), ("127.0.0.1", "http://127.0.0.1:8000")],
)
def test_the_announced_address_is_one_that_the_server_answers(address: str, announced: str) -> None:
    """A wildcard address as Host is refused."""
    listener = Mock(getsockname=lambda: (address, 8000))
    lines: list[str] = []
    follower = Mock(serving=Mock(number="3"))
    serve._announce(follower, listener, Access(loopback=address == "127.0.0.1"), lines.append)
    assert f"curl -F file=@IMAGE {announced}/invocations" in "".join(lines)
    assert ("warning: anyone" in "".join(lines)) == (address != "127.0.0.1")


def test_a_request_in_progress_is_finished_after_sigterm(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    address = process.stdout.readline().split(" answers at ")[1].split()[0]
    assert f"curl -F file=@IMAGE {address}/invocations" in process.stdout.readline()
    host = address.removeprefix("http://")
    assert host.startswith("127.0.0.1:")
    answers: list[Any] = []

    def ask() -> None:
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request("POST", "/invocations", PNG, {"Content-Type": "image/png"})
        answer = connection.getresponse()
        answers.append((answer.status, answer.read()))
        connection.close()

    client = threading.Thread(target=ask)
    client.start()
    assert process.stdout.readline() == "request\n"
    process.send_signal(signal.SIGTERM)
    client.join()
    assert answers == [(200, PNG)]
    rest = process.communicate(timeout=30)[0].splitlines()
    assert '"POST /invocations HTTP/1.1" 200' in rest[0]
    assert rest[1:] == ["ended"]
    assert process.returncode == 0


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        with pytest.raises(ServeError, match="--port"), listening("127.0.0.1", occupant.getsockname()[1]):
            pass


@pytest.mark.parametrize("host", ["no such host", "", "a" * 300])
def test_an_invalid_host_is_refused(host: str) -> None:
    with pytest.raises(ServeError, match="--host"), listening(host, 0):
        pass


@pytest.mark.parametrize("host", ["http://a", "a:80", "", "*", "a b"])
def test_an_invalid_allowed_host_is_refused(host: str) -> None:
    with pytest.raises(ServeError, match="--allowed-host"):
        serve.main("models:/cells@champion", "127.0.0.1", 0, serve.Limits(1, 1), print, allowed_hosts=[host])


@pytest.mark.parametrize(
    ("limits", "set_to", "expected"),
    [
        ((20_000, 20_000), None, CONNECTIONS),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None, CONNECTIONS),
        ((64, 20_000), 10 + RESERVED_FILES + ACCEPTED_AT_ONCE + CONNECTIONS, CONNECTIONS),
        ((64, resource.RLIM_INFINITY), 10 + RESERVED_FILES + ACCEPTED_AT_ONCE + CONNECTIONS, CONNECTIONS),
        ((64, 10 + RESERVED_FILES + ACCEPTED_AT_ONCE + 20), 10 + RESERVED_FILES + ACCEPTED_AT_ONCE + 20, 20),
        ((64, 64), 64, None),
    ],
)
def test_the_connection_limit_follows_the_limit_of_open_files(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], set_to: int | None, expected: int | None
) -> None:
    requested: list[int] = []
    current = [limits]

    def limit(_: int, new: tuple[int, int]) -> None:
        requested.append(new[0])
        current[0] = new

    monkeypatch.setattr(serve, "_open_files", lambda: 10)
    monkeypatch.setattr(resource, "getrlimit", lambda _: current[0])
    monkeypatch.setattr(resource, "setrlimit", limit)
    if expected is None:
        with pytest.raises(ServeError, match="ulimit -n"):
            serve.connection_limit()
    else:
        assert serve.connection_limit() == expected
    assert requested == ([] if set_to is None else [set_to])


def test_the_port_is_closed_until_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[int] = []

    def load(*_: object, **__: object) -> None:
        with socket.socket() as probe:
            results.append(probe.connect_ex(("127.0.0.1", port)))
        raise KeyError("weights")

    with listening("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(serve, "load_served", load)
    with pytest.raises(KeyError):
        serve.main("models:/cells@champion", "127.0.0.1", port, serve.Limits(1, 1), print)
    assert results != [0]
