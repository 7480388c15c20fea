"""The server over HTTP: each kind of request, each refusal and its reason, and requests at the same time."""

import base64
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from segline.model.images import decode, encode_png
from segline.serve import app, body
from segline.serve.following import LoadedModel
from segline.track.registry import Answer

IMAGE = np.random.default_rng(0).integers(0, 256, (9, 12), np.uint8)
PNG = encode_png(IMAGE)
BOUNDARY = "multipart/form-data; boundary=x"
MLFLOW = "application/json"


def form(data: bytes, disposition: str = 'form-data; name="file"; filename="a.png"') -> bytes:
    return b"--x\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + data + b"\r\n--x--\r\n"


def mlflow(*images: bytes, **params: Any) -> bytes:
    content: dict[str, Any] = {"inputs": [base64.b64encode(image).decode() for image in images]}
    return json.dumps({**content, "params": params} if params else content).encode()


def reason(answer: Any, status: int) -> str:
    """Return the message of a refusal, which must have this status."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/json"
    content = json.loads(answer.body)
    assert set(content) == {"error_code", "message"}
    return str(content["message"])


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (PNG, "image/png"),
        (PNG, "IMAGE/PNG; name=x"),
        (PNG, "application/octet-stream"),
        (form(PNG), BOUNDARY),
        (form(PNG, 'form-data; name="picture"; filename=""'), BOUNDARY),
    ],
)
def test_an_image_is_answered_with_an_image(ask: Callable[..., Any], data: bytes, content_type: str) -> None:
    answer = ask("POST /invocations", data, content_type)
    assert (answer.status, answer.headers["Content-Type"], answer.headers["Model-Version"]) == (
        200,
        "image/png",
        "cells/1",
    )
    np.testing.assert_array_equal(decode(answer.body)[..., 0], IMAGE > 127)


@pytest.mark.parametrize("suffix", ["jpg", "tif", "bmp"])
def test_other_image_formats_are_answered(ask: Callable[..., Any], tmp_path: Path, suffix: str) -> None:
    Image.fromarray(IMAGE).save(tmp_path / f"a.{suffix}")
    answer = ask("POST /invocations", (tmp_path / f"a.{suffix}").read_bytes(), "image/*")
    read = np.array(Image.open(tmp_path / f"a.{suffix}"))
    assert (decode(answer.body)[..., 0] != (read > 127)).mean() < 0.1  # JPEG decoders differ by rounding


def test_output_and_views_select_the_answer(ask: Callable[..., Any]) -> None:
    objects = decode(ask("POST /invocations?output=instances", PNG, "image/png").body)
    np.testing.assert_array_equal(objects[..., 0], (IMAGE > 127) * 300)
    picture = decode(ask("POST /invocations?output=overlay", PNG, "image/png").body)
    assert picture.shape == (9, 12, 3)
    answer = ask("POST /invocations?output=probabilities&views=4", PNG, "image/png")
    assert answer.headers["Content-Type"] == "image/tiff"
    np.testing.assert_array_equal(decode(answer.body)[..., 1], (IMAGE > 127) * np.float32(4))
    assert "output" in reason(ask("POST /invocations?output=segments", PNG, "image/png"), 400)
    assert "views must be one of 1, 4, 8" in reason(ask("POST /invocations?views=3", PNG, "image/png"), 400)
    assert "views" in reason(ask("POST /invocations?views=many", PNG, "image/png"), 400)


def test_json_is_answered_in_mlflows_format(ask: Callable[..., Any]) -> None:
    answer = ask("POST /invocations", mlflow(PNG, PNG), MLFLOW)
    assert answer.status == 200
    records = json.loads(answer.body)["predictions"]
    assert [set(record) for record in records] == [{"labels"}] * 2
    np.testing.assert_array_equal(decode(base64.b64decode(records[1]["labels"]))[..., 0], IMAGE > 127)
    records = json.loads(ask("POST /invocations", mlflow(PNG, instances=True), MLFLOW).body)["predictions"]
    np.testing.assert_array_equal(decode(base64.b64decode(records[0]["instances"]))[..., 0], (IMAGE > 127) * 300)
    request = mlflow(PNG, probabilities=True, views=8)
    (record,) = json.loads(ask("POST /invocations", request, MLFLOW).body)["predictions"]
    assert [*record] == ["labels", "probabilities"]
    np.testing.assert_array_equal(decode(base64.b64decode(record["probabilities"]))[..., 1], (IMAGE > 127) * 8)


@pytest.mark.parametrize(
    ("data", "content_type", "status", "expected"),
    [
        (b"", "image/png", 400, "not a readable PNG"),
        (b"GIF89a", "image/gif", 400, "not a readable GIF"),
        (PNG[:-9], "image/png", 400, "truncated"),
        (encode_png(np.zeros((4, 4, 3), np.uint8)), "image/png", 400, "an image with 3 channels"),
        (
            encode_png(np.zeros((101, 100), np.uint8)),
            "image/png",
            413,
            "100 x 101 px; the images of one request may have 0.01",
        ),
        (bytes(200_001), "image/png", 413, "larger than 0.2 MB"),
        (form(bytes(200_001)), BOUNDARY, 413, "larger than 0.2 MB"),
        (PNG, "", 415, "curl -F"),
        (PNG, "text/csv", 415, "curl -F"),
        (PNG, "application/x-www-form-urlencoded", 415, "curl -F"),
        (form(PNG), "multipart/form-data", 400, "boundary"),
        (b"--y\r\n", BOUNDARY, 400, "form cannot be read"),
        (form(PNG, 'form-data; name="file"'), BOUNDARY, 400, "has no file"),
        (form(PNG).removesuffix(b"--x--\r\n") + form(PNG), BOUNDARY, 400, "several files"),
        (b"", BOUNDARY, 400, "has no file"),
        (b"{", MLFLOW, 400, "not valid JSON"),
        (mlflow(PNG, PNG[:50]), MLFLOW, 400, "image 1: not a readable"),
        (mlflow(PNG, encode_png(np.zeros((101, 100), np.uint8))), MLFLOW, 413, "image 1: the image has 100 x 101"),
        (mlflow(PNG, *[encode_png(np.zeros((50, 100), np.uint8))] * 2), MLFLOW, 413, "image 2: the image has 100 x 50"),
        (json.dumps({"inputs": ["\ud800"]}).encode(), MLFLOW, 400, "not base64"),
    ],
)
def test_an_invalid_request_is_refused(
    ask: Callable[..., Any], data: bytes, content_type: str, status: int, expected: str
) -> None:
    assert expected in reason(ask("POST /invocations", data, content_type), status)


def test_unknown_paths_and_methods_are_refused(ask: Callable[..., Any]) -> None:
    assert "/openapi.json" in reason(ask("GET /invocation"), 404)
    answer = ask("GET /invocations")
    assert (reason(answer, 405) != "", answer.headers["Allow"]) == (True, "POST")


@pytest.mark.parametrize("head", ["Content-Length: 300000", "Transfer-Encoding: chunked"])
def test_a_too_large_body_is_refused_and_the_connection_stays_usable(port: int, head: str) -> None:
    """With and without Content-Length; the next request on the connection is answered."""
    lines = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n{head}\r\n\r\n"
    chunk = bytes(300_000)
    sent = chunk if "Length" in head else b"493e0\r\n" + chunk + b"\r\n0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for request, status in (
            (lines.encode() + sent, 413),
            (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ):
            connection.sendall(request)
            with http.client.HTTPResponse(connection) as answer:
                answer.begin()
                assert (answer.status, answer.read() != b"") == (status, True)


def test_a_body_that_does_not_arrive_is_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_TIMEOUT", 0.1)
    for kind in ("image/png", BOUNDARY):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 9\r\n\r\n"
            connection.sendall(head.encode())
            assert b" 408 " in connection.recv(10_000)


def test_clients_that_disconnect_free_their_places_in_the_queue(port: int, ask: Callable[..., Any]) -> None:
    for _ in range(app.MAX_REQUESTS + 1):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            head = (
                b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n"
            )
            connection.sendall(head)
    limit = time.monotonic() + 20
    while (status := ask("POST /invocations", PNG, "image/png").status) != 200 and time.monotonic() < limit:
        time.sleep(0.01)
    assert status == 200


class Gate:
    """A model that waits for permission before it answers."""

    def __init__(self, answer: LoadedModel) -> None:
        self.called, self.allowed, self.answer = threading.Semaphore(0), threading.Semaphore(0), answer

    def __call__(self, image: bytes, **options: Any) -> Answer:
        self.called.release()
        assert self.allowed.acquire(timeout=20)
        return self.answer(image, **options)


def with_answer(held: Any, number: str, answer: Callable[..., Answer]) -> Any:
    return type(held.serving)("cells", number, held.serving.tags, answer)


def test_a_request_in_progress_is_finished_by_the_old_version(held: Any, ask: Callable[..., Any]) -> None:
    new, gate = held.serving, Gate(held.serving.answer)
    held.serving = with_answer(held, "1", gate)
    answers: list[Any] = []
    request = threading.Thread(target=lambda: answers.append(ask("POST /invocations", mlflow(PNG, PNG), MLFLOW)))
    request.start()
    assert gate.called.acquire(timeout=20)
    held.serving = with_answer(held, "2", new.answer)
    assert json.loads(ask("GET /version").body)["version"] == "2"
    for _ in range(2):
        gate.allowed.release()
    request.join()
    assert (answers[0].status, answers[0].headers["Model-Version"]) == (200, "cells/1")
    assert ask("POST /invocations", PNG, "image/png").headers["Model-Version"] == "cells/2"


def test_requests_beyond_the_queue_are_refused(
    held: Any, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_REQUESTS", 2)
    gate = Gate(held.serving.answer)
    held.serving = with_answer(held, "1", gate)
    answers: list[Any] = []
    requests = [
        threading.Thread(target=lambda: answers.append(ask("POST /invocations", PNG, "image/png"))) for _ in range(4)
    ]
    for thread in requests:
        thread.start()
    limit = time.monotonic() + 20
    while len(answers) < 2 and time.monotonic() < limit:
        time.sleep(0.01)
    assert ask("GET /health").status == 200
    for _ in range(2):
        gate.allowed.release()
    for thread in requests:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200, 200, 429, 429]
    refused = [answer for answer in answers if answer.status == 429]
    assert "waiting" in reason(refused[0], 429)
    assert refused[0].headers["Retry-After"] == "1"
    assert gate.called.acquire(blocking=False) and gate.called.acquire(blocking=False)
    assert not gate.called.acquire(blocking=False)


def test_an_error_of_the_model_is_reported_without_its_message(held: Any, ask: Callable[..., Any]) -> None:
    def broken(_: bytes, **__: object) -> Answer:
        raise KeyError("secret")

    held.serving = with_answer(held, "1", broken)
    message = reason(ask("POST /invocations", PNG, "image/png"), 500)
    assert "KeyError" in message and "secret" not in message


def test_a_model_without_instances_refuses_instances(held: Any, ask: Callable[..., Any]) -> None:
    held.serving = with_answer(held, "1", lambda *_, **__: Answer(PNG))
    assert ask("POST /invocations", PNG, "image/png").body == PNG
    assert ask("POST /invocations?output=overlay", PNG, "image/png").status == 200
    assert "without instances" in reason(ask("POST /invocations?output=instances", PNG, "image/png"), 400)
    assert "without instances" in reason(ask("POST /invocations", mlflow(PNG, instances=True), MLFLOW), 400)


def test_health_and_version(held: Any, ask: Callable[..., Any]) -> None:
    assert ask("GET /ping").body == ask("GET /health").body
    assert json.loads(ask("GET /health").body)["status"] == "ok"
    held.problem = "the registry cannot be read"
    answer = ask("GET /health")
    assert answer.status == 200
    assert json.loads(answer.body)["status"] == "degraded"
    assert json.loads(answer.body)["problem"] == held.problem
    assert json.loads(ask("GET /version").body) == {
        "name": "cells",
        "version": "1",
        "aliases": ["champion"],
        "md5": "f" * 32,
        "address": "models:/cells@champion",
    }


@pytest.mark.parametrize(
    "name",
    [
        "клетки",
        "zellen kern",
        "it's",
        'a"b',
        "[red]x",
        "a\x1b[31mb",
        "a\nb",
        "a\r\nSet-Cookie: b",
        "🧫",
        "a?b#c",
        "100%",
        "<script>alert(1)</script>",
        "&amp;",
        "{{ 7 * 7 }}",
        "e\u0301",
        "\u202eslle",
    ],
)
def test_any_model_name_is_reported_safely(held: Any, ask: Callable[..., Any], name: str) -> None:
    held.serving = replace(held.serving, name=name)
    held.address, held.aliases = f"models:/{name}@champion", (name,)
    answer = ask("POST /invocations", PNG, "image/png")
    assert answer.status == 200 and "Set-Cookie" not in answer.headers
    encoded, number = answer.headers["Model-Version"].split("/")
    assert (unquote(encoded, errors="strict"), number) == (name, "1") and re.fullmatch(r"[\w.~%-]+", encoded, re.ASCII)
    assert json.loads(ask("GET /health").body.decode("ascii"))["model"] == name
    version = json.loads(ask("GET /version").body.decode("ascii"))
    assert (version["name"], version["aliases"]) == (name, [name])
    page = ask("GET /")
    text = page.body.decode()
    assert page.status == 200 and f"<title>{escape(name)}</title>" in text and text.count("<script>") == 1


def test_no_answer_contains_a_path(held: Any, ask: Callable[..., Any]) -> None:
    def broken(_: bytes, **__: object) -> Answer:
        raise OSError(2, "No such file", "/home/someone/project/mlruns/model")

    held.serving = with_answer(held, "1", broken)
    for target in ("GET /health", "GET /version", "GET /", "GET /openapi.json", "GET /none", "POST /invocations"):
        answer = ask(target, PNG if "POST" in target else None, "image/png" if "POST" in target else "")
        assert "someone" not in answer.body.decode() and str(Path.cwd()) not in answer.body.decode()


def test_the_alias_is_polled(held: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(app, "POLL_INTERVAL", 0.01)
    request.getfixturevalue("port")
    limit = time.monotonic() + 20
    while held.checks < 3 and time.monotonic() < limit:
        time.sleep(0.01)
    assert held.checks >= 3


def test_a_registry_that_hangs_does_not_delay_the_shutdown(
    held: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    called, released, returned = threading.Event(), threading.Event(), threading.Event()

    def check() -> None:
        called.set()
        released.wait(30)
        returned.set()

    monkeypatch.setattr(app, "POLL_INTERVAL", 0.01)
    held.check = check
    server, thread = request.getfixturevalue("running")
    assert called.wait(30)
    server.should_exit = True
    thread.join()
    assert not returned.is_set()
    released.set()


def test_the_schema_describes_every_path(ask: Callable[..., Any]) -> None:
    schema = json.loads(ask("GET /openapi.json").body)
    assert set(schema["paths"]) == {"/", "/health", "/ping", "/version", "/invocations"}
    operation = schema["paths"]["/invocations"]["post"]
    assert {"image/png", "image/tiff", "multipart/form-data", MLFLOW} <= set(operation["requestBody"]["content"])
    assert set(operation["responses"]) == {"200", "4XX"}
