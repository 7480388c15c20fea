"""`segline models sync`: restore runs, versions and aliases from registry.jsonl in a new clone."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from segline.track import restore
from segline.track.clone import Clone, CloneError
from segline.track.history import CHAMPION, HISTORY, read_history
from segline.track.registry import Registry
from segline.track.store import open_store


class SyncError(RuntimeError):
    """Some versions could not be restored; the message gives the reason for each version."""


def main(register: Callable[[str], str], say: Callable[[str], None]) -> None:
    """Restore all current and former champions that are missing in the store, then set the aliases.

    The command can be repeated safely.

    Parameters
    ----------
    register : registers the model in the working directory under a name, and returns the number of the version.
    say : prints a line for each step.

    Raises
    ------
    SyncError
        Some versions could not be restored; all other versions were restored.
    """
    store = open_store()
    lines = [line for line in read_history(store.place.root / HISTORY) if line.alias == CHAMPION]
    if not lines:
        say(f"{HISTORY} names no champion, so there is nothing to restore")
        return
    missing: list[str] = []
    for name in restore.names(lines):
        registry = Registry(store, name)
        lost = restore.lost(registry)
        if lost:
            missing += _restore(lost, registry, register, say)
        moved = restore.aliases(registry)
        for line in moved or ([] if lost else ["nothing to do"]):
            say(f"{name}: {line}")
    if missing:
        raise SyncError("\n".join(missing))


def _restore(
    lost: list[restore.Lost], registry: Registry, register: Callable[[str], str], say: Callable[[str], None]
) -> list[str]:
    """Register the versions in `lost` again; return an error message for each version that cannot be restored."""
    missing, place = [], registry.store.place
    with TemporaryDirectory(prefix="segline-sync-") as folder:
        clone = Clone(place.root, Path(folder) / "clone")
        for version in lost:
            label = f"{version.name} {version.version_md5[:10]}"
            say(f"{label}: searching for its commit and data")
            try:
                commit = restore.check_out(clone, place, version)
                with _working_in(clone.project, place.root):
                    number = register(version.name)
                if registry.find(version.version_md5) is None:
                    raise SyncError(
                        f"the model of commit {commit[:10]} was registered again as version {number}, but the "
                        "new version has a different md5"
                    )
            except (CloneError, SyncError, ValueError, OSError) as error:
                missing.append(f"{version.name} {version.version_md5} cannot be restored: {error}")
                continue
            say(f"{label}: registered as version {number}, from commit {commit[:10]}")
    return missing


@contextlib.contextmanager
def _working_in(folder: Path, root: Path) -> Iterator[None]:
    """Make `folder` the working directory, but keep using the store of the project at `root`.

    DVC sets DVC_ROOT in the same way for a queued experiment.
    """
    before = os.environ.get("DVC_ROOT")
    os.environ["DVC_ROOT"] = str(root)
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        del os.environ["DVC_ROOT"]
        if before is not None:
            os.environ["DVC_ROOT"] = before
