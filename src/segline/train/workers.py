"""Processes that help this one, and never outlive it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from threading import Thread
from typing import Any

from segline import process


class WorkerError(RuntimeError):
    """A process that helps has failed; what it said is above."""


WAIT = 0.5  # s between two looks at whether this process is to end


@contextmanager
def helpers(count: int, check: Callable[[], None], work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run `work` in `count` processes while the block runs, and wait for them; ended with the block when it fails.

    Parameters
    ----------
    check : called while they are waited for; what it raises ends them.

    Raises
    ------
    WorkerError
        One of them failed.
    """
    context = get_context("spawn")  # a fork would inherit torch's threads and open connections
    processes = [context.Process(target=_run, args=(work, arguments)) for _ in range(count)]
    try:
        for process in processes:
            process.start()
        yield
        for process in processes:
            while process.is_alive():
                process.join(WAIT)
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
        raise WorkerError(f"{len(failed)} of {count} processes failed, exit code {failed[0]}; what they said is above")


def _run(work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """What a process does: `work`, ended in good order by SIGTERM, and with its parent however that ends."""
    process.install()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which the parent gets too
    Thread(target=_end_with_parent, daemon=True).start()
    work(*arguments)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
