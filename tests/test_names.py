"""The rules for names, tested with hand-made names and with the tables of Unicode."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segline import names


@pytest.mark.parametrize(
    "name",
    [
        "cell",
        "клетки",
        "细胞",
        "🧫",
        "👩‍🔬",
        "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "می‌خواهم",
        "<10 µm",
        "[red]x",
        "<b>",
        "it's",
        'a"b',
        "a b",
        "a/b",
        "x" * 200,
    ],
)
def test_valid_names_of_classes_are_normalised(name: str) -> None:
    assert names.check(name, "class") == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a\nb", r"control character (\n)"),
        ("a\x1b[31mb", r"control character (\x1b)"),
        ("a\x7f", r"(\x7f)"),
        ("a\x85b", r"(\x85)"),
        ("a\u2028b", r"(\u2028)"),
        ("a\u202eb", r"(\u202e)"),
        ("a\u2066b", r"(\u2066)"),
        ("\ufeffa", r"(\ufeff)"),
        ("a\udcff", "not valid UTF-8"),
        (" a", "blank"),
        ("a\u00a0", "blank"),
        ("x" * 201, "201 characters, more than 200"),
    ],
)
def test_an_invalid_name_is_refused(name: str, expected: str) -> None:
    with pytest.raises(names.NamingError) as refused:
        names.check(name, "class 1:")
    assert expected in str(refused.value)
    assert str(refused.value).startswith("class 1: ") and str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["a/b", "a:b", "..", ".", "..a", 'it\'s "so"'])
def test_an_invalid_model_name_is_refused(name: str) -> None:
    with pytest.raises(names.NamingError, match="registration"):
        names.check_model(name, "registration.name:")


@pytest.mark.parametrize("name", ["клетки", "zellen kern", "it's", 'a"b', "[red]x", "🧫", "a?b#c", "100%", "a@b"])
def test_a_valid_model_name_is_accepted(name: str) -> None:
    assert names.check_model(name, "registration.name:") == name


@given(st.text(max_size=20))
def test_a_name_is_printable_or_refused(text: str) -> None:
    problem = names.fault(text)
    if problem is None:
        assert text and "\n" not in text and text.encode()
        assert names.fault(names.composed(text)) is None
    assert names.composed(unicodedata.normalize("NFD", text)) == names.composed(text)


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("given", ["NFC", "NFD"])
def test_a_path_in_another_normalization_form_is_found(tmp_path: Path, stored: str, given: str) -> None:
    folder, file = (unicodedata.normalize(stored, name) for name in ("Prüfung é", "ä.csv"))  # type: ignore[arg-type]
    (tmp_path / folder).mkdir()
    (tmp_path / folder / file).touch()
    path = tmp_path / unicodedata.normalize(given, "Prüfung é") / unicodedata.normalize(given, "ä.csv")  # type: ignore[arg-type]
    assert names.on_disk(path) == tmp_path / folder / file
    assert names.on_disk(path / "x") == path / "x"


def test_a_path_that_exists_in_both_forms_is_returned_as_written(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "é")).mkdir()  # type: ignore[arg-type]
    for form in ("NFC", "NFD"):
        path = tmp_path / unicodedata.normalize(form, "é")  # type: ignore[arg-type]
        assert names.on_disk(path) == path
