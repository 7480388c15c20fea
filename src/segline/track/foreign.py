"""Puts values from outside (tags, lines, names of files) into messages: cut, and without what a terminal obeys."""

SHOWN = 80  # characters of a value


def shown(value: object, most: int = SHOWN) -> str:
    """Return a value from outside for a message: quoted, cut, and without control characters."""
    text = repr(value[: most + 1] if isinstance(value, str) else value)
    return text if len(text) <= most + 2 else f"{text[:most]}...{text[-1]}"


def printable(text: str) -> str:
    """Escape what a terminal would obey: control characters and code points that are not text."""
    return "".join(letter if letter.isprintable() or letter == " " else repr(letter)[1:-1] for letter in text)
