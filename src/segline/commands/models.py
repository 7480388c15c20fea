"""`segline models list`: the versions of a model; and which model a command is about."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from segline import params
from segline.data.dataset import SPEC, read_spec
from segline.data.prepared import PREPARED
from segline.text import visible
from segline.track import tags
from segline.track.history import HISTORY, read_history
from segline.track.registry import VERSION_TAG, ModelVersion, Registry, RegistryError
from segline.track.store import Store, open_store

SHORT = 8  # letters of an md5
MAIN = "mean_iou"


def open_registry(name: str = "", store: Store | None = None) -> Registry:
    """The model of this name; without one, that of params.yaml and the dataset, else the only one of the store.

    Raises
    ------
    RegistryError
        There is none of the name, or nothing says which of several is meant.
    """
    store = store or open_store()
    names = sorted(model.name for model in store.client.search_registered_models(max_results=1000))
    for wanted in [name] if name else _expected():
        if wanted in names:
            return Registry(store, wanted)
    root = store.place.root
    if not names and read_history(root / HISTORY):
        raise RegistryError(f"no model is registered here; `segline models sync` brings back those of {HISTORY}")
    if not names:
        raise RegistryError("no model is registered yet; `make run` or `dvc repro` makes and registers the first")
    if name:
        raise RegistryError(f"--name {name}: there is no such model; there are {', '.join(names)}")
    if len(names) > 1:
        there = "" if Path.cwd() == root else f" (or run segline in {root}, whose params.yaml may say it)"
        raise RegistryError(f"there are several models: say which with --name: {', '.join(names)}{there}")
    return Registry(store, names[0])


def _expected() -> list[str]:
    """The names that stage register would take here, the surest first."""
    set_name = params.read(params.Registration).name if params.PARAMS_FILE.exists() else ""
    prepared = PREPARED / SPEC
    return [each for each in (set_name, read_spec(prepared).name if prepared.exists() else "") if each]


def list_(name: str, as_json: bool, console: Console, say: Callable[[str], None]) -> None:
    """Show the versions, the newest first."""
    registry = open_registry(name)
    rows = [row(registry, version) for version in registry.versions()]
    if as_json:
        say(json.dumps(rows, indent=2))
        return
    aliases = Column("aliases", min_width=len("@challenger"))  # or a narrow terminal cuts them
    content = Table(
        "version", aliases, "registered", MAIN, "gate", "md5", "run", title=Text(registry.name, style="table.title")
    )
    for each in rows:
        content.add_row(
            str(each["version"]),
            Text(visible(" ".join(f"@{alias}" for alias in each["aliases"]))),
            local_time(each["registered"]),
            "-" if each[MAIN] is None else f"{each[MAIN]:.4f}",
            each["gate"],
            Text(visible(each["md5"][:SHORT])),
            Text(visible((each["run"] or "")[:SHORT])),
        )
    console.print(content)


def row(registry: Registry, version: ModelVersion) -> dict[str, Any]:
    """A version at a glance."""
    return {
        "name": registry.name,
        "version": int(version.version),
        "aliases": sorted(version.aliases),
        "registered": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        "md5": version.tags.get(VERSION_TAG, ""),
        "run": version.run_id,
        MAIN: figure(version),
        "gate": state(version),
    }


def figure(version: ModelVersion) -> float | None:
    """The version's main metric, as its verdict has it: one run may have made several versions."""
    verdict = tags.verdict(version.tags)
    return next((check.value for check in verdict.checks if check.name == MAIN), None) if verdict else None


def state(version: ModelVersion) -> str:
    """What the gate said: passed, failed, or cannot decide; - where it was not asked, ? where its tag was edited."""
    verdict = tags.verdict(version.tags)
    if verdict is None:
        return "?" if tags.GATE in version.tags else "-"
    return verdict.word


def local_time(iso: str) -> str:
    """A time as the clock here shows it."""
    return f"{datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M}"
