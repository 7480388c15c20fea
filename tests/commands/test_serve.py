"""The command: where it listens, what it says, and how it ends."""

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

import numpy as np
import pytest

from segline.commands import serve
from segline.commands.serve import FILES, TAKEN, ServeError, listening
from segline.model.images import encode_png
from segline.serve.protocol import CONNECTIONS

PNG = encode_png(np.zeros((4, 4), np.uint8))

SERVE = """
import sys, time
from segline import signals
from segline.commands import serve
from segline.serve.app import Limits
from segline.serve.following import Serving
from segline.track.registry import Answer

class Held:
    problem, checked, name, aliases, address = None, "", "cells", (), "models:/cells@champion"
    def __init__(self, *_, **__):
        def answer(image, **_):
            print("asked", flush=True)
            time.sleep(1)
            return Answer(image)
        self.serving = Serving("cells", "1", {}, answer)
    def check(self):
        pass

signals.install()
serve.Follower, serve.open_store = Held, lambda: None
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


def test_what_is_under_way_is_finished(process: "subprocess.Popen[str]") -> None:
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

    asking = threading.Thread(target=ask)
    asking.start()
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGTERM)
    asking.join()
    assert answers == [(200, PNG)]
    rest = process.communicate(timeout=30)[0].splitlines()
    assert '"POST /invocations HTTP/1.1" 200' in rest[0]
    assert rest[1:] == ["ended"]
    assert process.returncode == 0


def test_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ServeError, match="--port"), listening("127.0.0.1", other.getsockname()[1]):
            pass


@pytest.mark.parametrize("host", ["no such host", "", "a" * 300])
def test_host_that_is_none(host: str) -> None:
    with pytest.raises(ServeError, match="--host"), listening(host, 0):
        pass


@pytest.mark.parametrize("host", ["http://a", "a:80", "", "*", "a b"])
def test_allowed_host_that_is_none(host: str) -> None:
    with pytest.raises(ServeError, match="--allowed-host"):
        serve.main("models:/cells@champion", "127.0.0.1", 0, serve.Limits(1, 1), print, allowed_hosts=[host])


@pytest.mark.parametrize(
    ("limits", "set_to", "most"),
    [
        ((20_000, 20_000), None, CONNECTIONS),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None, CONNECTIONS),
        ((64, 20_000), 10 + FILES + TAKEN + CONNECTIONS, CONNECTIONS),
        ((64, resource.RLIM_INFINITY), 10 + FILES + TAKEN + CONNECTIONS, CONNECTIONS),
        ((64, 10 + FILES + TAKEN + 20), 10 + FILES + TAKEN + 20, 20),
        ((64, 64), 64, None),
    ],
)
def test_connections_leave_files_to_others(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], set_to: int | None, most: int | None
) -> None:
    wanted: list[int] = []
    current = [limits]

    def limit(_: int, new: tuple[int, int]) -> None:
        wanted.append(new[0])
        current[0] = new

    monkeypatch.setattr(serve, "_open_files", lambda: 10)
    monkeypatch.setattr(resource, "getrlimit", lambda _: current[0])
    monkeypatch.setattr(resource, "setrlimit", limit)
    if most is None:
        with pytest.raises(ServeError, match="ulimit -n"):
            serve.most_connections()
    else:
        assert serve.most_connections() == most
    assert wanted == ([] if set_to is None else [set_to])


def test_it_is_not_open_before_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def load(*_: object) -> None:
        with socket.socket() as probe:
            tried.append(probe.connect_ex(("127.0.0.1", port)))
        raise KeyError("weights")

    with listening("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(serve, "open_store", load)
    with pytest.raises(KeyError):
        serve.main("models:/cells@champion", "127.0.0.1", port, serve.Limits(1, 1), print)
    assert tried != [0]
