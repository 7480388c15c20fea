"""Puts values from outside (tags, lines, names of files) into messages: cut, and without what a terminal obeys."""

SHOWN = 80  # characters of a value


def shown(value: object, most: int = SHOWN) -> str:
    """Return a value from outside for a message: quoted, cut, and without control characters."""
    text = value if isinstance(value, str) else repr(value)
    return repr(text if len(text) <= most else f"{text[:most]}...")


def printable(text: str) -> str:
    """Escape what a terminal would obey: control characters and code points that are not text."""
    return "".join(letter if letter.isprintable() or letter == " " else repr(letter)[1:-1] for letter in text)
