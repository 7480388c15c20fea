"""`segline serve`: predict images over HTTP in one process; when the model's alias moves, load the new version."""

import gc
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from segline.serve.access import Access, host_name, is_loopback_address
from segline.serve.app import Limits, build
from segline.serve.following import ServedModel, load_served
from segline.serve.protocol import CONNECTIONS, Connection, Turns

GRACE_PERIOD = 60  # seconds for requests in progress when the server shuts down
ACCEPTED_AT_ONCE = 16  # connections that uvicorn accepts in one batch before it serves them
BACKLOG = 1024  # connections that wait to be accepted
RESERVED_FILES = 64  # open files for the model, the registry and the log, besides those for connections
MIN_CONNECTIONS = 16  # with a lower connection limit the server does not start
SWITCH_INTERVAL = 0.0005  # seconds for which a busy thread keeps Python's global lock; the default is 5 ms
HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cross-Origin-Resource-Policy", "same-origin")]
LOG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(asctime)s %(client_addr)s "%(request_line)s" %(status_code)s',
            "use_colors": False,
        },
        "error": {"format": "%(asctime)s %(message)s"},
    },
    "handlers": {
        "access": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stdout"},
        "error": {"class": "logging.StreamHandler", "formatter": "error"},
    },
    "loggers": {
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"handlers": ["error"], "level": "WARNING", "propagate": False},
    },
}


class ServeError(RuntimeError):
    """The model cannot be served; the message names the option or limit to change."""


def main(
    model: str,
    host: str,
    port: int,
    limits: Limits,
    say: Callable[[str], None],
    *,
    allowed_hosts: Sequence[str] = (),
    trust: bool = False,
) -> None:
    """Serve a model until SIGTERM or SIGINT, then finish the requests in progress.

    Parameters
    ----------
    model : ``models:/cells@champion`` follows the alias; ``models:/cells/3`` stays with version 3; or a model folder.
    port : 0 for any free port.
    say : called with the address of the server, and with each change of version.
    allowed_hosts : host names to accept in Host and Origin besides the server's own.
    trust : also serve versions without a line in registry.jsonl; the user vouches for them.

    Raises
    ------
    ServeError
        The host or port cannot be used, an allowed host is not a host name, or the limit on open files is too low.
    RegistryError
        There is no such model.
    """
    allowed = _host_names(allowed_hosts)
    with listening(host, port) as listener:
        follower = load_served(model, say, trust=trust)
        listener.listen(ACCEPTED_AT_ONCE)
        ip_address = listener.getsockname()[0]
        access = Access(is_loopback_address(ip_address), allowed)
        _announce(follower, listener, access, say)
        config = _configuration(build(follower, limits, access))
        gc.freeze()  # a collection that visits all objects of MLflow and torch would stop the event loop for 0.5 s
        # The event loop needs Python's global interpreter lock (GIL) after each system call.
        # Each wait for the GIL takes one switch interval while another thread parses a form or reads the registry.
        # Set a shorter switch interval than the default of 5 ms.
        sys.setswitchinterval(SWITCH_INTERVAL)
        with _signals_handled():
            _Server(config).run(sockets=[listener])


def _announce(follower: ServedModel, listener: socket.socket, access: Access, say: Callable[[str], None]) -> None:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # the server refuses a wildcard address as Host
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    say(f"{follower.name} version {follower.serving.number} answers at {address}  (Ctrl-C stops the server)")
    say(f"  curl -F file=@IMAGE {address}/invocations -o labels.png")
    if not access.loopback:
        say("  warning: anyone who can reach this machine can use the server; put a proxy in front to restrict access")


def _configuration(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=partial(Connection, turns=Turns(), limit=connection_limit()),  # type: ignore[arg-type]
        ws="none",
        backlog=ACCEPTED_AT_ONCE,
        proxy_headers=False,
        headers=HEADERS,
        log_config=LOG,
        server_header=False,
        timeout_graceful_shutdown=GRACE_PERIOD,
    )


class _Server(uvicorn.Server):
    """uvicorn's server, changed to accept connections in small batches and to keep a long backlog of waiting ones."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the server, then raise the limit on the number of connections that may wait to be accepted."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)


def connection_limit() -> int:
    """Return how many connections may be open at once; increase the soft limit on open files if necessary.

    Raises
    ------
    ServeError
        The limit on open files leaves room for fewer than MIN_CONNECTIONS connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = _open_files() + RESERVED_FILES + ACCEPTED_AT_ONCE
    if soft != resource.RLIM_INFINITY and soft < used + CONNECTIONS:
        soft = used + CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, used + CONNECTIONS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limit = CONNECTIONS if soft == resource.RLIM_INFINITY else min(CONNECTIONS, soft - used)
    if limit < MIN_CONNECTIONS:
        needed = used + MIN_CONNECTIONS
        raise ServeError(
            f"the limit on open files is {soft}, but the server needs {needed}; "
            f"raise the limit with `ulimit -n {needed}`"
        )
    return limit


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def _host_names(texts: Sequence[str]) -> frozenset[str]:
    names = set()
    for text in texts:
        try:
            names.add(host_name(text))
        except ValueError:
            raise ServeError(f"--allowed-host {text} is not a host name; give a name without scheme and port") from None
    return frozenset(names)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Bind a socket to `host` and `port`, but do not listen yet, because the caller must load a model first."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ServeError(f"--host {host} cannot be used ({error}); use 127.0.0.1 to serve only this machine") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(place)
        except (OSError, OverflowError) as error:
            raise ServeError(f"port {port} of {host} cannot be used ({error}); choose another with --port") from None
        yield listener


@contextmanager
def _signals_handled() -> Iterator[None]:
    """Ignore the SIGTERM or SIGINT that uvicorn raises again after its shutdown."""
    former = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
