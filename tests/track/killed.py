"""Run a process that registers and promotes versions of a tiny model, and kill it at a call or at any time."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mlflow import MlflowClient

from segline.gate import champion
from segline.gate.rules import floors
from segline.params import Gate
from segline.track import history, intact, versions
from segline.track.audit import verify
from segline.track.history import champions, read_history
from segline.track.packaging import Parts
from segline.track.registry import Registry
from segline.track.store import Store, open_store

GOOD = floors({"mean_iou": 0.9, "pixel_error": 0.05}, Gate())
# Calls of a registration and a promotion, in order; the process is killed before or after one of them.
POINTS: tuple[tuple[Any, str], ...] = (
    (MlflowClient, "create_logged_model"),
    (versions, "_upload"),
    (MlflowClient, "finalize_logged_model"),
    (MlflowClient, "log_outputs"),
    (history, "append"),
    (MlflowClient, "create_model_version"),
    (MlflowClient, "set_logged_model_tags"),
    (MlflowClient, "set_model_version_tag"),
    (history, "mark_move"),
    (MlflowClient, "set_registered_model_alias"),
    (history, "clear_mark"),
)


def upload(store: Any, parts: Any, _: Any, logged: Any, records: Any) -> dict[str, str]:  # noqa: ARG001
    """Upload the files of a model without the check of its answer, which takes seconds."""
    folder = Path(f"packed {parts.md5}")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "artifacts" / "model").mkdir(parents=True)
    for file in (parts.model / "weights.safetensors", parts.model / "model.json", parts.inference):
        shutil.copy(file, folder / "artifacts" / "model" / file.name.split(" ")[0])
    shutil.copytree(parts.room, folder / "code" / parts.package, ignore=shutil.ignore_patterns("__pycache__"))
    store.client.log_model_artifacts(logged.model_id, str(folder))
    return intact.listing(folder)


def variant(parts: Parts, number: int) -> Parts:
    """Return the same model with other bytes in its settings."""
    folder = Path(f"variant-{number}")
    folder.mkdir(exist_ok=True)
    (folder / "inference.json").write_text(parts.inference.read_text() + " " * number)
    return replace(parts, inference=folder / "inference.json")


def work(parts: Parts, number: int) -> None:
    """Register a version and make it champion."""
    store = open_store()
    registry = Registry(store, "cells")
    with store.start_run(f"train {number}") as run:
        registered = champion.register(registry, parts, run, GOOD, {})
    if "champion" not in registered.aliases:
        with patch.object(champion, "judge", lambda *_, **__: GOOD):
            champion.promote(registry, registered.version, force=True, reason=f"number {number}")


def killed_at(owner: Any, name: str, when: str, parts: Parts, number: int) -> None:
    """Do the work in a process that is killed before or after the first call of `name`."""
    call: Callable[..., Any] = getattr(owner, name)

    def end(*arguments: Any, **named: Any) -> Any:
        if when == "after":
            call(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        setattr(owner, name, end)
        _work_and_leave(parts, number)
    _, state = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(state) == -signal.SIGKILL, f"{name} was not called"


def killed_after(seconds: float, parts: Parts, number: int) -> bool:
    """Do the work in a process that is killed after some seconds; return whether it was still running."""
    child = os.fork()
    if child == 0:
        _work_and_leave(parts, number)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # a finished child stays until its parent waits for it
    _, state = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(state) == -signal.SIGKILL


def _work_and_leave(parts: Parts, number: int) -> None:
    try:
        work(parts, number)
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)
    os._exit(0)


def kill_and_repair(store: Store, parts: Parts, points: Sequence[tuple[Any, str]], moments: Sequence[str]) -> None:
    """Kill the work at each of `points`, before or after the call, and repeat it."""
    work(variant(parts, 0), 0)
    number = 0
    for owner, name in points:
        for when in moments:
            number += 1
            changed = variant(parts, number)
            killed_at(owner, name, when, changed, number)
            check_before_repair(store)
            work(changed, number)
            check_repaired(store)


def check_before_repair(store: Store) -> None:
    """Check the state after any kill: the history is readable, and each version in the store has its line."""
    lines = read_history(store.place.root / "registry.jsonl")
    versions = store.client.search_model_versions("name = 'cells'")
    assert {version.tags["version.md5"] for version in versions} <= {line.version_md5 for line in lines}


def check_repaired(store: Store) -> None:
    """Check the state after the next registration or promotion: nothing is pending, and all agrees with the history."""
    registry = Registry(store, "cells")
    held = champions(registry.history())
    for alias, place in (("champion", -1), ("previous", -2)):
        version = registry.holder(alias)
        expected = held[place] if len(held) >= -place else None
        assert (version.tags["version.md5"] if version else None) == expected, alias
    for logged in store.client.search_logged_models([store.experiment_id]):
        assert str(logged.status) in ("READY", "FAILED"), logged
    problems = [finding.what for finding in verify(registry) if not finding.note]
    assert problems == [], problems
    lines = [json.dumps([line.name, line.version_md5]) for line in registry.history() if line.action == "register"]
    assert len(lines) == len(set(lines))
    assert not (store.place.folder / "promotion.json").exists()
