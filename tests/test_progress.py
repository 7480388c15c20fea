"""Progress display and parallel map: judged by the items that come out, the text on stderr, and memory in use."""

import io
import os
import threading
import time
from pathlib import Path

import pytest
import rich.console

from segline import progress


class Clock:
    """A clock for `progress` alone, set by hand."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of `progress`, so that a busy machine changes nothing."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.mark.parametrize("mode", ["auto", "bar", "lines", "off"])
def test_track_yields_all_items_in_order(mode: progress.Mode, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track([3, 1, 2], "work", mode)) == [3, 1, 2]
    assert list(progress.track(iter([3, 1, 2]), "work", mode, 3)) == [3, 1, 2]
    assert list(progress.track([], "work", mode)) == []
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (captured.err == "") == (mode == "off")


@pytest.mark.usefixtures("clock")
def test_a_quick_loop_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    list(progress.track(range(1000), "work", "lines"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["work 1000/1000"]


@pytest.mark.usefixtures("clock")
def test_each_described_item_has_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    list(progress.track(iter("ab"), "work", "lines", 2, lambda item: f"was {item}"))
    assert capsys.readouterr().err.splitlines() == ["work 1/2 was a", "work 2/2 was b"]


def test_each_is_a_map_by_several_threads() -> None:
    both = threading.Barrier(2)

    def square(number: int) -> int:
        both.wait(timeout=10)  # two threads must wait here at the same time
        return number**2

    if progress._cores() < 2:
        pytest.skip("only one core")
    assert list(progress.each(square, range(20), "work", "off")) == [number**2 for number in range(20)]


def test_each_raises_the_first_error() -> None:
    def fail(number: int) -> int:
        if number >= 3:
            raise ValueError(f"item {number}")
        return number

    with pytest.raises(ValueError, match="item 3"):
        list(progress.each(fail, range(100), "work", "off"))


def test_each_keeps_to_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of 100 bytes: never two items of 26 together, and an item of 80 only alone."""
    monkeypatch.setattr(progress, "machine_memory", lambda: 100)
    monkeypatch.setattr(progress, "_cores", lambda: 8)
    lock, held, shared = threading.Lock(), [], []

    def work(size: int) -> int:
        with lock:
            held.append(size)
            shared.append(sum(held) if sum(size > 0 for size in held) > 1 else 0)
        time.sleep(0.002)
        with lock:
            held.remove(size)
        return size

    sizes = [26, 26, 80, 10, 10, 10, 10, 10, 26, 80, 0, 25, 25] * 3
    assert list(progress.each(work, sizes, "work", "off", memory=lambda size: size)) == sizes
    assert 20 <= max(shared) <= 50


def test_each_starts_few_items_ahead_of_the_results() -> None:
    started: list[int] = []
    results = progress.each(started.append, range(10_000), "work", "off")
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(started) <= progress.AHEAD * progress._cores()


def test_a_container_limit_lowers_the_machine_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = tmp_path / "max", tmp_path / "bytes", tmp_path / "missing"
    monkeypatch.setattr(progress, "CONTAINER_LIMITS", limits)
    limits[0].write_text("max\n")
    limits[1].write_text(f"{2**63}\n")
    machine = progress.machine_memory()
    assert machine == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits[1].write_text("1000000\n")
    assert progress.machine_memory() == 1_000_000


def test_a_note_is_printed_without_markup_or_line_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    line = "[bold] " + "x" * 300
    progress.note(line)
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("mode", ["lines", "bar", "off"])
@pytest.mark.usefixtures("clock")
def test_a_meter_prints_notes_and_builds_words_only_to_show_them(
    mode: progress.Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.meter("epoch", mode, 4, 1) as meter:
        meter.update(2, lambda: pytest.fail("the interval is not over"))
        meter.note(3, "epoch 1/2 [bold] loss 0.5")
    output = capsys.readouterr().err
    assert ("epoch 1/2 [bold] loss 0.5\n" in output) == (mode != "off")


def test_a_long_task_prints_lines_with_the_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.meter("epoch", "lines", 200) as meter:
        clock.seconds = 14
        meter.update(1, lambda: pytest.fail("the interval is not over"))
        clock.seconds = 20
        meter.update(2, lambda: "1/20 step 2/10")
        clock.seconds = 40
        meter.update(100, lambda: "11/20 step 0/10")
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/20 step 2/10 33 min left",
        "epoch 11/20 step 0/10 40 s left",
    ]


def test_a_bar_shows_words_and_the_time_left(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "_console", lambda: rich.console.Console(file=screen, force_terminal=True, width=80))
    with progress.meter("epoch", "bar", 200) as meter:
        clock.seconds = 10
        meter.update(100, lambda: "11/20")
    assert "11/20 10 s left" in screen.getvalue()
