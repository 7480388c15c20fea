"""How a process is asked to end: SIGTERM, Ctrl-C, and the end of the DVC that started it."""

import ctypes
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")  # through which DVC may start a stage
LOOK = 0.5  # seconds between two looks at the processes above
GRACE = 0.5  # seconds within which a signal to a group of processes reaches all of them
DEAF = 5  # seconds after a SIGTERM that is acted on in which another is not


def install() -> None:
    """Make SIGTERM an exception, so that what is half written is removed and a run does not stay RUNNING.

    What DVC started gets a SIGTERM when that DVC is gone, however it ended: nobody would take its results.
    """
    signal.signal(signal.SIGTERM, _leave)
    if "DVC_STAGE" in os.environ:
        # Asked here: by the time the thread runs, DVC may have ended and another process be the parent.
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="watch DVC").start()


class Deferred:
    """While its block runs, the first SIGTERM or Ctrl-C is only noted, and `check` acts on it; a second acts at once.

    Else it may end a transaction of a database half way, or hit a destructor, where Python drops the exception.
    In a thread other than the main one signals are nobody's, and this does nothing.
    """

    def __init__(self) -> None:
        self.asked = 0  # number of the signal
        self._former: dict[int, Any] = {}

    def check(self) -> None:
        """Leave, as the signal would have it, if there was one."""
        if self.asked:
            self._restore()
            _leave(self.asked, None)

    @contextmanager
    def rather(self) -> Iterator[None]:
        """Leave as `check` does where the block fails because its workers were asked to end, a moment earlier, too.

        When a worker that loads data is gone, torch raises a RuntimeError, and what was under way to it an OSError.
        """
        try:
            yield
        except Exception:
            limit = time.monotonic() + GRACE
            while not self.asked and time.monotonic() < limit:
                time.sleep(0.01)
            self.check()
            raise

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # What is ignored stays so: a shell's background job does not hear the Ctrl-C that is meant for others.
            heard = [each for each in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(each) != signal.SIG_IGN]
            self._former = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        former = self._former.get(number)
        if isinstance(former, _Leaving) and former.deaf:
            return
        self.asked = number
        self._restore()

    def _restore(self) -> None:
        # A signal may come in the midst of it, and `_note` be here too: the handlers are then set twice.
        former, self._former = self._former, {}
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def workers_unheard() -> Iterator[None]:
    """Undo the handler that torch sets in this block, where workers start, for the end of a process (SIGCHLD).

    It raises an exception wherever this process happens to be, in the middle of a database transaction, say. torch
    looks for workers that are gone also when it waits for their batches, which is soon enough.
    """
    former = signal.getsignal(signal.SIGCHLD)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, former)


class _Leaving:
    """Handles SIGTERM once there was one: what comes soon after (from the watch on DVC, say) does not cut the end.

    What comes later is acted on, for the first may have done nothing: it is a SystemExit, which Python drops where it
    hits a destructor or the callback of a weak reference.
    """

    def __init__(self) -> None:
        self._until = time.monotonic() + DEAF

    @property
    def deaf(self) -> bool:
        return time.monotonic() < self._until

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.deaf:
            _leave(number, frame)


def _leave(number: int, _: FrameType | None) -> None:
    """Leave in good order, which a second SIGTERM soon after does not cut."""
    signal.signal(signal.SIGTERM, _Leaving())
    sys.exit(128 + number)


def _watch(parent: int) -> None:
    """Send this process a SIGTERM when the DVC above it, or a shell between them, has ended.

    `parent` is the id of the process above when this one began; another is there when that one has ended.
    """
    from psutil import NoSuchProcess

    with suppress(NoSuchProcess):  # it ended while it was looked at
        above = _above()
        while os.getppid() == parent and all(_runs(process) for process in above):
            time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)


def _above() -> list[Any]:
    """The process above this one; where that is a shell, those above it too, up to the first that is none."""
    import psutil

    found = []
    for process in psutil.Process().parents():
        found.append(process)
        if process.name() not in SHELLS:
            break
    return found


def _runs(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
MOST_KEPT = 2**31 - 1  # bytes; the most that glibc takes


def keep_freed_memory() -> None:
    """Have the process keep memory that it has freed, where that is glibc's to decide.

    Each training step frees some 50 MB and takes them again, each window of a large image a GB. glibc gives them back
    to the system in between, which then clears every page anew: 13 to 35 % of the time of a step, half of a window's.
    """
    if platform.libc_ver()[0] == "glibc":
        malloc = ctypes.CDLL(None)
        malloc.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
        malloc.mallopt(M_MMAP_MAX, 0)
