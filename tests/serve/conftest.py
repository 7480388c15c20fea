"""A server on a free port, with a model whose answers are easy to predict."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import uvicorn

from segline.model.images import ImageError, decode, encode_png
from segline.model.objects import encode_probabilities
from segline.serve.access import Access
from segline.serve.app import Limits, build
from segline.serve.following import LoadedModel, Serving
from segline.serve.protocol import Connection, Turns
from segline.track.registry import Answer, RegistryError


def threshold(image: bytes, *, views: int = 0, probabilities: bool = False) -> Answer:
    """Label pixels above 127 as class 1, one object; multiply probabilities by the views; grey images only."""
    try:
        pixels = decode(image)
    except ImageError as error:
        raise RegistryError(f"image 0: {error}") from error
    if pixels.shape[2] != 1:
        raise RegistryError("image 0: an image with 3 channels, but the model was trained on 1")
    labels = (pixels[..., 0] > 127).astype(np.uint8)
    probability_file = encode_probabilities(np.stack([1 - labels, labels]).astype(np.float32) * (views or 1))
    return Answer(
        encode_png(labels), encode_png(labels.astype(np.uint16) * 300), probability_file if probabilities else None
    )


@dataclass
class Held:
    """A stand-in for Follower that holds a fixed version and counts the checks."""

    serving: Serving
    address: str = "models:/cells@champion"
    aliases: tuple[str, ...] = ("champion",)
    checked: str = "2026-01-01T00:00:00+00:00"
    problem: str | None = None
    checks: int = 0

    def check(self) -> None:
        self.checks += 1


class HttpAnswer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


Ask = Callable[..., HttpAnswer]


def serving(number: str = "1", answer: LoadedModel = threshold) -> Serving:
    tags = {"version.md5": "f" * 32, "classes": '{"0": "background", "1": "cell"}', "channels": "1", "dtype": "uint8"}
    return Serving("cells", number, tags, answer)


@pytest.fixture
def held() -> Held:
    return Held(serving())


@pytest.fixture
def limits() -> Limits:
    return Limits(bytes=200_000, pixels=10_000)


@pytest.fixture
def running(held: Held, limits: Limits) -> Iterator[tuple[uvicorn.Server, threading.Thread]]:
    """Start a server, and return it with its thread."""
    app = build(held, limits, Access(loopback=True))  # type: ignore[arg-type]
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, ws="none", http=partial(Connection, turns=Turns()), log_level="critical")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    limit = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < limit, "the server did not start"
        time.sleep(0.01)
    yield server, thread
    server.should_exit = True
    thread.join()


@pytest.fixture
def port(running: tuple[uvicorn.Server, threading.Thread]) -> int:
    """Port of the server."""
    return int(running[0].servers[0].sockets[0].getsockname()[1])


@pytest.fixture
def ask(port: int) -> Ask:
    """Return a function that sends a request: method and path, body, content type, headers."""

    def call(target: str, body: bytes | None = None, content_type: str = "", **headers: str) -> HttpAnswer:
        method, path = target.split(" ", 1)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            fields |= {"Content-Type": content_type} if content_type else {}
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            return HttpAnswer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    return call
