"""`segline serve`: a registered model over HTTP, in one process that follows the alias."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from segline.serve.app import Limits, build
from segline.serve.following import Follower
from segline.track.store import open_store

GRACE = 60  # seconds for requests under way, when the server is asked to end
BACKLOG = 128  # connections that wait to be taken
LOOPBACK = ("127.", "::1")
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


def main(model: str, host: str, port: int, limits: Limits, say: Callable[[str], None], *, trust: bool = False) -> None:
    """Serve the model at the address `model` until asked to end; what is under way then is finished.

    Parameters
    ----------
    model : such as ``models:/cells@champion``, which is followed, or ``models:/cells/3``.
    port : 0 for any that is free.
    say : is told where the server listens, and of each change of version.
    trust : the user vouches for versions of which registry.jsonl has no line.

    Raises
    ------
    ServeError
        The host or port cannot be used.
    RegistryError
        There is no such model.
    """
    with listening(host, port) as listener:
        follower = Follower(open_store(), model, say, trust=trust)
        listener.listen(BACKLOG)
        at = listener.getsockname()
        address = f"http://[{at[0]}]:{at[1]}" if ":" in at[0] else f"http://{at[0]}:{at[1]}"
        say(f"{follower.name} version {follower.serving.number} answers at {address}  (Ctrl-C ends it)")
        say(f"  curl -F file=@IMAGE {address}/invocations -o labels.png")
        if not at[0].startswith(LOOPBACK):
            say("  anyone who reaches this machine may ask: put a proxy in front where that is not wanted")
        config = uvicorn.Config(
            build(follower, limits),
            http="h11",
            ws="none",
            log_config=LOG,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        with _signals_end_well():
            uvicorn.Server(config).run(sockets=[listener])


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
