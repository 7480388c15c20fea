"""`segline models list`: list the versions of a model. This module also opens model registries for other commands."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
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

SHORT = 8  # characters of an md5 or run id in the table
MAIN = "mean_iou"


def open_registry(name: str = "", store: Store | None = None) -> Registry:
    """Open the registry of the model `name`. If `name` is empty, select the default model of the project.

    The default model is the first of these models that exists: the model that params.yaml names, the model with the
    dataset's name, the only model.

    Raises
    ------
    RegistryError
        There is no such model, or `name` is empty and there are several models.
    """
    store = store or open_store()
    names = sorted(model.name for model in store.client.search_registered_models(max_results=1000))
    for candidate in [name] if name else _expected():
        if candidate in names:
            return Registry(store, candidate)
    root = store.place.root
    if not names and read_history(root / HISTORY):
        raise RegistryError(
            f"no model is registered here, but {HISTORY} lists models; restore them with `segline models sync`"
        )
    if not names:
        raise RegistryError("no model is registered yet; train and register a model with `make run` or `dvc repro`")
    if name:
        raise RegistryError(f"--name {name}: there is no such model; choose one of {', '.join(names)}")
    if len(names) > 1:
        hint = "" if Path.cwd() == root else f" (or run segline in {root}, whose params.yaml may name the model)"
        raise RegistryError(f"there are several models; choose one with --name: {', '.join(names)}{hint}")
    return Registry(store, names[0])


def _expected() -> list[str]:
    """Return the possible names of this project's model: the name in params.yaml, then the dataset's name."""
    set_name = params.read(params.Registration).name if params.PARAMS_FILE.exists() else ""
    spec = PREPARED / SPEC
    return [name for name in (set_name, read_spec(spec).name if spec.exists() else "") if name]


def list_(name: str, as_json: bool, console: Console, say: Callable[[str], None]) -> None:
    """Print the model versions, newest first, as a table or as JSON."""
    registry = open_registry(name)
    rows = [row(registry, version) for version in registry.versions()]
    if as_json:
        say(json.dumps(rows, indent=2))
        return
    # At 80 columns, the words "@challenger" and a date must not be cut.
    aliases, registered = Column("aliases", no_wrap=True), Column("registered", min_width=len("2026-01-31"))
    title = Text(registry.name, style="table.title")
    content = Table("version", aliases, registered, MAIN, "gate", "md5", "run", title=title, box=SIMPLE_HEAD)
    for version in rows:
        content.add_row(
            str(version["version"]),
            Text("\n".join(visible(f"@{alias}") for alias in version["aliases"])),
            local_time(version["registered"]),
            "-" if version[MAIN] is None else f"{version[MAIN]:.4f}",
            version["gate"],
            Text(visible(version["md5"][:SHORT])),
            Text(visible((version["run"] or "")[:SHORT])),
        )
    console.print(content)


def row(registry: Registry, version: ModelVersion) -> dict[str, Any]:
    """Summarize a model version as a dictionary, for the table or for JSON."""
    return {
        "name": registry.name,
        "version": int(version.version),
        "aliases": sorted(version.aliases),
        "registered": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        "md5": version.tags.get(VERSION_TAG, ""),
        "run": version.run_id,
        MAIN: main_metric(version),
        "gate": state(version),
    }


def main_metric(version: ModelVersion) -> float | None:
    """Return a version's main metric from the verdict, not from the run, because several versions may share a run."""
    verdict = tags.verdict(version.tags)
    return next((check.value for check in verdict.checks if check.name == MAIN), None) if verdict else None


def state(version: ModelVersion) -> str:
    """Return the verdict as a word, such as "passed"; "-" without a verdict, "?" if the verdict's tag is invalid."""
    verdict = tags.verdict(version.tags)
    if verdict is None:
        return "?" if tags.GATE in version.tags else "-"
    return verdict.word


def local_time(iso: str) -> str:
    """Format an ISO 8601 time in the local time zone."""
    return f"{datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M}"
