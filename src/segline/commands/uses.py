"""`segline models uses IMAGE`: list the versions that were trained, validated or tested on an image."""

import json
from collections.abc import Callable
from pathlib import Path, PurePath

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline import files
from segline.commands.models import open_registry
from segline.text import visible
from segline.track import versions
from segline.track.versions import SplitImage


class UsesError(ValueError):
    """The argument IMAGE is empty or names a folder."""


def main(image: str, name: str, as_json: bool, console: Console, say: Callable[[str], None]) -> None:
    """List the versions whose data contain the given image. An image matches if its content or its file name is equal.

    Raises
    ------
    UsesError
        The argument is empty or a folder.
    """
    if not image:
        raise UsesError("the argument IMAGE is empty; give the path or the name of an image file")
    if Path(image).is_dir():
        raise UsesError(f"{image} is a folder; give one image file or its name")
    registry = open_registry(name)
    md5 = files.md5(Path(image)) if Path(image).is_file() else None
    rows, without_list = [], []
    for version in registry.versions():
        images = versions.images(registry.store, version)
        if images is None:
            without_list.append(str(version.version))
        aliases = sorted(version.aliases)
        for candidate in images or []:
            if same := match(candidate, image, md5):
                facts = {"image": candidate.file or candidate.image, "split": candidate.split, "same": same}
                rows.append({"version": int(version.version), "aliases": aliases, **facts, "md5": candidate.md5})
    if as_json:
        say(json.dumps(rows, indent=2))
        return
    if rows:
        console.print(_table(rows, registry.name))
    else:
        say(f"no version of {registry.name} has {image} in its data")
    if without_list:
        say(f"versions {', '.join(without_list)} have no list of their images and could not be searched")


def match(image: SplitImage, name: str, md5: str | None) -> str:
    """Compare an image of a version with the user's image; return "" if neither the content nor the name is the same.

    Otherwise return "content", "name" or "name, other content".

    Parameters
    ----------
    image : an image of a version.
    name : file name or stem of the user's image, or its path in the dataset.
    md5 : md5 of the user's image; None if the user does not have the file.
    """
    if md5 is not None and image.md5 == md5:
        return "content"
    path = PurePath(name)
    if name in (image.file, image.image) or path.name == PurePath(image.file).name or path.name == image.image:
        return "name" if md5 is None else "name, other content"
    return ""


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
