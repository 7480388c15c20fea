"""Addresses of servers, databases and remotes, shown without their passwords and tokens."""

import os
import re
import sys
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "..."
# Parameters of an address that hold no secret. Any other may hold one: names differ from server to server.
PLAIN = {
    *("host", "hostaddr", "port", "user", "dbname", "database", "service", "region"),
    *("charset", "driver", "encrypt", "timeout", "connect_timeout", "application_name", "mode", "cache"),
    *("ssl", "sslmode", "ssl_mode", "sslrootcert", "passfile", "trusted_connection", "trustservercertificate"),
}
ADDRESS = re.compile(r"\b[A-Za-z][\w+.-]*://[^\s'\"<>()]*[^\s'\"<>():.,;]")
SECRET_NAME = (
    r"[\w.-]*(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|signature|credential)[\w.-]*"
)
# `password=...` as libpq, ODBC and query strings write it; the value may be quoted.
SETTING = re.compile(rf"\b({SECRET_NAME})(\s*=\s*)('(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^\s&;,'\"]+)", re.IGNORECASE)
QUERY = re.compile(r"\?(?=[\w.-]+=)")
SECRET_VARIABLE = re.compile(r"(?:PASSWORD|PASSWD|TOKEN|SECRET|API_KEY|ACCESS_KEY)", re.IGNORECASE)
SHORT = 3  # letters of a secret that is only hidden where it stands as a word
LONG = 11  # letters of a user's name; what is longer may be a token


def shown(address: str) -> str:
    """Return `address` with ``...`` in the place of passwords, tokens and parameters that may hold some.

    Examples
    --------
    >>> shown("postgresql://me:tiger@host/runs?sslmode=require&sslpassword=lion")
    'postgresql://me:...@host/runs?sslmode=require&sslpassword=...'
    >>> shown("https://TOKEN@host/")
    'https://...@host/'
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return SETTING.sub(_setting, address)
    user, rest = _user(rest)
    if user is not None:
        name, colon, _ = user.partition(":")
        # Of a web server the name may be the token: https://TOKEN@host, https://TOKEN:x-oauth-basic@host.
        if scheme.lower().startswith("http") and (not colon or len(name) > LONG):
            name = HIDDEN
        elif colon:
            name = f"{name}:{HIDDEN}"
        rest = f"{name}@{rest}"
    rest, hash_sign, fragment = rest.partition("#")
    path, mark, query = rest.partition("?")
    query = "&".join(_parameter(part) for part in query.split("&"))
    return f"{scheme}://{path}{mark}{query}{hash_sign}{HIDDEN if '=' in fragment else fragment}"


def hide(text: str, *addresses: str) -> str:
    """Return `text`, such as an error that quotes an address, without the secrets in it.

    Hidden are those of every address in `text`, of `addresses`, of the environment and of the command line, however
    they are spelled: as they are, percent-encoded or decoded.
    """
    text = ADDRESS.sub(lambda found: shown(found[0]), text)
    text = SETTING.sub(_setting, text)
    secrets = {spelling for secret in _known(addresses) for spelling in _spellings(secret)}
    for secret in sorted(secrets, key=len, reverse=True):
        pattern = re.escape(secret) if len(secret) > SHORT else rf"(?<!\w){re.escape(secret)}(?!\w)"
        text = re.sub(pattern, HIDDEN, text)
    return text


def secrets(address: str) -> Iterator[str]:
    """Find the secrets in `address`, as they are spelled there."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        yield from (found[3].strip("'\"") for found in SETTING.finditer(address))
        return
    user, rest = _user(rest)
    if user is not None:
        name, colon, password = user.partition(":")
        if scheme.lower().startswith("http") and (not colon or len(name) > LONG):
            yield name
        if colon:
            yield password
            # A parser may take a part for the host or the port, and quote it.
            parts = re.split(r"[/?#@:]", f"{password}/{unquote(password)}")
            yield from (part for part in parts if len(part) > SHORT)
    for part in rest.partition("#")[0].partition("?")[2].split("&"):
        name, _, value = part.partition("=")
        if name.lower() not in PLAIN and (len(value) > SHORT or SETTING.match(part)):
            yield value


def _user(rest: str) -> tuple[str | None, str]:
    """Split what follows ``://`` into user:password and the rest; a password may hold / ? and @ unencoded."""
    head = QUERY.split(rest, maxsplit=1)[0]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not authority or "@" not in rest:
        return None, rest
    if "@" not in head:  # in the query: of a password with a question mark, or of a parameter
        if not re.search(r":(?!\d*$)", authority):
            return None, rest
        head = rest
    user, _, _ = head.rpartition("@")
    return user, rest[len(user) + 1 :]


def _parameter(part: str) -> str:
    name, equals, value = part.partition("=")
    return f"{name}={HIDDEN}" if equals and value and name.lower() not in PLAIN else part


def _setting(found: re.Match[str]) -> str:
    return found[0] if found[1].lower() in PLAIN else f"{found[1]}{found[2]}{HIDDEN}"


def _known(addresses: tuple[str, ...]) -> Iterator[str]:
    """Find the secrets that this process was told."""
    for name, value in os.environ.items():
        if SECRET_VARIABLE.search(name):
            if len(value) > SHORT:  # not a switch, such as 1
                yield value
        elif "://" in value:
            yield from secrets(value)
    for address in (*addresses, *sys.argv[1:]):
        yield from secrets(address)


def _spellings(secret: str) -> set[str]:
    decoded = {secret, unquote(secret), unquote_plus(secret)}
    spelled = {each for text in decoded for each in (text, quote(text), quote(text, safe=""), quote_plus(text))}
    return {each for each in spelled if each and each != HIDDEN}
