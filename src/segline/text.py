"""Make untrusted text safe to print: escape control characters, and cut long values."""

import re
import reprlib

LONGEST = 80  # characters of a value in a message
MESSAGE = 500  # characters of a library's message
# Control characters (DEL, C1, C0 except tab and LF), direction marks, separators, surrogates, invisible characters.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_JOINERS = "\u200c\u200d"  # some scripts and emoji need them


def visible(text: str) -> str:
    """Replace each control character and each invisible character in `text` with an escape such as ``\\x1b``.

    Tab and line feed stay. The result can be encoded in UTF-8.
    """
    return _HIDDEN.sub(lambda match: _escape(match[0]), text)


def shown(value: object, longest: int = LONGEST) -> str:
    """Return the `repr` of `value` on one line, cut to `longest` characters."""
    try:
        text = repr(value) if isinstance(value, str | bytes) else _brief.repr(value)
    except ValueError:  # an integer with more digits than Python converts
        text = f"a {type(value).__name__} too long to show"
    return cut(visible(text).replace("\n", "\\n"), longest)


def cut(text: str, longest: int) -> str:
    """Return `text`; if it has more than `longest` characters, cut it and add an ellipsis."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def _escape(character: str) -> str:
    code = ord(character)
    if character in _JOINERS:
        return character
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not valid UTF-8
        code -= 0xDC00
    # --json output passes through here, and may contain DEL. Write DEL as \u007f, because \x7f is not valid JSON.
    return (
        f"\\x{code:02x}" if code < 0x100 and code != 0x7F else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


_brief = reprlib.Repr()
_brief.maxlevel, _brief.maxstring, _brief.maxother, _brief.maxlong = 5, 200, 200, 200
_brief.maxdict = _brief.maxlist = _brief.maxtuple = _brief.maxset = _brief.maxfrozenset = 50
