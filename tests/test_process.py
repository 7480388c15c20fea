"""How a process is asked to end, each judged by what it does then."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from segline import process
from segline.process import Deferred

WORK = """
import sys, time
from pathlib import Path
import psutil  # which takes the watch on DVC some time, and it has begun when it is there
from segline import signals
signals.install()
try:
    Path(sys.argv[1], "began").touch()
    time.sleep(600)  # longer than anyone waits for it to be ended
finally:
    Path(sys.argv[1], "ended").touch()
"""


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is heard, though the tests may be a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_waits_for_a_check(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with Deferred() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.asked == number
        with pytest.raises(SystemExit) as left:
            stop.check()
    assert left.value.code == code
    assert number == signal.SIGTERM or signal.getsignal(number) is before


def test_a_second_sigterm_soon_after_does_not_cut_the_end_and_one_later_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: now[0]))
    signal.signal(signal.SIGTERM, process._leave)
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
    now[0] = process.DEAF - 0.1
    os.kill(os.getpid(), signal.SIGTERM)
    with Deferred() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert not stop.asked
        now[0] = process.DEAF
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("heard")
def test_the_second_acts_at_once() -> None:
    with Deferred():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Deferred() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_a_thread_it_does_nothing() -> None:
    def work() -> None:
        with Deferred() as stop:
            stop.check()
        done.append(1)

    done: list[int] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def wait_for(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < end, f"{file.name} did not come"
        time.sleep(0.05)


@pytest.mark.parametrize("shell", [False, True], ids=["by itself", "through a shell"])
def test_who_was_started_by_dvc_does_not_outlive_it(tmp_path: Path, shell: bool) -> None:
    """A stand-in for DVC starts the work and waits for it; it is killed."""
    work = [sys.executable, "-c", WORK, str(tmp_path)]
    if shell:
        work = ["sh", "-c", '"$0" "$@"; true', *work]
    starter = f"import subprocess, sys; p = subprocess.Popen({work!r}); p.wait()"
    dvc = subprocess.Popen([sys.executable, "-c", starter], env=os.environ | {"DVC_STAGE": "train"})
    wait_for(tmp_path / "began")
    time.sleep(1)  # it has looked at what is above it
    below = psutil.Process(dvc.pid).children(recursive=True)
    dvc.kill()
    dvc.wait()
    wait_for(tmp_path / "ended")
    gone, alive = psutil.wait_procs(below, timeout=30)
    assert alive == []
    assert gone


def test_a_dvc_that_ended_before_the_first_look_at_it_is_noticed() -> None:
    with Deferred() as stop:
        process._watch(os.getppid() + 1)
        assert stop.asked == signal.SIGTERM


def _started(later: threading.Timer) -> RuntimeError:
    later.start()
    return RuntimeError("DataLoader worker is killed by signal: Terminated")


def test_a_worker_that_was_ended_too_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 60)  # however long the timer takes
    later = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    with Deferred() as stop, pytest.raises(SystemExit) as left, stop.rather():
        raise _started(later)
    later.join()
    assert left.value.code == 143


def test_a_failure_stays_one() -> None:
    with Deferred() as stop, pytest.raises(RuntimeError, match="out of memory"), stop.rather():
        raise RuntimeError("out of memory")
