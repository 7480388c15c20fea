"""`segline models sync`: after a clone, runs, versions and aliases as registry.jsonl tells them."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from segline.track import restore
from segline.track.elsewhere import Elsewhere, ElsewhereError
from segline.track.history import CHAMPION, HISTORY, read_history
from segline.track.registry import Registry
from segline.track.store import open_store


class SyncError(RuntimeError):
    """Something could not be brought back; the message says what, and why."""


def main(register: Callable[[str], str], say: Callable[[str], None]) -> None:
    """Bring back what registry.jsonl names and the store lacks, then set the aliases; again, it does nothing.

    Parameters
    ----------
    register : makes a version, under the name given, of the data in the working directory; returns its number.
    say : is told each step.

    Raises
    ------
    SyncError
        Some versions could not be brought back; all others were.
    """
    store = open_store()
    lines = [line for line in read_history(store.place.root / HISTORY) if line.alias == CHAMPION]
    if not lines:
        say(f"{HISTORY} names no champion: nothing was ever promoted, so there is nothing to bring back")
        return
    missing: list[str] = []
    for name in restore.names(lines):
        registry = Registry(store, name)
        lost = restore.lost(registry)
        if lost:
            missing += _bring_back(lost, registry, register, say)
        moved = restore.aliases(registry)
        for line in moved or ([] if lost else ["nothing to do"]):
            say(f"{name}: {line}")
    if missing:
        raise SyncError("\n".join(missing))


def _bring_back(
    lost: list[restore.Lost], registry: Registry, register: Callable[[str], str], say: Callable[[str], None]
) -> list[str]:
    """Make the versions anew; returns what is wrong with those that cannot be made."""
    missing, place = [], registry.store.place
    with TemporaryDirectory(prefix="segline-sync-") as folder:
        elsewhere = Elsewhere(place.root, Path(folder) / "clone")
        for version in lost:
            label = f"{version.name} {version.version_md5[:10]}"
            say(f"{label}: looking for its commit and data")
            try:
                commit = restore.go_to_making(elsewhere, place, version)
                with _working_in(elsewhere.project, place.root):
                    number = register(version.name)
                if registry.find(version.version_md5) is None:
                    raise SyncError(f"its commit {commit[:10]} makes another one now, version {number}")
            except (ElsewhereError, SyncError, ValueError, OSError) as error:
                missing.append(f"{version.name} {version.version_md5} cannot be brought back: {error}")
                continue
            say(f"{label}: version {number}, from commit {commit[:10]}")
    return missing


@contextlib.contextmanager
def _working_in(folder: Path, root: Path) -> Iterator[None]:
    """Work in `folder` for the project at `root`, as DVC lets a queued experiment work."""
    before = os.environ.get("DVC_ROOT")
    os.environ["DVC_ROOT"] = str(root)
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        del os.environ["DVC_ROOT"]
        if before is not None:
            os.environ["DVC_ROOT"] = before
