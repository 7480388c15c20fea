"""Handle SIGTERM, Ctrl-C and the end of the parent process; start helper processes; make malloc keep freed memory."""

import ctypes
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

GRACE_PERIOD = 5  # seconds for clean-up after a stop has begun; during this time a further SIGTERM is ignored
POLL_INTERVAL = 0.5  # seconds between two checks of the parent or of the helper processes
DELIVERY_TIME = 0.5  # seconds within which a signal to a process group reaches all its processes
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")  # DVC may start a stage through a shell


class Terminate:
    """SIGTERM handler that raises SystemExit, so that partial files are removed and no MLflow run stays RUNNING.

    A further SIGTERM within the grace period does not interrupt the clean-up. After the grace period, SIGTERM is obeyed
    again. The first SystemExit may be lost: Python drops one that is raised in a destructor or in the callback of a
    weak reference.
    """

    def __init__(self) -> None:
        self._stop_time = -math.inf

    @property
    def cleaning_up(self) -> bool:
        """True during the grace period, the first GRACE_PERIOD seconds after a signal to stop."""
        return time.monotonic() - self._stop_time < GRACE_PERIOD

    def __call__(self, number: int, _: FrameType | None) -> None:
        if not self.cleaning_up:
            self.exit(number)

    def exit(self, number: int) -> None:
        """Start the grace period, then exit with the exit code for signal `number`."""
        self.start_grace_period()
        sys.exit(128 + number)

    def start_grace_period(self) -> None:
        """Ignore SIGTERM for GRACE_PERIOD seconds from now."""
        self._stop_time = time.monotonic()


def install(parent: int | None = None) -> None:
    """Install the SIGTERM handler. In a DVC stage, or if `parent` is given, also stop when the parent process ends.

    If DVC is killed, nobody would use the results of the stage that it started.
    """
    signal.signal(signal.SIGTERM, Terminate())
    if parent is None and "DVC_STAGE" in os.environ:
        parent = os.getppid()  # read here, because the parent may end before the thread runs
    if parent is not None:
        threading.Thread(target=_stop_with_parent, args=(parent,), daemon=True, name="watch parent").start()


def _stop_with_parent(parent: int) -> None:
    """Send SIGTERM to this process when `parent` ends. If `parent` is a shell, also watch the parent of the shell."""
    ancestors = _ancestors()
    if ancestors[0] == parent:
        while _ancestors() == ancestors:
            time.sleep(POLL_INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)


def _ancestors() -> list[int]:
    """Return process ids: the parent, then further ancestors, up to and including the first that is not a shell.

    A process whose parent ends gets another parent, so the list changes when one of these processes ends.
    """
    import psutil

    ids = [os.getppid()]
    try:
        while (process := psutil.Process(ids[-1])).name() in SHELLS:
            ids.append(process.ppid())
    except psutil.Error:  # the process has just ended, or has no parent
        ids.append(0)
    return ids


class Deferred:
    """Context manager that delays the first SIGTERM or Ctrl-C until `check` is called. A second Ctrl-C acts at once.

    A SIGTERM within the grace period after the first signal is ignored: it may tell of the same stop, because a stage
    also stops when DVC ends, and one signal may end both. A SIGTERM after the grace period acts at once.

    Without this context, a signal could interrupt a database transaction. It could also arrive in a destructor, where
    Python drops exceptions. Outside the main thread, which alone receives signals, the context has no effect.
    """

    def __init__(self) -> None:
        self.requested = 0  # number of the recorded signal
        self._former: dict[int, Any] = {}

    def check(self) -> None:
        """Exit if a delayed signal was recorded."""
        if self.requested:
            self._restore()
            handler = signal.getsignal(signal.SIGTERM)
            (handler if isinstance(handler, Terminate) else Terminate()).exit(self.requested)

    @contextmanager
    def errors_as_stop(self) -> Iterator[None]:
        """If the body of the with statement fails because of a stop signal, exit with the exit code for this signal.

        If the signal kills a worker process, torch raises a RuntimeError or OSError, possibly before the signal reaches
        this process.
        """
        try:
            yield
        except Exception:
            deadline = time.monotonic() + DELIVERY_TIME
            while not self.requested and time.monotonic() < deadline:
                time.sleep(0.01)
            self.check()
            raise

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # Leave ignored signals ignored: for example, a shell makes its background jobs ignore Ctrl-C.
            numbers = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
            self._former = {number: signal.signal(number, self._record) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _record(self, number: int, _: FrameType | None) -> None:
        former = self._former.get(number)
        if isinstance(former, Terminate) and former.cleaning_up:
            return
        self.requested = number
        terminate = self._former.get(signal.SIGTERM)
        if isinstance(terminate, Terminate):
            terminate.start_grace_period()
        self._restore()

    def _restore(self) -> None:
        # A signal handler may call this method while this method runs. Restoring the handlers twice is harmless.
        former, self._former = self._former, {}
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def without_torch_sigchld() -> Iterator[None]:
    """Run the body of the with statement; then remove the SIGCHLD handler that torch installs for DataLoader workers.

    When a worker dies, the handler would raise an exception wherever this process is, even in a database transaction.
    torch also notices dead workers when it waits for their batches. That is soon enough.
    """
    former = signal.getsignal(signal.SIGCHLD)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, former)


class HelperError(RuntimeError):
    """A helper process has failed; it has already printed its own message."""


@contextmanager
def helpers(count: int, check: Callable[[], None], work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run `work(*arguments)` in several processes during the body of the with statement, then wait for the processes.

    If the body fails, the processes are stopped.

    Parameters
    ----------
    count : number of processes.
    check : called while waiting for the processes; an exception that it raises stops them.

    Raises
    ------
    HelperError
        At least one process failed.
    """
    from multiprocessing import get_context

    context = get_context("spawn")  # a fork would inherit torch's threads and open connections
    processes = [context.Process(target=_help, args=(work, arguments)) for _ in range(count)]
    try:
        for process in processes:
            process.start()
        yield
        for process in processes:
            while process.is_alive():
                process.join(POLL_INTERVAL)
                check()
    except BaseException:
        for process in processes:
            if process.pid is not None:
                process.terminate()
        raise
    finally:
        for process in processes:
            if process.pid is not None:
                process.join()
    if failed := [process.exitcode for process in processes if process.exitcode]:
        raise HelperError(
            f"{len(failed)} of {count} helper processes failed with exit code {failed[0]}; see their messages above"
        )


def _help(work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Run `work` in a helper process that stops when its parent process ends."""
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None
    install(parent.pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent, and the parent stops its helpers
    work(*arguments)


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
LARGEST_THRESHOLD = 2**31 - 1  # bytes; glibc's limit


def keep_freed_memory() -> None:
    """Make glibc's malloc keep freed memory instead of returning it to the system. On other platforms, do nothing.

    A training step frees and allocates some 50 MB. A window of a large image frees and allocates 1 GB. The system
    clears each page before it hands the page out again. This clearing takes 13 to 35 % of the time of a step, and half
    of the time of a window.
    """
    if platform.libc_ver()[0] == "glibc":
        malloc = ctypes.CDLL(None)
        malloc.mallopt(M_TRIM_THRESHOLD, LARGEST_THRESHOLD)
        malloc.mallopt(M_MMAP_MAX, 0)
