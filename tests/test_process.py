"""Signals, death of the parent, helper processes and malloc: judged by exit codes, files and page faults."""

import os
import platform
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
from segline.process import Deferred, HelperError, helpers

WORK = """
import sys, time
from pathlib import Path
import psutil  # slow to import: the watch on the parent has started once it is there
from segline import process
process.install()
try:
    Path(sys.argv[1], "started").touch()
    time.sleep(600)  # longer than the test waits
finally:
    Path(sys.argv[1], "stopped").touch()
"""


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Handle Ctrl-C, which the tests ignore when they run as a background job."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_deferred_acts_on_the_first_signal_at_the_next_check(number: int, code: int) -> None:
    former = signal.getsignal(number)
    with Deferred() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.requested == number
        with pytest.raises(SystemExit) as exit_info:
            stop.check()
    assert exit_info.value.code == code
    assert number == signal.SIGTERM or signal.getsignal(number) is former


def test_a_further_sigterm_is_ignored_in_the_grace_period_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(process, "GRACE_PERIOD", 5)
    signal.signal(signal.SIGTERM, process.Terminate())
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
    now[0] = 104.9
    os.kill(os.getpid(), signal.SIGTERM)
    with Deferred() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert not stop.requested
        now[0] = 105.0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    now[0] = 110.0
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_sigterm_soon_after_a_deferred_signal_is_ignored(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """If DVC and its stage get a signal, the stage gets a second one, because DVC ends."""
    now = [100.0]
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: now[0]))
    signal.signal(signal.SIGTERM, process.Terminate())
    with Deferred() as stop:
        os.kill(os.getpid(), first)
        now[0] = 104.9
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == first
        now[0] = 105.0
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("ctrl_c")
def test_deferred_acts_on_a_second_signal_at_once() -> None:
    with Deferred():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_deferred_leaves_an_ignored_signal_ignored() -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Deferred() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.requested
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)


def test_deferred_has_no_effect_in_a_thread() -> None:
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
        assert time.monotonic() < end, f"{file.name} was not written"
        time.sleep(0.05)


@pytest.mark.parametrize("shell", [False, True], ids=["direct", "through a shell"])
def test_a_stage_stops_when_its_dvc_is_killed(tmp_path: Path, shell: bool) -> None:
    """The test kills a stand-in for DVC, which has started the work and waits for it."""
    work = [sys.executable, "-c", WORK, str(tmp_path)]
    if shell:
        work = ["sh", "-c", '"$0" "$@"; true', *work]
    starter = f"import subprocess, sys; p = subprocess.Popen({work!r}); p.wait()"
    dvc = subprocess.Popen([sys.executable, "-c", starter], env=os.environ | {"DVC_STAGE": "train"})
    wait_for(tmp_path / "started")
    time.sleep(1)  # for the first check of the ancestors
    children = psutil.Process(dvc.pid).children(recursive=True)
    dvc.kill()
    dvc.wait()
    wait_for(tmp_path / "stopped")
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert gone


def test_a_stage_stops_when_its_dvc_ended_before_the_first_check() -> None:
    with Deferred() as stop:
        process._stop_with_parent(os.getppid() + 1)
        assert stop.requested == signal.SIGTERM


def _error_of_killed_worker(timer: threading.Timer) -> RuntimeError:
    timer.start()
    return RuntimeError("DataLoader worker is killed by signal: Terminated")


def test_an_error_of_a_killed_worker_counts_as_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "DELIVERY_TIME", 60)  # enough for a slow timer
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    with Deferred() as stop, pytest.raises(SystemExit) as exit_info, stop.errors_as_stop():
        raise _error_of_killed_worker(timer)
    timer.join()
    assert exit_info.value.code == 143


def test_an_error_without_a_signal_is_raised() -> None:
    with Deferred() as stop, pytest.raises(RuntimeError, match="out of memory"), stop.errors_as_stop():
        raise RuntimeError("out of memory")


def check_nothing() -> None:
    pass


def test_helpers_work_and_are_waited_for(tmp_path: Path) -> None:
    with helpers(2, check_nothing, Path.mkdir, tmp_path / "made", 0o777, False, True):
        pass
    assert (tmp_path / "made").is_dir()
    with helpers(0, check_nothing, os._exit, 1):
        pass


def test_a_failed_helper_raises_an_error() -> None:
    with (
        pytest.raises(HelperError, match="2 of 2 helper processes failed with exit code 3"),
        helpers(2, check_nothing, os._exit, 3),
    ):
        pass


def test_helpers_stop_when_the_block_fails() -> None:
    start = time.monotonic()
    with pytest.raises(KeyError), helpers(1, check_nothing, time.sleep, 600):
        raise KeyError
    assert time.monotonic() - start < 60


def test_helpers_stop_when_this_process_stops_while_it_waits() -> None:
    start = time.monotonic()

    def stop() -> None:
        sys.exit(143)

    with pytest.raises(SystemExit), helpers(1, stop, time.sleep, 600):
        pass
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("size", [1_000_000, 20_000_000])  # numbers of 4 bytes
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_freed_memory_is_kept(size: int) -> None:
    program = (
        "import resource, torch\n"
        "from segline.process import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20):\n"
        f"        parts = [torch.ones({size}) for _ in range(5)]\n"
        "        del parts\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "before = faults()\n"
        "keep_freed_memory()\n"
        "faults()\n"
        "print(before, faults())\n"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    before, after = map(int, output.split())
    assert after < 100 < before  # 4 MB are 1,000 pages
