"""The table of problems, judged by tables written by hand."""

import pytest

from segline.data.checks.problems import Problem, UnfitError, refuse_errors, table


def test_errors_come_first_and_columns_are_aligned() -> None:
    problems = [Problem("warning", "b", "odd"), Problem("error", "long", "bad"), Problem("error", "c", "worse")]
    assert table(problems) == "error    long  bad\nerror    c     worse\nwarning  b     odd"


def test_the_table_counts_the_lines_that_it_omits() -> None:
    problems = [Problem("error", name, f"{name} is bad") for name in "abc"]
    assert table(problems, most=2) == "error    a  a is bad\nerror    b  b is bad\n... and 1 more line(s)"


def test_many_problems_of_a_kind_are_counted_after_some_examples() -> None:
    tiny = [Problem("warning", f"{name}.png", f"{name} of 9", kind="tiny", count=2) for name in "abcde"]
    problems = [tiny[0], Problem("warning", "x.png", "odd"), *tiny[1:]]
    assert table(problems).splitlines() == [
        "warning  a.png         a of 9",
        "warning  b.png         b of 9",
        "warning  c.png         c of 9",
        "warning  2 more files  tiny, 10 in all",
        "warning  x.png         odd",
    ]
    assert table(problems, examples=9).count("\n") == 5


def test_a_single_further_file_is_shown_instead_of_counted() -> None:
    problems = [Problem("error", name, "bad", kind="bad") for name in "abcd"]
    assert table(problems).count("bad") == 4


def test_names_that_would_break_the_table_are_escaped() -> None:
    problems = [Problem("error", "a\nerror b\udcff\x1b[2J", "bad")]
    assert table(problems) == "error    a\\nerror b\\xff\\x1b[2J  bad"
    table(problems).encode()


def test_errors_are_refused_and_warnings_are_not() -> None:
    refuse_errors([])
    refuse_errors([Problem("warning", "a", "odd")])
    with pytest.raises(UnfitError, match=r"(?s)error +b +bad.*warning +a +odd.*1 error\(s\): fix or remove"):
        refuse_errors([Problem("warning", "a", "odd"), Problem("error", "b", "bad")])
