"""Works on many items with all cores, and shows how far a stage is: a bar in a terminal, plain lines elsewhere.

What is shown goes to standard error, never into a result.
"""

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

LINE_SECONDS = 5  # between two plain lines, so that quick loops say one thing only
STEP_SECONDS = 30  # between two plain lines that only say that it goes on
BAR_SECONDS = 0.2  # between two changes of the words beside a bar
AHEAD = 16  # items a core that may be done before one that takes long; their results are kept till then
# Linux, control groups of version 2 and 1.
CONTAINER_LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


def note(line: str) -> None:
    """One line for the person who waits; above the bar where there is one."""
    _console().print(line, markup=False, highlight=False, soft_wrap=True)


def track(
    items: Iterable[T],
    what: str,
    mode: Mode,
    total: int | None = None,
    describe: Callable[[T], str] | None = None,
) -> Iterator[T]:
    """Yield `items`, showing how many of `total` (default: their number) are done.

    Parameters
    ----------
    what : said beside the figures.
    mode : auto is a bar in a terminal and lines elsewhere.
    describe : what to say of an item that is done; given this, every item has a line of its own.
    """
    count = len(items) if total is None and isinstance(items, Sequence) else total
    kind = ("bar" if sys.stderr.isatty() else "lines") if mode == "auto" else mode
    if kind == "bar":
        yield from _bar(items, what, count, describe)
    elif kind == "lines":
        yield from _lines(items, what, count, describe)
    else:
        yield from items


class Meter:
    """How far a work of `total` pieces is that are done one by one; made by `meter`."""

    def __init__(self, what: str, total: int, done: int) -> None:
        self.what, self.total, self.done = what, total, done
        self._first, self._began = done, time.monotonic()

    def at(self, done: int, words: Callable[[], str]) -> None:  # noqa: ARG002  this one shows nothing
        """So many pieces are done; `words` are asked for when they are shown."""
        self.done = done

    def say(self, done: int, line: str) -> None:  # noqa: ARG002
        """So many pieces are done, and a line that stays, with the time that is left."""
        self.done = done

    def left(self) -> str:
        """The time that is left, in words; empty where it is no second or not known yet."""
        if self.done == self._first:
            return ""
        seconds = (time.monotonic() - self._began) / (self.done - self._first) * (self.total - self.done)
        if seconds < 1:
            return ""
        return f"{seconds:.0f} s left" if seconds < 100 else f"{seconds / 60:.0f} min left"


class _Lines(Meter):
    """The lines that stay, and one in `STEP_SECONDS` where they are far apart."""

    def __init__(self, what: str, total: int, done: int) -> None:
        super().__init__(what, total, done)
        self._last = self._began

    def at(self, done: int, words: Callable[[], str]) -> None:
        super().at(done, words)
        if time.monotonic() - self._last >= STEP_SECONDS:
            self.say(done, f"{self.what} {words()}")

    def say(self, done: int, line: str) -> None:
        super().say(done, line)
        self._last = time.monotonic()
        note(" ".join(filter(None, [line, self.left()])))


class _Bar(Meter):
    """A bar with words beside it."""

    def __init__(self, what: str, total: int, done: int, bar: "Progress") -> None:
        super().__init__(what, total, done)
        self._bar, self._said = bar, 0.0
        self._task = bar.add_task(what, total=total, completed=done, words="")

    def at(self, done: int, words: Callable[[], str]) -> None:
        super().at(done, words)
        if time.monotonic() - self._said >= BAR_SECONDS:
            self._said = time.monotonic()
            self._bar.update(self._task, completed=done, words=" ".join(filter(None, [words(), self.left()])))

    def say(self, done: int, line: str) -> None:
        super().say(done, line)
        self._bar.update(self._task, completed=self.done)
        note(line)


@contextmanager
def meter(what: str, mode: Mode, total: int, done: int = 0) -> Iterator[Meter]:
    """Show how far a work of `total` pieces is, of which `done` were done before."""
    kind = ("bar" if sys.stderr.isatty() else "lines") if mode == "auto" else mode
    if kind != "bar":
        yield (_Lines if kind == "lines" else Meter)(what, total, done)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=_console(), transient=True) as bar:
        yield _Bar(what, total, done, bar)


def each(
    function: Callable[[T], R],
    items: Sequence[T],
    what: str,
    mode: Mode,
    memory: Callable[[T], int] | None = None,
) -> Iterator[R]:
    """Yield `function` of each item, in the order of the items, worked out by all cores at once, shown as by `track`.

    Threads: `function` must spend its time where Python's lock is released (OpenCV, numpy, files). The first error
    is raised here, and what has not been started then is not.

    Parameters
    ----------
    memory : about how many bytes `function` needs for an item. Those worked on at once need no more than half of the
        machine's memory together; an item that needs more is worked on alone.
    """
    room = _Room(machine_memory() // 2)

    def work(item: T) -> R:
        with room.for_(memory(item) if memory else 0):
            return function(item)

    workers = _cores()
    with ThreadPoolExecutor(workers) as pool:
        yield from track(_in_order(pool, work, items, AHEAD * workers), what, mode, len(items))


def _in_order(pool: Executor, work: Callable[[T], R], items: Iterable[T], most: int) -> Iterator[R]:
    """Results in the order of the items; `most` items at most are begun or done and not yet yielded."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            if len(waiting) == most:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class _Room:
    """Memory that several threads share; who finds too little left waits."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self.changed = Condition()

    @contextmanager
    def for_(self, needed: int) -> Iterator[None]:
        """Hold `needed` bytes, or all there are."""
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
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or what its container is given of it."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (limit.read_text().strip() for limit in CONTAINER_LIMITS if limit.exists())
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])


def _bar(items: Iterable[T], what: str, total: int | None, describe: Callable[[T], str] | None) -> Iterator[T]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console()) as progress:
        for done, item in enumerate(progress.track(items, total=total, description=what), 1):
            if describe:
                note(f"{what} {done}/{total} {describe(item)}")
            yield item


def _lines(items: Iterable[T], what: str, total: int | None, describe: Callable[[T], str] | None) -> Iterator[T]:
    began = last = time.monotonic()
    for done, item in enumerate(items, 1):
        now = time.monotonic()
        if describe or done == total or now - last >= LINE_SECONDS:
            last = now
            left = (now - began) / done * (total - done) if total else 0
            words = [f"{what} {done}/{total or '?'}", describe(item) if describe else "", f"{left:.0f} s left"]
            note(" ".join(word for word in words[: 3 if left >= 1 else 2] if word))
        yield item


@cache
def _console() -> "Console":
    from segline import terminal

    return terminal.console(stderr=True)
