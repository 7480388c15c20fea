"""`segline upgrade`: make a project use the installed segline, and list the stages that will run again."""

from collections.abc import Callable
from difflib import unified_diff
from importlib.resources import files as resources
from pathlib import Path

from segline import files
from segline.track import installed

PIPELINE = Path("dvc.yaml")


class UpgradeError(RuntimeError):
    """The project cannot be upgraded; the message says why."""


def main(say: Callable[[str], None], *, dry_run: bool = False) -> None:
    """Write the version and the code digests of the installed segline into segline.yaml.

    Parameters
    ----------
    say : prints a line.
    dry_run : only print what would change.

    Raises
    ------
    UpgradeError
        The working directory holds no project that `segline init` made.
    """
    if not PIPELINE.is_file() or installed.FILE.name not in PIPELINE.read_text(encoding="utf-8-sig"):
        raise UpgradeError(
            f"{Path.cwd()} holds no project that `segline init` made: its dvc.yaml does not mention {installed.FILE}"
        )
    new, old = installed.here(), _former()
    for line in _changes(old, new):
        say(line)
    for line in _pipeline_changes():
        say(line)
    if dry_run:
        say(f"{installed.FILE} was not changed (--dry-run)")
    elif new != old:
        files.write_bytes(installed.FILE, new.text().encode(), settle=True)


def _former() -> installed.Identity:
    """Return the identity in segline.yaml; an identity without code digests if the file is missing or damaged."""
    try:
        former = installed.named()
    except files.FileError:
        former = None
    return former or installed.Identity(version="unknown", code={})


def _changes(old: installed.Identity, new: installed.Identity) -> list[str]:
    if new == old:
        return [f"{installed.FILE} names the installed segline {new.version} already; nothing changes"]
    lines = [f"{installed.FILE}: segline {old.version} -> {new.version}"]
    stages = [stage for stage, md5 in new.code.items() if old.code.get(stage) != md5]
    if not stages:
        return [*lines, "the code of no stage changed, so `dvc repro` runs nothing again"]
    return [
        *lines,
        f"the code of these stages changed: {', '.join(stages)}",
        "`dvc repro` runs these stages again, and then each later stage whose inputs have changed",
    ]


def _pipeline_changes() -> list[str]:
    """Return the differences between the project's dvc.yaml and the dvc.yaml of the installed segline."""
    ours = (resources("segline.template") / PIPELINE.name).read_text(encoding="utf-8").splitlines()
    theirs = PIPELINE.read_text(encoding="utf-8-sig").splitlines()
    lines = [
        *unified_diff(theirs, ours, "dvc.yaml of this project", "dvc.yaml of the installed segline", "", "", 1, "")
    ]
    return ["dvc.yaml was not changed; the installed segline would write it like this:", *lines] if lines else []
