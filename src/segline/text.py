"""Make text from outside safe to show: control characters become visible escapes, long values are cut."""

import re
import reprlib

LONGEST = 80  # characters of a value in a message
MESSAGE = 500  # characters of what a library says
# C0 but tab and line feed, DEL, C1, marks of direction, line separators, surrogates, and characters without a glyph.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_JOINERS = "\u200c\u200d"  # some scripts and emoji need them


def visible(text: str) -> str:
    """Return `text` with an escape such as ``\\x1b`` for each character that steers a terminal or cannot be seen.

    Tab and line feed stay. Any encoding of Unicode can hold the result.
    """
    return _HIDDEN.sub(lambda found: _escape(found[0]), text)


def shown(value: object, longest: int = LONGEST) -> str:
    """Return the `repr` of `value` on one line, cut to `longest` characters."""
    try:
        text = repr(value) if isinstance(value, str | bytes) else _brief.repr(value)
    except ValueError:  # a whole number of more digits than Python converts
        text = f"a {type(value).__name__} too long to show"
    return cut(visible(text).replace("\n", "\\n"), longest)


def cut(text: str, longest: int) -> str:
    """Return the first `longest` characters of `text`, and dots where that is not all."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def _escape(character: str) -> str:
    code = ord(character)
    if character in _JOINERS:
        return character
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no UTF-8
        code -= 0xDC00
    # DEL as JSON has it: in what --json prints it is the one character here that JSON leaves as it is.
    return (
        f"\\x{code:02x}" if code < 0x100 and code != 0x7F else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


_brief = reprlib.Repr()
_brief.maxlevel, _brief.maxstring, _brief.maxother, _brief.maxlong = 5, 200, 200, 200
_brief.maxdict = _brief.maxlist = _brief.maxtuple = _brief.maxset = _brief.maxfrozenset = 50
