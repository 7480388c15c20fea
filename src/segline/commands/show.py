"""`segline models show VERSION`: show the origin of a version."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline.commands import promote
from segline.commands.models import local_time, open_registry, row
from segline.text import visible
from segline.track import commits, intact, tags, versions
from segline.track.registry import VERSION_TAG, ModelVersion, Registry

MAX_SHOWN = 10_000  # maximum number of printed characters of a value
MD5S = ("model.md5", "code.md5", "data.md5", "test.md5")


def main(which: str, name: str, as_json: bool, console: Console, say: Callable[[str], None]) -> None:
    """Print the commit, data, params, environment, run, verdict, files and images of a version."""
    registry = open_registry(name)
    version = registry.version(which)
    content = facts(registry, version)
    if as_json:
        say(json.dumps(content, indent=2))
        return
    console.print(_overview(content))
    if (verdict := tags.verdict(version.tags)) and verdict.checks:
        console.print(promote.table(verdict))
    for title in ("params", "environment", "files"):
        console.print(_pairs(title, content[title]))
    console.print(_images(content["images"]))


def facts(registry: Registry, version: ModelVersion) -> dict[str, Any]:
    """Return all recorded facts about a version."""
    own_tags, run, verdict = version.tags, registry.run(version), tags.verdict(version.tags)
    origin = commits.find(own_tags, registry.store.place.root)
    images = versions.images(registry.store, version)
    environment = {name: value for name, value in own_tags.items() if name.startswith("env.")}
    return {
        **row(registry, version),
        **{name: own_tags.get(name) for name in MD5S},
        "dataset": own_tags.get("dataset"),
        "classes": tags.table(own_tags, tags.CLASSES),
        "commit": origin.commit,
        "no commit": origin.why or None,
        "lock committed": origin.locked,
        "gate": verdict.as_dict() if verdict else {},
        "edited tags": tags.unreadable(own_tags),
        "params": dict(run.data.params) if run else {},
        "environment": environment,
        "files": intact.recorded(version),
        "images": None if images is None else [asdict(image) for image in images],
        "history": [asdict(line) for line in registry.history() if line.version_md5 == own_tags.get(VERSION_TAG)],
    }


def _overview(content: dict[str, Any]) -> Table:
    """Return a table of the version's short properties; longer ones have tables of their own."""
    lines = {
        "aliases": " ".join(f"@{alias}" for alias in content["aliases"]),
        "registered": local_time(content["registered"]),
        "md5": content["md5"],
        "commit": content["commit"] or f"none: {content['no commit']}",
        "run": content["run"],
        "dataset": content["dataset"],
        "classes": ", ".join(f"{number} {name}" for number, name in content["classes"].items()),
        **{name: content[name] for name in MD5S},
        **({"edited tags": ", ".join(content["edited tags"])} if content["edited tags"] else {}),
        **{f"{line['action']} {local_time(line['time'])}": _line(line) for line in content["history"]},
    }
    title = Text(f"{content['name']} version {content['version']}", style="table.title")
    table = Table(show_header=False, title=title, title_justify="left")
    for name, value in lines.items():
        table.add_row(name, _cell(value or "-"))
    return table


def _line(line: dict[str, Any]) -> str:
    return f"{line['reason']} ({line['who']}{', forced' if line['forced'] else ''})"


def _pairs(title: str, content: dict[str, Any]) -> Table:
    table = Table(show_header=False, title=title, title_justify="left")
    for name, value in sorted(content.items()) or [("not known", "")]:
        table.add_row(_cell(name), _cell(value))
    return table


def _cell(value: object) -> Text:
    """Return an untrusted value as text that is safe to print, without markup and control characters."""
    return Text(visible(str(value)[:MAX_SHOWN]), overflow="fold")


def _images(images: list[dict[str, str]] | None) -> Table:
    table = Table("image", "split", "md5", title="images", title_justify="left")
    for image in images or []:
        table.add_row(_cell(image["file"] or image["image"]), _cell(image["split"]), _cell(image["md5"]))
    if images is None:
        table.add_row("not recorded", "", "")
    return table
