"""`segline summary`: show the results of the last pipeline run, and the next command."""

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
REMEDY = "delete the file and run `dvc repro` to write it again"


class RegistrationRecord(BaseModel):
    """Fields of registration.json that the summary needs."""

    name: str
    version_md5: Annotated[str, StringConstraints(pattern=r"^\w{1,64}$")]


class SummaryError(RuntimeError):
    """There are no results yet; the message names the command that writes them."""


def main(console: Console) -> None:
    """Print the metrics of the test split, the registered version with its aliases, and the next command.

    Raises
    ------
    SummaryError
        The pipeline has not run to its end.
    """
    for name in ("test.json", "registration.json"):
        if not (REPORTS / name).exists():
            raise SummaryError(f"{REPORTS / name} does not exist yet; create it with `make run` or `dvc repro`")
    files.read_record(REPORTS / "test.json", Result, REMEDY)
    result, record = files.read_json(REPORTS / "test.json"), files.read_json(REPORTS / "registration.json")
    files.read_record(REPORTS / "registration.json", RegistrationRecord, REMEDY)
    console.print(table(result, record["name"]))
    console.print("  ".join(f"{name} {rounded(result[name])}" for name in METRICS if name in result))
    if warning := _text_field(TRAINING, "collapsed"):
        console.print(Text(f"warning from the training: {warning}", style="yellow"))
    if comparison := _text_field(SEARCH, "said"):
        console.print(Text(f"search: {comparison}"))
    # Rich treats text in square brackets as markup, except in a Text object. So pass names and paths as Text.
    console.print(Text(registered(record["name"], record["version_md5"])))
    console.print(Text(f"next: {command()} ui"))


def _text_field(file: Path, field: str) -> str | None:
    """Return the text in `field` of a JSON file; None if the file or field is missing, or the value is not text."""
    if not file.exists():
        return None
    value = files.read_record(file, dict[str, Any], REMEDY).get(field)
    return value if isinstance(value, str) else None


def table(result: dict[str, Any], name: str) -> Table:
    """Return a table of the IoU and Dice of each class on the test split."""
    title = Text(f"{name}: {result['images']} test images", style="table.title")
    content = Table("class", "IoU", "Dice", title=title, title_justify="left")
    for label, iou in result["iou"].items():
        content.add_row(Text(label), rounded(iou), rounded(result["dice"][label]))
    return content


def rounded(value: float | None) -> str:
    """Format a metric with four decimals; return a dash if the metric is undefined."""
    return "-" if value is None else f"{value:.4f}"


def registered(name: str, md5: str) -> str:
    """Find the version of model `name` with the MD5 `md5`; return its number and aliases as one line of text."""
    from segline.track.registry import Registry
    from segline.track.store import open_store

    registry = Registry(open_store(), name)
    version = registry.find(md5)
    if version is None:
        return (
            f"registered as {name}, but the version is not in this machine's store; add the version with "
            "`dvc repro -f -s register`"
        )
    aliases = registry.client.get_model_version(name, version.version).aliases
    return " ".join([f"registered as {name} version {version.version}", *(f"@{alias}" for alias in sorted(aliases))])


def command() -> str:
    """Return the command that starts segline: `segline` in an active virtual environment, otherwise a relative path."""
    if "VIRTUAL_ENV" in os.environ:
        return "segline"
    return os.path.relpath(Path(sys.executable).with_name("segline"))
