"""`segline serve`: a registered model over HTTP, in one process that follows the alias."""

import resource
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from segline.serve.access import Access, host_name, is_loopback_address
from segline.serve.app import Limits, build
from segline.serve.following import Follower
from segline.serve.protocol import CONNECTIONS, Connection
from segline.track.store import open_store

GRACE = 60  # seconds for requests under way, when the server is asked to end
TAKEN = 16  # connections taken at once, before those that were taken are served
BACKLOG = 1024  # connections that wait to be taken
FILES = 64  # that the model, the registry and the log may open beside the connections
FEWEST = 16  # connections with which it is worth to begin
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
    """The model cannot be served; the message says what to change."""


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
    """Serve the model at the address `model` until asked to end; what is under way then is finished.

    Parameters
    ----------
    model : such as ``models:/cells@champion``, which is followed, or ``models:/cells/3``.
    port : 0 for any that is free.
    say : is told where the server listens, and of each change of version.
    allowed_hosts : names in Host, and hosts of pages in Origin, that are answered beside the server's own.
    trust : the user vouches for versions of which registry.jsonl has no line.

    Raises
    ------
    ServeError
        The host or port cannot be used, an allowed host is no host name, or too few files may be open.
    RegistryError
        There is no such model.
    """
    allowed = _host_names(allowed_hosts)
    with listening(host, port) as listener:
        follower = Follower(open_store(), model, say, trust=trust)
        listener.listen(TAKEN)
        at = listener.getsockname()
        address = f"http://[{at[0]}]:{at[1]}" if ":" in at[0] else f"http://{at[0]}:{at[1]}"
        say(f"{follower.name} version {follower.serving.number} answers at {address}  (Ctrl-C ends it)")
        say(f"  curl -F file=@IMAGE {address}/invocations -o labels.png")
        access = Access(is_loopback_address(at[0]), allowed)
        if not access.loopback:
            say("  anyone who reaches this machine may ask: put a proxy in front where that is not wanted")
        config = uvicorn.Config(
            build(follower, limits, access),
            loop="asyncio",
            http=partial(Connection, most=most_connections()),  # type: ignore[arg-type]
            ws="none",
            backlog=TAKEN,
            proxy_headers=False,
            headers=HEADERS,
            log_config=LOG,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        with _signals_end_well():
            _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's server, with a longer line of connections that wait than it takes at once."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)


def most_connections() -> int:
    """How many connections may be open at once, by the limit of open files, which is raised where that is allowed.

    Raises
    ------
    ServeError
        The limit leaves too few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = _open_files() + FILES + TAKEN
    if soft != resource.RLIM_INFINITY and soft < used + CONNECTIONS:
        soft = used + CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, used + CONNECTIONS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = CONNECTIONS if soft == resource.RLIM_INFINITY else min(CONNECTIONS, soft - used)
    if most < FEWEST:
        raise ServeError(f"only {soft} files may be open, {used + FEWEST} are needed; raise the limit (ulimit -n)")
    return most


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def _host_names(texts: Sequence[str]) -> frozenset[str]:
    names = set()
    for text in texts:
        try:
            names.add(host_name(text))
        except ValueError:
            raise ServeError(f"--allowed-host {text}: give a host name without scheme and port") from None
    return frozenset(names)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at this place; not yet open to others, for loading a model takes seconds."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ServeError(f"--host {host} cannot be used ({error}); 127.0.0.1 is this machine alone") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(place)
        except (OSError, OverflowError) as error:
            raise ServeError(f"{host}, port {port}: cannot be used ({error}); choose another with --port") from None
        yield listener


@contextmanager
def _signals_end_well() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more when all is finished; here nothing is left to end."""
    former = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
