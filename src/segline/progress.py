"""Show the progress of a task (a bar in a terminal, else plain lines), and process many items on all cores.

All output goes to standard error and never into a result.
"""

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

T = TypeVar("T")
R = TypeVar("R")

Mode = Literal["auto", "bar", "lines", "off"]

INTERVALS = {"bar": 0.2, "lines": 15, "off": math.inf}  # seconds between two updates of the display
AHEAD = 16  # items per core that may be finished ahead of a slow item; their results wait in memory
# Files that hold the memory limit of a Linux container: first for control groups version 2, then for version 1.
CONTAINER_LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


def note(line: str) -> None:
    """Print a line to standard error, above the bar if one is shown."""
    _console().print(line, markup=False, highlight=False, soft_wrap=True)


@cache
def _console() -> "Console":
    from segline import terminal

    return terminal.console(stderr=True)


class Meter:
    """Progress display for a task, created by `meter`; `total` is the number of steps, which may change."""

    def __init__(self, task: str, mode: str, total: int, done: int, bar: "Progress | None") -> None:
        self.total, self.done = total, done
        self._task, self._mode, self._bar = task, mode, bar
        self._first_done = done
        self._start = self._last_shown = time.monotonic()
        self._row = bar.add_task(task, total=total, completed=done, words="") if bar else None

    def update(self, done: int, words: Callable[[], str]) -> None:
        """Set the number of finished steps to `done`. `words` returns the text to show; it is called only if needed."""
        self.done = done
        if time.monotonic() - self._last_shown < INTERVALS[self._mode]:
            return
        if self._bar:
            self._last_shown = time.monotonic()
            assert self._row is not None
            self._bar.update(
                self._row, completed=done, total=self.total, words=" ".join(filter(None, [words(), self.time_left()]))
            )
        else:
            self.note(done, f"{self._task} {words()}")

    def note(self, done: int, line: str) -> None:
        """Set the number of finished steps to `done`. Print `line`; without a bar, also print the time left."""
        self.done = done
        if self._bar:
            assert self._row is not None
            self._bar.update(self._row, completed=done, total=self.total)
            note(line)
        elif self._mode == "lines":
            self._last_shown = time.monotonic()
            note(" ".join(filter(None, [line, self.time_left()])))

    def time_left(self) -> str:
        """Return the estimated time left, or an empty string if it is unknown or below a second."""
        if self.done == self._first_done:
            return ""
        elapsed = time.monotonic() - self._start
        seconds = elapsed / (self.done - self._first_done) * (self.total - self.done)
        if seconds < 1:
            return ""
        return f"{seconds:.0f} s left" if seconds < 100 else f"{seconds / 60:.0f} min left"


@contextmanager
def meter(task: str, mode: Mode, total: int, done: int = 0) -> Iterator[Meter]:
    """Show the progress of `task`: `total` is the number of steps, `done` the number of steps finished earlier."""
    if mode == "auto":
        mode = "bar" if sys.stderr.isatty() else "lines"
    if mode != "bar":
        yield Meter(task, mode, total, done, None)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=_console(), transient=True) as bar:
        yield Meter(task, mode, total, done, bar)


def track(
    items: Iterable[T],
    task: str,
    mode: Mode,
    total: int | None = None,
    describe: Callable[[T], str] | None = None,
) -> Iterator[T]:
    """Yield `items` and show how many of them are done.

    Parameters
    ----------
    task : name shown beside the numbers.
    mode : `auto` shows a bar in a terminal, and lines elsewhere.
    total : number of items; may be left out for a sequence.
    describe : returns a text about an item. The text is printed as a line before the item is yielded.
    """
    if total is None:
        assert isinstance(items, Sequence)
        total = len(items)
    done = 0
    with meter(task, mode, total) as shown:
        for item in items:
            if describe:
                shown.note(done + 1, f"{task} {done + 1}/{total} {describe(item)}")
            yield item
            done += 1
            if not describe:
                shown.update(done, lambda: f"{shown.done}/{total}")
        if done and not describe:
            shown.note(done, f"{task} {done}/{total}")


def each(
    function: Callable[[T], R],
    items: Sequence[T],
    task: str,
    mode: Mode,
    memory: Callable[[T], int] | None = None,
) -> Iterator[R]:
    """Yield `function(item)` for each item, in order, computed on all cores; show the progress as `track` does.

    Items are processed in threads: `function` must spend its time in code that releases Python's lock (OpenCV, numpy,
    files). The first error is raised here, and items that have not been started are dropped.

    Parameters
    ----------
    memory : estimate of the bytes that `function` needs for an item. Items that are worked on at the same time share
        half of the machine's memory; an item that needs more is worked on alone.
    """
    budget = _MemoryBudget(machine_memory() // 2)

    def work(item: T) -> R:
        with budget.reserve(memory(item) if memory else 0):
            return function(item)

    workers = _cores()
    with ThreadPoolExecutor(workers) as pool:
        yield from track(_in_order(pool, work, items, AHEAD * workers), task, mode, len(items))


def _in_order(pool: Executor, work: Callable[[T], R], items: Iterable[T], limit: int) -> Iterator[R]:
    """Yield results in the order of the items. At most `limit` items are in progress or wait to be yielded."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            if len(waiting) == limit:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class _MemoryBudget:
    """Memory budget shared by threads; a thread waits until enough memory is free."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self.changed = Condition()

    @contextmanager
    def reserve(self, needed: int) -> Iterator[None]:
        """Reserve `needed` bytes of memory, or the whole budget if the budget is smaller than `needed`."""
        held = min(needed, self.size)
        with self.changed:
            self.changed.wait_for(lambda: held <= self.free)
            self.free -= held
        try:
            yield
        finally:
            with self.changed:
                self.free += held
                self.changed.notify_all()


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory() -> int:
    """Return how many bytes of memory this process may use, limited by the machine and by the container."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (limit.read_text().strip() for limit in CONTAINER_LIMITS if limit.exists())
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])
