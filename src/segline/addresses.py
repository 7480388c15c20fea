"""Hide passwords and tokens in URLs of servers, databases and remotes, and in messages."""

import os
import re
import sys
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "..."
# URL parameters that hold no secret. Any other parameter may hold one, because parameter names differ between servers.
PLAIN = {
    *("host", "hostaddr", "port", "user", "dbname", "database", "service", "region"),
    *("charset", "driver", "encrypt", "timeout", "connect_timeout", "application_name", "mode", "cache"),
    *("ssl", "sslmode", "ssl_mode", "sslrootcert", "passfile", "trusted_connection", "trustservercertificate"),
}
ADDRESS = re.compile(r"\b[A-Za-z][\w+.-]*://[^\s'\"<>()]*[^\s'\"<>():.,;]")
SECRET_NAME = (
    r"[\w.-]*(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|signature|credential)[\w.-]*"
)
# Match `password=...` in the syntax of libpq, ODBC and query strings; the value may be quoted.
SETTING = re.compile(rf"\b({SECRET_NAME})(\s*=\s*)('(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^\s&;,'\"]+)", re.IGNORECASE)
QUERY = re.compile(r"\?(?=[\w.-]+=)")
SECRET_VARIABLE = re.compile(r"(?:PASSWORD|PASSWD|TOKEN|SECRET|API_KEY|ACCESS_KEY)", re.IGNORECASE)
SHORT = 3  # characters; a secret up to this length is hidden only where it is a whole word
LONG = 11  # characters; a longer user name may be a token


def shown(address: str) -> str:
    """Return the URL `address` with ``...`` in place of passwords, tokens and parameters that may hold a secret.

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
        # In a URL, hide the user name if it may be a token: https://TOKEN@host, https://TOKEN:x-oauth-basic@host.
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
    """Return `text`, such as an error message, with ``...`` in place of secrets.

    The secrets come from URLs within `text`, from `addresses`, from the environment and from the command line.
    Each secret is hidden as it is, percent-encoded and decoded.
    """
    text = ADDRESS.sub(lambda match: shown(match[0]), text)
    text = SETTING.sub(_setting, text)
    secrets = {spelling for secret in _process_secrets(addresses) for spelling in _spellings(secret)}
    for secret in sorted(secrets, key=len, reverse=True):
        pattern = re.escape(secret) if len(secret) > SHORT else rf"(?<!\w){re.escape(secret)}(?!\w)"
        text = re.sub(pattern, HIDDEN, text)
    return text


def secrets(address: str) -> Iterator[str]:
    """Yield the passwords, tokens and other secrets that the URL `address` contains."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        yield from (match[3].strip("'\"") for match in SETTING.finditer(address))
        return
    user, rest = _user(rest)
    if user is not None:
        name, colon, password = user.partition(":")
        if scheme.lower().startswith("http") and (not colon or len(name) > LONG):
            yield name
        if colon:
            yield password
            # Also yield the parts of the password between separators, so that the parts are hidden, too.
            # A library may mistake such a part for the host or the port, and show the part in an error message.
            parts = re.split(r"[/?#@:]", f"{password}/{unquote(password)}")
            yield from (part for part in parts if len(part) > SHORT)
    for part in rest.partition("#")[0].partition("?")[2].split("&"):
        name, _, value = part.partition("=")
        if name.lower() not in PLAIN and (len(value) > SHORT or SETTING.match(part)):
            yield value


def _user(rest: str) -> tuple[str | None, str]:
    """Split the text after ``://`` into user:password and the rest. The password may contain unencoded / ? and @."""
    head = QUERY.split(rest, maxsplit=1)[0]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not authority or "@" not in rest:
        return None, rest
    if "@" not in head:  # the @ follows a question mark; this ? belongs to a password or starts the query
        if not re.search(r":(?!\d*$)", authority):
            return None, rest
        head = rest
    user, _, _ = head.rpartition("@")
    return user, rest[len(user) + 1 :]


def _parameter(part: str) -> str:
    name, equals, value = part.partition("=")
    return f"{name}={HIDDEN}" if equals and value and name.lower() not in PLAIN else part


def _setting(match: re.Match[str]) -> str:
    return match[0] if match[1].lower() in PLAIN else f"{match[1]}{match[2]}{HIDDEN}"


def _process_secrets(addresses: tuple[str, ...]) -> Iterator[str]:
    """Yield the secrets in environment variables, the command line and `addresses`."""
    for name, value in os.environ.items():
        if SECRET_VARIABLE.search(name):
            if len(value) > SHORT:  # a shorter value is a switch, such as 1
                yield value
        elif "://" in value:
            yield from secrets(value)
    for address in (*addresses, *sys.argv[1:]):
        yield from secrets(address)


def _spellings(secret: str) -> set[str]:
    decoded = {secret, unquote(secret), unquote_plus(secret)}
    encoded = {code for text in decoded for code in (text, quote(text), quote(text, safe=""), quote_plus(text))}
    return encoded - {"", HIDDEN}
