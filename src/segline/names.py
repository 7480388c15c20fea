"""One rule for names of datasets, classes and models, and one composition of letters wherever names are compared.

Letters with marks can be written in two ways (Unicode UAX #15): é as one code point (NFC, as Windows and most tools
write) or as e and a mark (NFD, as archives made on macOS have it). Both look alike, so names are compared in NFC.
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from segline.text import shown

LONGEST = 200  # characters; MLflow takes 250 in a metric's name, in which the name of a class is a part
REFUSED = ("Cc", "Cs", "Cf", "Zl", "Zp")  # control, surrogate, format, line and paragraph separator
# Within words of some scripts, within emoji, and in flags of regions.
JOINERS = frozenset("\u200c\u200d") | frozenset(map(chr, range(0xE0020, 0xE0080)))


class NamingError(ValueError):
    """A name that cannot be used; the message shows it with escapes and says what is wrong with it."""


def composed(text: str) -> str:
    """`text` in NFC, in which names are compared and written."""
    return unicodedata.normalize("NFC", text)


def fault(name: str) -> str | None:
    """What is wrong with a name, or None: it must be printable on one line, without blanks around it, and not long."""
    if not name.strip():
        return "is empty"
    strange = next((letter for letter in name if unicodedata.category(letter) in REFUSED and letter not in JOINERS), "")
    if strange:
        kind = "a byte that is no UTF-8" if unicodedata.category(strange) == "Cs" else "a control character"
        return f"holds {kind} ({ascii(strange)[1:-1]})"
    if name != name.strip():
        return "begins or ends with a blank"
    if len(name) > LONGEST:
        return f"has {len(name)} characters; {LONGEST} at most"
    return None


def check(name: str, what: str) -> str:
    """`name` in NFC, if it can be used; NamingError, which begins with `what` the name is of, if not."""
    wrong = fault(name)
    if wrong:
        raise NamingError(f"{what} {shown(name)} {wrong}; choose another name")
    return composed(name)


def check_model(name: str, what: str) -> str:
    """`name` in NFC, if a registered model may have it; NamingError if not."""
    found = check(name, what)
    if set("/:") & set(name):
        raise NamingError(f"{what} {shown(name)} holds / or :, which addresses of models part by; choose another name")
    if name.startswith("..") or name == ".":
        raise NamingError(f"{what} {shown(name)} is a path; choose another name")
    if {"'", '"'} <= set(name):
        raise NamingError(f"{what} {shown(name)} holds both ' and \", which MLflow cannot search for; leave one out")
    return found


def is_model(name: str) -> bool:
    """Tell whether a registered model may have this name, in either composition of letters."""
    try:
        check_model(name, "")
    except NamingError:
        return False
    return True


def on_disk(path: Path) -> Path:
    """The file or folder that `path` names in any composition of letters; `path` itself where there is none.

    Raises
    ------
    NamingError
        Two files differ in composition only, and neither is written as in `path`.
    """
    if path.exists() or (composed(str(path)) == str(path) and str(path).isascii()):
        return path
    found = Path(path.anchor)
    for part in path.parts[len(path.anchor) > 0 :]:
        if (found / part).exists() or not found.is_dir():
            found /= part
            continue
        alike = sorted(file.name for file in found.iterdir() if composed(file.name) == composed(part))
        if len(alike) > 1:
            raise NamingError(differ([found / name for name in alike]))
        found /= alike[0] if alike else part
    return found if found.exists() else path


def differ(paths: Sequence[Path]) -> str:
    """The words that refuse two files whose names are one but for the composition of letters."""
    return (
        f"{paths[0].parent} holds {paths[0].name!a} and {paths[1].name!a}: one name in two compositions of letters "
        "(NFC and NFD, Unicode UAX #15), which look alike; rename or remove one"
    )
