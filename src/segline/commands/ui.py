"""`segline ui`: show MLflow's page for the project's store, with a small server that stops when the command ends."""

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
START_TIMEOUT = 120  # seconds in which the server must be ready; about 15 are usual
GRACE_PERIOD = 10  # seconds in which the server must stop


class PageError(RuntimeError):
    """MLflow's page cannot be shown; the message gives the reason and what to do."""


def main(port: int, say: Callable[[str], None]) -> None:
    """Show MLflow's page until the user presses Ctrl-C; pass the address of the page to `say`.

    Raises
    ------
    PageError
        The port is taken, or MLflow's server does not start.
    """
    store = open_store()
    if store.place.uri.startswith(("http://", "https://")):
        say(
            f"the runs are on the server {shown(store.place.uri)} (MLFLOW_TRACKING_URI); open this address in a browser"
        )
        return
    if store.place.copy is not None:
        say("the project is read-only: the page shows a copy, and changes on it are lost")
    say("starting MLflow's page; this takes about 15 seconds")
    with server(store.place, port) as process:
        say(f"http://{HOST}:{port}/#/experiments/{store.experiment_id}/runs  (Ctrl-C stops the server)")
        say(
            "if MLflow's menu has no Model registry, click `Model training` (upper left); a new browser needs this once"
        )
        if process.wait():
            raise PageError(
                f"MLflow's server stopped with exit code {process.returncode}; see the last lines of its output above"
            )


@contextmanager
def server(place: Place, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run MLflow's server on the store at `place`; stop the server and its processes when the with statement ends."""
    _check_free(port)
    # Turn off warnings about MLflow's own code.
    # Turn off job execution, because it would start a dozen unneeded processes.
    # Keep the store's address, which may contain a password, out of the command line, which every user can see.
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
        _stop(process)
        for number, handler in previous.items():
            signal.signal(number, handler)


def command(place: Place, port: int) -> list[str]:
    """Return the command line of MLflow's server; the store's address is passed in environment variables instead."""
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
    """Wait until MLflow's server answers on `port`; raise PageError if the server stops or does not answer in time."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise PageError(
                f"MLflow's server stopped with exit code {process.returncode}; see the last lines of its output above"
            )
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise PageError(f"MLflow's server did not answer on port {port} within {START_TIMEOUT} seconds; try again")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server and the processes that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE_PERIOD)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
