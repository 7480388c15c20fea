"""Check names of datasets, classes and models, and compare names in one Unicode normalization form.

Unicode has two forms for a letter with an accent (UAX #15): one code point (NFC, which Windows and most tools write),
or a letter and a combining mark (NFD, in archives made on macOS). Both look alike, so names are compared in NFC.
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from segline.text import shown

LONGEST = 200  # characters; MLflow allows 250 in the name of a metric, and such a name contains the name of a class
REFUSED = ("Cc", "Cs", "Cf", "Zl", "Zp")  # control, surrogate, format, line and paragraph separator
# Allowed format characters: joiners (for some scripts and emoji), and tag characters (for emoji flags of regions).
JOINERS = frozenset("\u200c\u200d") | frozenset(map(chr, range(0xE0020, 0xE0080)))


class NamingError(ValueError):
    """An invalid name; the message shows the name with escapes, and says what is wrong."""


def composed(text: str) -> str:
    """Return `text` in NFC, the form in which names are compared and written."""
    return unicodedata.normalize("NFC", text)


def fault(name: str) -> str | None:
    """Return what is wrong with a name; None for a name that is printable, on one line, trimmed and not too long."""
    if not name.strip():
        return "is empty"
    forbidden = next(
        (letter for letter in name if unicodedata.category(letter) in REFUSED and letter not in JOINERS), ""
    )
    if forbidden:
        kind = "a byte that is not valid UTF-8" if unicodedata.category(forbidden) == "Cs" else "a control character"
        return f"contains {kind} ({ascii(forbidden)[1:-1]})"
    if name != name.strip():
        return "starts or ends with a blank"
    if len(name) > LONGEST:
        return f"has {len(name)} characters, more than {LONGEST}"
    return None


def check(name: str, what: str) -> str:
    """Return `name` in NFC; raise NamingError if the name is invalid.

    The message of the error starts with the text `what`, such as "class 1:".
    """
    problem = fault(name)
    if problem:
        raise NamingError(f"{what} {shown(name)} {problem}; choose another name")
    return composed(name)


def check_model(name: str, what: str) -> str:
    """Return `name` in NFC if it is a valid name of a registered model; raise NamingError otherwise."""
    normalised = check(name, what)
    if set("/:") & set(name):
        raise NamingError(
            f"{what} {shown(name)} contains / or :, which separate the parts of a model address; choose another name"
        )
    if name.startswith("..") or name == ".":
        raise NamingError(f"{what} {shown(name)} is a path; choose another name")
    if {"'", '"'} <= set(name):
        raise NamingError(
            f"{what} {shown(name)} contains both ' and \", but MLflow cannot search for such a name; "
            "use only one of the two"
        )
    return normalised


def is_model(name: str) -> bool:
    """Return whether `name`, normalized to NFC, is a valid name of a registered model."""
    try:
        check_model(name, "")
    except NamingError:
        return False
    return True


def on_disk(path: Path) -> Path:
    """Find the existing path that has the same NFC form as `path`; return `path` itself if no such path exists.

    Raises
    ------
    NamingError
        The paths of two files differ only in their normalization form, and neither path is equal to `path` as given.
    """
    if path.exists() or (composed(str(path)) == str(path) and str(path).isascii()):
        return path
    existing = Path(path.anchor)
    for part in path.parts[len(path.anchor) > 0 :]:
        if (existing / part).exists() or not existing.is_dir():
            existing /= part
            continue
        matches = sorted(file.name for file in existing.iterdir() if composed(file.name) == composed(part))
        if len(matches) > 1:
            raise NamingError(differ([existing / name for name in matches]))
        existing /= matches[0] if matches else part
    return existing if existing.exists() else path


def differ(paths: Sequence[Path]) -> str:
    """Return the error message for two files whose names differ only in their normalization form."""
    return (
        f"{paths[0].parent} contains {paths[0].name!a} and {paths[1].name!a}: the same name in two normalization forms "
        "(NFC and NFD, Unicode UAX #15), which look alike; rename or remove one of them"
    )
