"""Text from outside, made safe to show."""

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
        ("no UTF-8: \udcff", "no UTF-8: \\xff"),
        ("half \ud800", "half \\ud800"),
        ("hidden \U000e0041", "hidden \\U000e0041"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    ],
)
def test_control_characters_become_visible(text: str, expected: str) -> None:
    assert visible(text) == expected


@given(st.text(st.characters()))
def test_no_control_character_is_left_and_the_rest_is(text: str) -> None:
    said = visible(text)
    said.encode()
    assert all(c in "\t\n" or unicodedata.category(c) not in ("Cc", "Cs") for c in said)
    assert visible(said) == said


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(), lambda inner: st.lists(inner) | st.sets(st.text())
    )
)
def test_a_value_is_shown_on_one_short_line(value: object) -> None:
    said = shown(value)
    assert len(said) <= 83
    assert said == visible(said)
    assert "\n" not in said


def test_a_number_of_thousands_of_digits_is_shown() -> None:
    assert shown(10**6000) == "a int too long to show"
    assert len(shown([10**6000])) <= 83


def test_what_is_short_is_not_cut() -> None:
    assert (cut("abc", 3), cut("abcd", 3)) == ("abc", "abc...")
