"""Progress: items pass through in order and once, whatever is shown."""

import threading

import pytest

from segline import progress


@pytest.mark.parametrize("mode", ["auto", "bar", "lines", "off"])
def test_track_passes_all_items_on(mode: progress.Mode, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track([3, 1, 2], "work", mode)) == [3, 1, 2]
    assert list(progress.track(iter([3, 1, 2]), "work", mode)) == [3, 1, 2]
    assert list(progress.track([], "work", mode)) == []
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (captured.err == "") == (mode == "off")


def test_plain_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    list(progress.track(range(1000), "work", "lines"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["work 1000/1000"]


def test_an_item_that_is_described_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    list(progress.track(iter("ab"), "work", "lines", 2, lambda item: f"was {item}"))
    assert capsys.readouterr().err.splitlines() == ["work 1/2 was a", "work 2/2 was b"]


def test_each_is_map_by_several_threads() -> None:
    both = threading.Barrier(2)

    def square(number: int) -> int:
        both.wait(timeout=10)  # passed only by two at a time
        return number**2

    if len(progress.os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: nothing runs side by side")
    assert list(progress.each(square, range(20), "work", "off")) == [number**2 for number in range(20)]


def test_the_first_error_is_raised() -> None:
    def fail(number: int) -> int:
        if number >= 3:
            raise ValueError(f"item {number}")
        return number

    with pytest.raises(ValueError, match="item 3"):
        list(progress.each(fail, range(100), "work", "off"))


def test_notes_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    line = "[bold] " + "x" * 300
    progress.note(line)
    assert capsys.readouterr().err == line + "\n"
