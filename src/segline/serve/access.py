"""Check Host and Origin of requests, so that pages of other sites cannot ask this server through a browser."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from segline.serve.refused import RefusedError, refusal

_AUTHORITY = re.compile(r"(?P<host>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{0,5}))?", re.ASCII)
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/]+)", re.ASCII)
OWN_SITE = {"same-origin", "none"}  # of Sec-Fetch-Site; none: typed or bookmarked by the user


@dataclass(frozen=True)
class Access:
    """Decide whether a request is answered.

    Attributes
    ----------
    loopback : the server listens on this machine alone, so only its own names are answered.
    allowed : host names that are answered too; if there are any, no other name is, wherever the server listens.
    """

    loopback: bool
    allowed: frozenset[str] = field(default=frozenset())

    def check(self, method: str, hosts: Sequence[str], origins: Sequence[str], sites: Sequence[str]) -> None:
        """Raise RefusedError unless a request with these values of Host, Origin and Sec-Fetch-Site is answered."""
        if len(hosts) > 1 or len(origins) > 1:
            raise RefusedError(400, "more than one Host or Origin")
        authority = _authority(hosts[0]) if hosts else None
        if hosts:
            self._check_host(authority)
        if origins and not self._is_own(origins[0], authority):
            raise RefusedError(403, "a page of another origin asked; pages may ask the server that they came from")
        if method not in ("GET", "HEAD") and not set(sites) <= OWN_SITE:
            raise RefusedError(403, "a page of another site asked (Sec-Fetch-Site)")

    def _check_host(self, authority: tuple[str, str] | None) -> None:
        if authority is None:
            raise RefusedError(400 if not self.loopback else 421, "the Host of the request is no host name")
        if (self.loopback or self.allowed) and not (_is_loopback(authority[0]) or authority[0] in self.allowed):
            raise RefusedError(421, "this server does not answer for that Host; --allowed-host of the server adds one")

    def _is_own(self, origin: str, authority: tuple[str, str] | None) -> bool:
        found = _ORIGIN.fullmatch(origin.lower())
        if found is None or found["scheme"] not in ("http", "https"):
            return False
        theirs = _authority(found["authority"])
        if theirs is None:
            return False
        return theirs[0] in self.allowed or (found["scheme"] == "http" and theirs == authority)


class Guard:
    """ASGI middleware that refuses what `access` refuses, before anything of the request is looked at."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            values = (headers.getlist(name) for name in ("host", "origin", "sec-fetch-site"))
            try:
                self._access.check(scope["method"], *values)
                if not scope["path"].startswith("/"):
                    raise RefusedError(400, "the target of a request is a path, such as /health")
            except RefusedError as error:
                await refusal(error.status, str(error))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_loopback_address(address: str) -> bool:
    """Whether only this machine reaches what listens at this IP address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def host_name(text: str) -> str:
    """The normal form of a host name or address, without a port; ValueError where it is none."""
    authority = _authority(text)
    if authority is None or ":" in text.rpartition("]")[2]:
        raise ValueError(text)
    return authority[0]


def _authority(text: str) -> tuple[str, str] | None:
    """Host in lower case without a final dot, and port, of HTTP where none is given; None where it is neither."""
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None or int(found["port"] or 80) > 65535:
        return None
    return found["host"].removesuffix("."), str(int(found["port"] or 80))


def _is_loopback(host: str) -> bool:
    # Any port: an SSH tunnel or a container's port differs from ours, and no page can choose the name in Host.
    return host == "localhost" or host.endswith(".localhost") or is_loopback_address(host.strip("[]"))
