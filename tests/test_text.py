"""Untrusted text is made safe to print."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segline.text import cut, shown, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, ä 細 🙂\ttab\nline", "plain, ä 細 🙂\ttab\nline"),
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("over\rwritten", "over\\x0dwritten"),
        ("\x7f\x9b2J", "\\u007f\\x9b2J"),
        ("cat\u202egnp.exe", "cat\\u202egnp.exe"),
        ("two\u2028lines\u2029", "two\\u2028lines\\u2029"),
        ("not UTF-8: \udcff", "not UTF-8: \\xff"),
        ("half \ud800", "half \\ud800"),
        ("hidden \U000e0041", "hidden \\U000e0041"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    ],
)
def test_control_characters_are_escaped(text: str, expected: str) -> None:
    assert visible(text) == expected


@given(st.text(st.characters()))
def test_no_control_character_remains_in_random_text(text: str) -> None:
    escaped = visible(text)
    escaped.encode()
    assert all(c in "\t\n" or unicodedata.category(c) not in ("Cc", "Cs") for c in escaped)
    assert visible(escaped) == escaped


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(), lambda inner: st.lists(inner) | st.sets(st.text())
    )
)
def test_a_value_is_shown_on_one_short_line(value: object) -> None:
    line = shown(value)
    assert len(line) <= 83
    assert line == visible(line)
    assert "\n" not in line


def test_an_integer_with_thousands_of_digits_is_named() -> None:
    assert shown(10**6000) == "a int too long to show"
    assert len(shown([10**6000])) <= 83


def test_only_long_text_is_cut() -> None:
    assert (cut("abc", 3), cut("abcd", 3)) == ("abc", "abc...")
