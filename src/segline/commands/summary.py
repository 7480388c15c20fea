"""`segline summary`: what the last run reached, as a table, and what to type next."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline import files
from segline.score.judge import METRICS, Result

REPORTS = Path("data/reports")
TRAINING = Path("data/model/metrics.json")
SEARCH = Path("data/tune/search.json")


AGAIN = "remove it, and `dvc repro` writes it"


class Record(BaseModel):
    """What registration.json has to say."""

    name: str
    version_md5: Annotated[str, StringConstraints(pattern=r"^\w{1,64}$")]


class SummaryError(RuntimeError):
    """There is nothing to show yet; the message says how to get it."""


def main(console: Console) -> None:
    """Print figures of the test split, the registered version with its aliases, and the next command.

    Raises
    ------
    SummaryError
        The pipeline has not run to its end.
    """
    for name in ("test.json", "registration.json"):
        if not (REPORTS / name).exists():
            raise SummaryError(f"{REPORTS / name} is not there yet; `make run` or `dvc repro` makes it")
    files.read_record(REPORTS / "test.json", Result, AGAIN)
    result, record = files.read_json(REPORTS / "test.json"), files.read_json(REPORTS / "registration.json")
    files.read_record(REPORTS / "registration.json", Record, AGAIN)
    console.print(table(result, record["name"]))
    console.print("  ".join(f"{name} {figure(result[name])}" for name in METRICS if name in result))
    if warning := _said(TRAINING, "collapsed") if TRAINING.exists() else None:
        console.print(Text(f"warning: in training, {warning}", style="yellow"))
    if said := _said(SEARCH, "said") if SEARCH.exists() else None:
        console.print(Text(f"search: {said}"))
    # Text: a name or a path in square brackets is no markup.
    console.print(Text(registered(record["name"], record["version_md5"])))
    console.print(Text(f"next: {command()} ui"))


def _said(file: Path, field: str) -> str | None:
    """A text in a file, where there is one."""
    said = files.read_record(file, dict[str, Any], AGAIN).get(field)
    return said if isinstance(said, str) else None


def table(result: dict[str, Any], name: str) -> Table:
    """IoU and Dice of each class on the test split."""
    title = Text(f"{name}: {result['images']} test images", style="table.title")
    content = Table("class", "IoU", "Dice", title=title, title_justify="left")
    for label, iou in result["iou"].items():
        content.add_row(Text(label), figure(iou), figure(result["dice"][label]))
    return content


def figure(value: float | None) -> str:
    """Four digits; a dash where there was nothing to judge."""
    return "-" if value is None else f"{value:.4f}"


def registered(name: str, md5: str) -> str:
    """Which version of the registry the model is, and its aliases."""
    from segline.track.registry import Registry
    from segline.track.store import open_store

    registry = Registry(open_store(), name)
    version = registry.find(md5)
    if version is None:
        return f"registered as {name}, but not in this machine's store; `dvc repro -f -s register` puts it there"
    aliases = registry.client.get_model_version(name, version.version).aliases
    return " ".join([f"registered as {name} version {version.version}", *(f"@{alias}" for alias in sorted(aliases))])


def command() -> str:
    """How the command is typed from here: by its name where its environment is active, else by its path."""
    if "VIRTUAL_ENV" in os.environ:
        return "segline"
    return os.path.relpath(Path(sys.executable).with_name("segline"))
