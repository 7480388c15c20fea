"""Progress: items pass through in order and once, whatever is shown."""

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from segline import progress


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """To `progress` no time passes, however busy the machine is."""
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 0.0))


@pytest.mark.parametrize("mode", ["auto", "bar", "lines", "off"])
def test_track_passes_all_items_on(mode: progress.Mode, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track([3, 1, 2], "work", mode)) == [3, 1, 2]
    assert list(progress.track(iter([3, 1, 2]), "work", mode)) == [3, 1, 2]
    assert list(progress.track([], "work", mode)) == []
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (captured.err == "") == (mode == "off")


@pytest.mark.usefixtures("no_time")
def test_plain_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    list(progress.track(range(1000), "work", "lines"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["work 1000/1000"]


@pytest.mark.usefixtures("no_time")
def test_an_item_that_is_described_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    list(progress.track(iter("ab"), "work", "lines", 2, lambda item: f"was {item}"))
    assert capsys.readouterr().err.splitlines() == ["work 1/2 was a", "work 2/2 was b"]


def test_each_is_map_by_several_threads() -> None:
    both = threading.Barrier(2)

    def square(number: int) -> int:
        both.wait(timeout=10)  # passed only by two at a time
        return number**2

    if progress._cores() < 2:
        pytest.skip("one core: nothing runs side by side")
    assert list(progress.each(square, range(20), "work", "off")) == [number**2 for number in range(20)]


def test_the_first_error_is_raised() -> None:
    def fail(number: int) -> int:
        if number >= 3:
            raise ValueError(f"item {number}")
        return number

    with pytest.raises(ValueError, match="item 3"):
        list(progress.each(fail, range(100), "work", "off"))


def test_no_more_than_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of 100 bytes: no two items of 26 at once, and one of 80 alone."""
    monkeypatch.setattr(progress, "machine_memory", lambda: 100)
    monkeypatch.setattr(progress, "_cores", lambda: 8)
    lock, held, most = threading.Lock(), [], []

    def work(size: int) -> int:
        with lock:
            held.append(size)
            most.append(sum(held) if sum(each > 0 for each in held) > 1 else 0)
        time.sleep(0.002)
        with lock:
            held.remove(size)
        return size

    sizes = [26, 26, 80, 10, 10, 10, 10, 10, 26, 80, 0, 25, 25] * 3
    assert list(progress.each(work, sizes, "work", "off", memory=lambda size: size)) == sizes
    assert 20 <= max(most) <= 50


def test_few_items_are_begun_before_the_results_are_taken() -> None:
    begun: list[int] = []
    results = progress.each(begun.append, range(10_000), "work", "off")
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= progress.AHEAD * progress._cores()


def test_a_container_is_given_less_than_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = tmp_path / "max", tmp_path / "bytes", tmp_path / "missing"
    monkeypatch.setattr(progress, "CONTAINER_LIMITS", limits)
    limits[0].write_text("max\n")
    limits[1].write_text(f"{2**63}\n")
    machine = progress.machine_memory()
    assert machine == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits[1].write_text("1000000\n")
    assert progress.machine_memory() == 1_000_000


def test_notes_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    line = "[bold] " + "x" * 300
    progress.note(line)
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("mode", ["lines", "bar", "off"])
def test_a_meter_says_what_stays_and_asks_for_words_only_to_show_them(
    mode: progress.Mode, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "BAR_SECONDS", 1e12)
    with progress.meter("epoch", mode, 4, 1) as meter:
        meter.at(2, lambda: pytest.fail("nobody looks"))
        meter.say(3, "epoch 1/2 [bold] loss 0.5")
    said = capsys.readouterr().err
    assert ("epoch 1/2 [bold] loss 0.5\n" in said) == (mode != "off")


def test_a_long_epoch_has_lines_of_its_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STEP_SECONDS", 0)
    now = iter([0.0, 10.0, 10.0, 10.0, 20.0, 20.0, 20.0, 30.0, 30.0, 30.0])
    # For `progress` alone: other threads ask the time too.
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with progress.meter("epoch", "lines", 200) as meter:
        meter.at(1, lambda: "1/20 step 1/10")
        meter.at(100, lambda: "11/20 step 0/10")
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/20 step 1/10 33 min left",
        "epoch 11/20 step 0/10 20 s left",
    ]
