"""`segline serve` under load: damaged requests, an alias that moves, and the same model on MLflow's own server.

SEGLINE_SOAK_REQUESTS sets the number of damaged requests.
"""

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from segline.gate import champion
from segline.model.images import decode, encode_png
from segline.track.packaging import Parts
from segline.track.registry import Registry
from segline.track.store import Store
from segline.track.verdict import Verdict
from tests.data import test_reader_fuzz as fuzz
from tests.track import conftest as track

pytestmark = pytest.mark.soak

TESTS = Path(__file__).parents[1]
REQUESTS = int(os.environ.get("SEGLINE_SOAK_REQUESTS", "1500"))
WARM = 300  # requests after which memory must not grow
GROWTH = 32 * 2**20  # bytes of tolerated growth
MOVES = 6
CLIENTS = 4
TAGS = {"model.md5": "m", "channels": "1", "dtype": "uint8", "classes": '{"0": "background", "1": "cell"}'}
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


made, project, store, parts, other_code = track.made, track.project, track.store, track.parts, track.other_code
no_surroundings = track.no_surroundings


@pytest.fixture
def versions(store: Store, parts: Parts, other_code: Callable[[str, str, str], Parts]) -> dict[str, bytes]:
    """Register version 1, the champion, and version 2 with changed code; return their answers to the example."""
    changed = other_code("inference.py", "Prediction(class_labels(", "Prediction(1 - class_labels(")
    inverse = replace(changed, answer=encode_png(1 - decode(parts.answer)[..., 0]))
    registry = Registry(store, "cells")
    for version in (parts, inverse):
        with store.start_run("train") as run:
            champion.register(registry, version, run, Verdict(()), TAGS)
    return {"1": parts.answer, "2": inverse.answer}


@pytest.fixture
def server(versions: dict[str, bytes], project: Path) -> Iterator["subprocess.Popen[str]"]:  # noqa: ARG001
    """Run the command in the project; it logs to serve.log there."""
    command = [sys.executable, "-m", "segline", "serve", "--model", "models:/cells@champion", "--port", "0"]
    with (project / "serve.log").open("w") as log:
        process = subprocess.Popen([*command, "--max-megabytes", "1"], stdout=log, stderr=log, cwd=project, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def port(server: "subprocess.Popen[str]", project: Path) -> int:
    limit = time.monotonic() + 300
    while "curl" not in (log := (project / "serve.log").read_text()):
        assert server.poll() is None and time.monotonic() < limit, log
        time.sleep(0.1)
    return int(log.split("http://127.0.0.1:")[1].split()[0])


@pytest.fixture
def connection(port: int) -> Iterator[http.client.HTTPConnection]:
    """Open a connection to the server that is kept between requests."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as opened:
        yield opened


def ask(connection: http.client.HTTPConnection, body: bytes, kind: str) -> tuple[int, str, bytes]:
    connection.request("POST", "/invocations", body, {"Content-Type": kind})
    answer = connection.getresponse()
    return answer.status, answer.headers.get("Model-Version", ""), answer.read()


def ended(server: "subprocess.Popen[str]") -> str:
    """Stop the server and return its log; the project is the working directory."""
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    return Path("serve.log").read_text()


def form(data: bytes) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    return head + data + b"\r\n--x--\r\n"


def records(data: bytes) -> bytes:
    return json.dumps({"dataframe_records": [{"image": base64.b64encode(data).decode()}]}).encode()


WAYS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "image": ("image/png", bytes),
    "form": ("multipart/form-data; boundary=x", form),
    "JSON": ("application/json", records),
}


def damaged_requests(number: int) -> Iterator[tuple[str, bytes]]:
    """Yield content type and body of requests whose image or whole body is damaged."""
    files = [(name, data) for name, (_, data) in fuzz.valid().items()]
    everything = [data for _, data in files]
    for case in range(number):
        rng = np.random.default_rng((7, case))
        name, data = files[case % len(files)]
        kind, packed = WAYS[list(WAYS)[case // len(files) % len(WAYS)]]
        if rng.random() < 0.3:
            yield kind, fuzz.damaged(packed(data), everything, rng)
            continue
        data = fuzz.damaged(data, everything, rng)
        yield kind, packed(fuzz.signed(data) if name.startswith("png") and rng.random() < 0.7 else data)


def test_damaged_requests_are_refused_or_answered(
    server: "subprocess.Popen[str]", connection: http.client.HTTPConnection, versions: dict[str, bytes], parts: Parts
) -> None:
    """Damaged images, forms and JSON are refused, or answered if the damage has no effect; memory does not grow."""
    counts: Counter[int] = Counter()
    memory = 0
    for number, (kind, body) in enumerate(damaged_requests(REQUESTS)):
        status, _, answer = ask(connection, body, kind)
        counts[status] += 1
        assert status in (200, 400, 413, 415), answer
        assert status == 200 or json.loads(answer)["message"]
        if number == WARM:
            memory = psutil.Process(server.pid).memory_info().rss
    grown = psutil.Process(server.pid).memory_info().rss - memory
    assert ask(connection, parts.example, "image/png")[::2] == (200, versions["1"])
    print(f"{REQUESTS} requests: {dict(counts)}; memory grew by {grown / 2**20:.1f} MiB")  # noqa: T201
    assert counts[400] > 0.6 * REQUESTS
    assert grown < GROWTH
    assert "Traceback" not in ended(server)


POST = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\n"
GARBAGE = (
    b"",
    b"\x00" * 100,
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    POST + b"Content-Length: -1\r\n\r\n",
    POST + b"Content-Length: 99999999999999999999\r\nContent-Type: image/png\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\nContent-Type: image/png\r\n\r\nzz\r\n",
    POST + b"Content-Type: \xff\xfe\r\nContent-Length: 1\r\n\r\na",
    POST.replace(b" HTTP", b"?output=%00%ff HTTP") + b"Content-Type: image/png\r\nContent-Length: 1\r\n\r\na",
    POST + b"Content-Length: 9\r\nContent-Type: multipart/form-data\r\n\r\n",
)


def test_invalid_http_is_refused(
    server: "subprocess.Popen[str]", port: int, connection: http.client.HTTPConnection
) -> None:
    for data in GARBAGE:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as opened:
            opened.sendall(data)
            opened.shutdown(socket.SHUT_WR)
            try:
                answer = opened.recv(100)
            except ConnectionResetError:
                continue
            assert answer == b"" or answer.split()[1][:1] == b"4", (data[:100], answer)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    assert "Traceback" not in ended(server)


def test_generated_requests_agree_with_the_schema(server: "subprocess.Popen[str]", port: int, project: Path) -> None:
    """schemathesis finds no server error, and every answer agrees with the schema."""
    program = "from schemathesis.cli import schemathesis; schemathesis()"
    address = f"http://127.0.0.1:{port}/openapi.json"
    options = ["--checks", CHECKS, "--mode", "all", "--seed", "1", "--no-color", "--suppress-health-check", "all"]
    done = subprocess.run(
        [sys.executable, "-c", program, "run", address, "--max-examples", "40", *options],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    log = ended(server)
    print(done.stdout[-400:], Counter(re.findall(r'HTTP/1.1" (\d+)', log)))  # noqa: T201
    assert "Traceback" not in log


def test_no_request_is_dropped_while_the_alias_moves(
    server: "subprocess.Popen[str]",
    connection: http.client.HTTPConnection,
    store: Store,
    versions: dict[str, bytes],
    parts: Parts,
) -> None:
    counts: Counter[str] = Counter()
    wrong: list[Any] = []
    over = threading.Event()

    def client() -> None:
        with closing(http.client.HTTPConnection(connection.host, connection.port, timeout=120)) as own:
            while not over.is_set():
                try:
                    status, version, labels = ask(own, parts.example, "image/png")
                except (OSError, http.client.HTTPException) as error:
                    wrong.append(error)
                    return
                number = version.removeprefix("cells/")
                counts[number] += 1
                if status != 200 or labels != versions[number]:
                    wrong.append((status, version, labels))

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in clients:
        thread.start()
    try:
        for move in range(MOVES):
            number = "12"[(move + 1) % 2]
            store.client.set_registered_model_alias("cells", "champion", number)
            _await_version(connection, number)
    finally:
        over.set()
        for thread in clients:
            thread.join()
    print(f"{dict(counts)} requests by version, {len(wrong)} dropped or wrong, {MOVES} moves")  # noqa: T201
    assert wrong == []
    assert set(counts) == {"1", "2"}
    assert ended(server).count(" replaces version ") == MOVES


def _await_version(connection: http.client.HTTPConnection, number: str) -> None:
    limit = time.monotonic() + 120
    while True:
        connection.request("GET", "/version")
        if json.loads(connection.getresponse().read())["version"] == number:
            return
        assert time.monotonic() < limit
        time.sleep(0.3)


def test_mlflow_serves_the_same_model(versions: dict[str, bytes], project: Path, parts: Parts) -> None:
    """Start MLflow's server with the command line of docs/serve.md."""
    (line,) = (
        text for text in (TESTS.parent / "docs" / "serve.md").read_text().splitlines() if "mlflow models" in text
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    del environment["PYTHONPATH"]
    with (project / "mlflow.log").open("w") as log:
        process = subprocess.Popen(
            line.replace("8001", str(port)), shell=True, cwd=project, env=environment, stdout=log, stderr=log
        )
    try:
        limit = time.monotonic() + 300
        while True:
            assert process.poll() is None and time.monotonic() < limit, (project / "mlflow.log").read_text()
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                try:
                    status, _, answer = ask(connection, records(parts.example), "application/json")
                    break
                except ConnectionRefusedError:
                    time.sleep(0.5)
        assert status == 200, answer
        (record,) = json.loads(answer)["predictions"]
        assert base64.b64decode(record["labels"]) == versions["1"]
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            child.kill()
        process.wait()
