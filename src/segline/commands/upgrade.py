"""`segline upgrade`: make a project use the installed segline, and list the stages that will run again."""

from collections.abc import Callable
from difflib import unified_diff
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from segline import files, params
from segline.commands import preset
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
    ParamsError
        The installed segline does not accept params.yaml; segline.yaml is written all the same.
    """
    pipeline = files.read_bytes(PIPELINE).decode(errors="replace") if PIPELINE.is_file() else ""
    if installed.FILE.name not in pipeline:
        raise UpgradeError(
            f"{Path.cwd()} holds no project that `segline init` made; run the command in the folder that holds "
            f"{installed.FILE} and a {PIPELINE} that mentions {installed.FILE}"
        )
    new, old = installed.here(), _former()
    if new != old and not dry_run:
        files.write_bytes(installed.FILE, new.text().encode(), settle=True)
    for line in (*_changes(old, new), *_pipeline_changes(pipeline)):
        say(line)
    if dry_run:
        say(f"{installed.FILE} was not changed (--dry-run)")
    params.load(params.Params, params.PARAMS_FILE)
    if missing := _missing_settings():
        say(f"params.yaml lacks settings that dvc.yaml names; their defaults: {params.flat(missing)}")
        if not dry_run:
            preset.change(missing, "segline upgrade")
            say("these settings were added to params.yaml")


def _missing_settings() -> dict[str, Any]:
    """Return the settings that params.yaml lacks, but the stages name; without them, DVC refuses to run the stages."""
    stages = YAML(typ="safe").load((resources("segline.template") / "stages.yaml").read_text(encoding="utf-8"))[
        "stages"
    ]
    content, defaults = files.read_yaml(params.PARAMS_FILE), params.Params().model_dump(mode="json")
    named = {name: None for stage in stages.values() for name in stage["params"] if isinstance(name, str)}
    missing = [name for name in named if params.value_at(content, name) is None]
    return params.nested({name: params.value_at(defaults, name) for name in missing})


def _former() -> installed.Identity:
    """Return the version and code digests in segline.yaml; "unknown" and no digests if the file is unusable."""
    try:
        former = installed.named()
    except files.FileError:
        former = None
    return former or installed.Identity(version="unknown", code={})


def _changes(old: installed.Identity, new: installed.Identity) -> list[str]:
    if new == old:
        return [f"{installed.FILE} names the installed segline {new.version} already; nothing changes"]
    lines = [f"{installed.FILE}: segline {old.version} -> {new.version}"]
    if not (stages := old.differing(new)):
        return [*lines, "the code of no stage changed, so `dvc repro` runs nothing again"]
    return [
        *lines,
        f"the code of these stages changed: {', '.join(stages)}",
        "`dvc repro` runs these stages again, and then each later stage whose inputs have changed",
    ]


def _pipeline_changes(pipeline: str) -> list[str]:
    """Return the differences between the project's dvc.yaml and the dvc.yaml of the installed segline."""
    ours = (resources("segline.template") / "stages.yaml").read_text(encoding="utf-8").splitlines()
    theirs = pipeline.removeprefix("\ufeff").splitlines()
    lines = [
        *unified_diff(theirs, ours, "dvc.yaml of this project", "dvc.yaml of the installed segline", "", "", 1, "")
    ]
    return ["dvc.yaml was not changed; the installed segline would write it like this:", *lines] if lines else []
