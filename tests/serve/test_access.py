"""Host and Origin: the requests that a server answers, on loopback and on other addresses."""

from collections.abc import Callable
from typing import Any

import pytest

from segline.serve.access import Access, host_name, is_loopback_address
from segline.serve.refusals import RefusedError
from tests.serve.test_app import PNG, reason

LOOPBACK = Access(loopback=True)
OPEN = Access(loopback=False)
NAMED = Access(loopback=False, allowed=frozenset({"seg.example.org"}))
PROXIED = Access(loopback=True, allowed=frozenset({"seg.example.org"}))


@pytest.mark.parametrize(
    ("access", "host", "status"),
    [
        *(
            (LOOPBACK, host, 200)
            for host in ("localhost", "LOCALHOST.", "localhost:8000", "a.localhost:9", "127.0.0.1")
        ),
        *((LOOPBACK, host, 200) for host in ("127.9.9.9:80", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]")),
        *((LOOPBACK, host, 200) for host in ("[::ffff:127.0.0.1]:8000",)),
        *((LOOPBACK, host, 421) for host in ("evil.com", "localhost.evil.com", "127.0.0.1.evil.com", "evillocalhost")),
        *((LOOPBACK, host, 421) for host in ("", ":8000", "10.0.0.1", "0.0.0.0", "[::]", "::1", "127.1", "2130706433")),
        *((LOOPBACK, host, 421) for host in ("a@localhost", "localhost@evil.com", "localhost:x", "localhost:99999")),
        *(
            (LOOPBACK, host, 421)
            for host in ("localhost/", "localhost, evil.com", "localhost evil", "лocalhost", "[::1")
        ),
        (LOOPBACK, "[::ffff:10.0.0.1]", 421),
        (OPEN, "lab-server:8000", 200),
        (OPEN, "10.0.0.1", 200),
        (OPEN, "a b", 400),
        (OPEN, "a@b", 400),
        (NAMED, "SEG.example.org.:443", 200),
        (NAMED, "localhost:8000", 200),
        (NAMED, "lab-server:8000", 421),
        (PROXIED, "seg.example.org", 200),
        (PROXIED, "evil.com", 421),
    ],
)
def test_hosts_are_accepted_or_refused(access: Access, host: str, status: int) -> None:
    assert status_of(access, "GET", [host]) == status


@pytest.mark.parametrize(
    ("access", "host", "origin", "status"),
    [
        (LOOPBACK, "localhost:8000", "http://localhost:8000", 200),
        (LOOPBACK, "LOCALHOST:8000", "http://localhost:8000", 200),
        (LOOPBACK, "localhost", "http://localhost:80", 200),
        (LOOPBACK, "[::1]:8000", "http://[::1]:8000", 200),
        (LOOPBACK, "localhost:8000", "http://localhost:9000", 403),
        (LOOPBACK, "localhost:8000", "http://127.0.0.1:8000", 403),
        (LOOPBACK, "localhost:8000", "https://localhost:8000", 403),
        (LOOPBACK, "localhost:8000", "http://evil.com", 403),
        (LOOPBACK, "localhost:8000", "http://localhost:8000.evil.com", 403),
        (LOOPBACK, "localhost:8000", "http://localhost:8000@evil.com", 403),
        (LOOPBACK, "localhost:8000", "http://localhost:8000/", 403),
        (LOOPBACK, "localhost:8000", "http://localhost:8000 http://evil.com", 403),
        (LOOPBACK, "localhost:8000", "null", 403),
        (LOOPBACK, "localhost:8000", "", 403),
        (LOOPBACK, "localhost:8000", "file://", 403),
        (LOOPBACK, "localhost:8000", "chrome-extension://localhost:8000", 403),
        (OPEN, "lab:8000", "http://lab:8000", 200),
        (OPEN, "lab:8000", "http://other:8000", 403),
        (PROXIED, "127.0.0.1:8000", "https://seg.example.org", 200),
        (PROXIED, "seg.example.org", "https://seg.example.org", 200),
        (PROXIED, "seg.example.org", "https://evil.com", 403),
    ],
)
def test_origins_are_accepted_or_refused(access: Access, host: str, origin: str, status: int) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        assert status_of(access, method, [host], [origin]) == status


@pytest.mark.parametrize(
    ("method", "site", "status"),
    [
        ("POST", "cross-site", 403),
        ("POST", "same-site", 403),
        ("POST", "anything", 403),
        ("POST", "same-origin", 200),
        ("POST", "none", 200),
        ("GET", "cross-site", 200),  # a link to the page
    ],
)
def test_sites_are_accepted_or_refused(method: str, site: str, status: int) -> None:
    assert status_of(LOOPBACK, method, ["localhost"], [], [site]) == status


def test_a_header_given_twice_is_refused() -> None:
    assert status_of(LOOPBACK, "GET", ["localhost", "localhost"]) == 400
    assert status_of(LOOPBACK, "GET", ["localhost"], ["http://localhost"] * 2) == 400
    assert status_of(LOOPBACK, "GET", []) == 200, "h11 refuses HTTP/1.1 without a Host; HTTP/1.0 needs none"


def status_of(access: Access, method: str, hosts: list[str], origins: Any = (), sites: Any = ()) -> int:
    try:
        access.check(method, hosts, origins, sites)
    except RefusedError as error:
        return error.status
    return 200


@pytest.mark.parametrize("path", ["/health", "/", "/version", "/openapi.json", "/none"])
def test_every_path_refuses_another_host(ask: Callable[..., Any], path: str) -> None:
    answer = ask(f"GET {path}", Host="evil.com")
    assert "--allowed-host" in reason(answer, 421)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_a_page_of_another_origin_is_refused(ask: Callable[..., Any], port: int) -> None:
    assert "origin" in reason(ask("POST /invocations", PNG, "image/png", Origin="http://evil.com"), 403)
    assert "site" in reason(ask("POST /invocations", PNG, "image/png", Sec_Fetch_Site="cross-site"), 403)
    own = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}", "Sec_Fetch_Site": "same-origin"}
    assert ask("POST /invocations", PNG, "image/png", **own).status == 200


def test_forwarded_headers_have_no_effect(ask: Callable[..., Any]) -> None:
    answer = ask("GET /health", Host="evil.com", X_Forwarded_Host="localhost", X_Forwarded_For="127.0.0.1")
    assert answer.status == 421


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.2", False),
        ("localhost", False),
    ],
)
def test_loopback_addresses_are_recognised(address: str, loopback: bool) -> None:
    assert is_loopback_address(address) == loopback


def test_host_names_are_normalised_or_refused() -> None:
    assert [host_name(text) for text in ("Seg.Example.org.", "[::1]", "10.0.0.1")] == [
        "seg.example.org",
        "[::1]",
        "10.0.0.1",
    ]
    for text in ("http://a", "a:80", "", "a b", "*", "a/b", "[::1]:80"):
        with pytest.raises(ValueError):
            host_name(text)
