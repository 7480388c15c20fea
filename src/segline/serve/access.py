"""Check the Host and Origin headers of requests, so that web pages of other sites cannot use this server."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from segline.serve import refusals
from segline.serve.refusals import RefusedError

_AUTHORITY = re.compile(r"(?P<host>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{0,5}))?", re.ASCII)
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/]+)", re.ASCII)
OWN_SITE = {"same-origin", "none"}  # accepted in Sec-Fetch-Site; "none": the user typed the URL or used a bookmark


@dataclass(frozen=True)
class Access:
    """Rule that accepts or refuses a request by its Host, Origin and Sec-Fetch-Site headers.

    Attributes
    ----------
    loopback : True if the server listens on a loopback address. Host must then be a loopback name or an allowed name.
    allowed : further host names to accept. If there are any, Host must be one of them or a loopback name, whatever
        address the server listens on.
    """

    loopback: bool
    allowed: frozenset[str] = field(default=frozenset())

    def check(self, method: str, hosts: Sequence[str], origins: Sequence[str], sites: Sequence[str]) -> None:
        """Raise RefusedError if the Host, Origin or Sec-Fetch-Site headers of a request are not acceptable."""
        if len(hosts) > 1 or len(origins) > 1:
            raise RefusedError(400, "the request has more than one Host or Origin header")
        authority = _authority(hosts[0]) if hosts else None
        if hosts:
            self._check_host(authority)
        if origins and not self._is_own(origins[0], authority):
            raise RefusedError(
                403,
                "the header Origin shows that the request comes from a page of another origin; use this server's own "
                "page",
            )
        if method not in ("GET", "HEAD") and not set(sites) <= OWN_SITE:
            raise RefusedError(
                403,
                "the header Sec-Fetch-Site shows that the request comes from a page of another site; use this server's "
                "own page",
            )

    def _check_host(self, authority: tuple[str, str] | None) -> None:
        if authority is None:
            raise RefusedError(421 if self.loopback else 400, "the header Host of the request is not a valid host name")
        if (self.loopback or self.allowed) and not (_is_loopback(authority[0]) or authority[0] in self.allowed):
            raise RefusedError(
                421,
                "this server does not accept the host name in the header Host; start the server with "
                "--allowed-host HOST",
            )

    def _is_own(self, origin: str, authority: tuple[str, str] | None) -> bool:
        match = _ORIGIN.fullmatch(origin.lower())
        if match is None or match["scheme"] not in ("http", "https"):
            return False
        origin_authority = _authority(match["authority"])
        if origin_authority is None:
            return False
        return origin_authority[0] in self.allowed or (match["scheme"] == "http" and origin_authority == authority)


class Guard:
    """ASGI middleware that checks each request with `access` before any other code reads the request."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the application, or send a refusal."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            values = (headers.getlist(name) for name in ("host", "origin", "sec-fetch-site"))
            try:
                self._access.check(scope["method"], *values)
                if not scope["path"].startswith("/"):
                    raise RefusedError(400, "the target of the request must be a path, such as /health")
            except RefusedError as error:
                await refusals.response(error.status, str(error))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_loopback_address(address: str) -> bool:
    """Return whether `address` is an IP address that only this machine can reach."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def host_name(text: str) -> str:
    """Return a host name or IP address in normal form; raise ValueError if `text` is neither, or includes a port."""
    authority = _authority(text)
    if authority is None or ":" in text.rpartition("]")[2]:
        raise ValueError(text)
    return authority[0]


def _authority(text: str) -> tuple[str, str] | None:
    """Split HOST:PORT into host (lower case, no final dot) and port (default 80); return None if `text` is invalid."""
    match = _AUTHORITY.fullmatch(text.lower())
    if match is None or int(match["port"] or 80) > 65535:
        return None
    return match["host"].removesuffix("."), str(int(match["port"] or 80))


def _is_loopback(host: str) -> bool:
    # Check only the host name, because a web page cannot forge it. SSH tunnels and containers may change the port.
    return host == "localhost" or host.endswith(".localhost") or is_loopback_address(host.strip("[]"))
