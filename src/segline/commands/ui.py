"""`segline ui`: MLflow's page on the project's store, in one small server that ends with the command."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from segline.addresses import shown
from segline.track.location import Place
from segline.track.store import open_store

HOST = "127.0.0.1"
PATIENCE = 120  # seconds that the server may take to answer; 15 are usual
GRACE = 10  # seconds that it may take to end


class PageError(RuntimeError):
    """The page cannot be shown; the message says what to do."""


def main(port: int, say: Callable[[str], None]) -> None:
    """Show the page until interrupted; `say` is told its address.

    Raises
    ------
    PageError
        The port is taken, or MLflow's server does not start.
    """
    store = open_store()
    if store.place.uri.startswith(("http://", "https://")):
        say(f"the runs are kept by the server at {shown(store.place.uri)} (MLFLOW_TRACKING_URI): open that")
        return
    if store.place.copy is not None:
        say("the project is read-only: the page shows a copy, and what is changed on it is not kept")
    say("starting MLflow's page; this takes some fifteen seconds")
    with server(store.place, port) as process:
        say(f"http://{HOST}:{port}/#/experiments/{store.experiment_id}/runs  (Ctrl-C ends it)")
        say("in a new browser click `Model training`, upper left, once: else MLflow's menu has no Model registry")
        if process.wait():
            raise PageError(f"MLflow's server ended with exit code {process.returncode}; its last lines say why")


@contextmanager
def server(place: Place, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server on the store at `place`, answering; ended with all its processes when the block is left."""
    _check_free(port)
    # Jobs are a dozen processes that segline has no use for; the warnings are about MLflow's own code.
    # The address is no argument: it may hold a password, and anybody may list the arguments of a process.
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": place.uri,
        "MLFLOW_REGISTRY_STORE_URI": place.uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
    }
    process = subprocess.Popen(command(place, port), cwd=place.root, env=environment, start_new_session=True)
    previous = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        _wait(process, port)
        yield process
    except KeyboardInterrupt:
        pass
    finally:
        _end(process)
        for number, handler in previous.items():
            signal.signal(number, handler)


def command(place: Place, port: int) -> list[str]:
    """How MLflow's server is started; its stores are named in its environment."""
    artifacts = ["--default-artifact-root", str(place.artifacts), "--artifacts-destination", str(place.artifacts)]
    network = ["--host", HOST, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning"]
    return [sys.executable, "-m", "mlflow", "server", *artifacts, *network]


def _leave(number: int, _: object) -> None:
    sys.exit(128 + number)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise PageError(f"port {port} cannot be used ({error}); choose another with --port") from None


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when the server answers."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise PageError(f"MLflow's server ended with exit code {process.returncode}; its last lines say why")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise PageError(f"MLflow's server did not answer on port {port} within {PATIENCE} seconds")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and the processes it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
