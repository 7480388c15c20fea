"""`segline models uses IMAGE`: which versions learned from an image, chose by it, or were judged on it."""

import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline import files
from segline.commands.models import open_registry
from segline.text import visible
from segline.track import trained


class UsesError(ValueError):
    """What was named is no image; the message says so."""


def main(image: str, name: str, as_json: bool, console: Console, say: Callable[[str], None]) -> None:
    """List the versions in whose data an image is: the same file by its content, or one of its name.

    Raises
    ------
    UsesError
        The name is empty, or a folder's.
    """
    if not image:
        raise UsesError("IMAGE is empty; name a file, or the name of one")
    if Path(image).is_dir():
        raise UsesError(f"{image}: a folder; name one image, a file or the name of one")
    registry = open_registry(name)
    md5 = files.md5(Path(image)) if Path(image).is_file() else None
    rows, unknown = [], []
    for version in registry.versions():
        found = trained.images(registry.store, version)
        if found is None:
            unknown.append(str(version.version))
        aliases = sorted(version.aliases)
        for each in found or []:
            if same := trained.alike(each, image, md5):
                known = {"image": each.file or each.image, "split": each.split, "same": same, "md5": each.md5}
                rows.append({"version": int(version.version), "aliases": aliases, **known})
    if as_json:
        say(json.dumps(rows, indent=2))
        return
    if rows:
        console.print(_table(rows, registry.name))
    else:
        say(f"no version of {registry.name} has {image} in its data")
    if unknown:
        say(f"not known of versions {', '.join(unknown)}, which have no list of their images")


def _table(rows: list[dict[str, object]], model: str) -> Table:
    title = Text(model, style="table.title")
    table = Table("version", "aliases", "split", "image", "same", title=title, title_justify="left")
    for row in rows:
        aliases = row["aliases"]
        assert isinstance(aliases, list)
        table.add_row(
            str(row["version"]),
            Text(visible(" ".join(f"@{alias}" for alias in aliases))),
            Text(visible(str(row["split"]))),
            Text(visible(str(row["image"])), overflow="fold"),
            str(row["same"]),
        )
    return table
