"""Shows how far a stage is: a bar in a terminal, plain lines elsewhere; on standard error, never in a result."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
R = TypeVar("R")

Mode = Literal["auto", "bar", "lines", "off"]

LINE_SECONDS = 5  # between two plain lines, so that quick loops say one thing only


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


def each(function: Callable[[T], R], items: Sequence[T], what: str, mode: Mode) -> Iterator[R]:
    """Yield `function` of each item, in the order of the items, worked out by all cores at once, shown as by `track`.

    Threads: `function` must spend its time where Python's lock is released (OpenCV, numpy, files). The first error
    is raised here, and what has not been started then is not.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
        yield from track(pool.map(function, items), what, mode, len(items))


def _bar(items: Iterable[T], what: str, total: int | None, describe: Callable[[T], str] | None) -> Iterator[T]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
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
    from rich.console import Console

    return Console(stderr=True)
