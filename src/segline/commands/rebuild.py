"""`segline models rebuild`: rebuild a version from its commit in a git clone, and compare the two models."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

from segline import files, params
from segline.commands.models import open_registry
from segline.score.judge import Result
from segline.text import shown
from segline.track import commits, installed, lineage
from segline.track.clone import Clone, run_dvc
from segline.track.git import surroundings
from segline.track.store import open_store

SAME, DIFFERENT, UNDECIDED = 0, 1, 2
REBUILT = ("sample", "prepare", "plan", "weights", "tune", "train", "evaluate")
MODEL, PREPARED, RESULT = Path("data/model"), Path("data/prepared"), Path("data/reports/test.json")
# Environment tags of a version. Only a machine with the same values is expected to rebuild a bit-identical model.
KIND = ("env.cpu", "env.torch", "env.numpy", "env.python")


class RebuildError(RuntimeError):
    """A version cannot be rebuilt; the message says why."""

    exit_code = UNDECIDED


def main(which: str, name: str, keep: Path | None, say: Callable[[str], None]) -> int:
    """Clone the project at the version's commit, run the pipeline there, and compare the new model with the version.

    The working tree, the store and the DVC cache are not changed.

    Parameters
    ----------
    keep : new or empty folder for the clone; None: a temporary folder.

    Returns
    -------
    0: the same model; 1: another model on the same kind of machine; 2: another model on another kind of machine, where
    a bit-identical model is not expected.

    Raises
    ------
    RebuildError
        The commit of the version is unknown, needs another segline, or has a pipeline that fails.
    """
    store = open_store()
    registry = open_registry(name, store)
    version = registry.version(which)
    origin = commits.find(version.tags, store.place.root)
    if origin.commit is None:
        raise RebuildError(f"{registry.name} version {version.version} cannot be rebuilt: {origin.why}")
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise RebuildError(f"--keep {keep} exists and is not an empty folder; name a new or empty folder")
    run = registry.run(version)
    metrics = dict(run.data.metrics) if run else {}
    with contextlib.ExitStack() as stack:
        folder = keep.resolve() if keep else Path(stack.enter_context(TemporaryDirectory(prefix="segline-rebuild-")))
        clone = Clone(store.place.root, folder / "clone" if keep is None else folder)
        clone.check_out(origin.commit)
        if reason := installed.mismatch(clone.project, REBUILT):
            raise RebuildError(
                f"{registry.name} version {version.version} cannot be rebuilt: commit {origin.commit[:12]}: {reason}"
            )
        say(f"{registry.name} version {version.version}: rebuilding commit {origin.commit[:12]} in {clone.project}")
        content = files.read_yaml(clone.project / params.PARAMS_FILE)
        if params.automatic(content) and not origin.locked:
            raise RebuildError(
                f"{registry.name} version {version.version} cannot be rebuilt: its settings were planned, and no "
                "commit has a dvc.lock with its plan; commit dvc.lock after each `dvc repro`"
            )
        _reproduce(clone, content, version.tags)
        result = _compare(clone.project, version.tags, metrics, say)
        if result != SAME and (limits := _limits(content)):
            say(
                f"the rebuild ignores {' and '.join(limits)}; a training or search that was shortened to keep to these "
                "limits cannot be repeated"
            )
        return result


def _reproduce(clone: Clone, content: Any, tags: Mapping[str, str]) -> None:
    """Run the stages up to `evaluate` in the clone, with the recorded number of threads and without DVC's run cache.

    `content` is that of params.yaml, without validation, because another release of segline may have written it.
    """
    file = clone.project / params.PARAMS_FILE
    data = content.get("data") if isinstance(content, dict) else None
    source = data.get("source") if isinstance(data, dict) else None
    if not isinstance(source, str):
        raise RebuildError(
            f"{file}: data.source = {shown(source)} is not the path of a dataset, so the version cannot be rebuilt "
            "from this commit"
        )
    yaml = YAML()
    settings = yaml.load(file.read_text(encoding="utf-8-sig"))
    if (threads := tags.get("env.threads", "")).isdecimal() and len(threads) < 5:  # users can edit tags
        settings.setdefault("runtime", {})["threads"] = int(threads)
    for name in _limits(content):
        # A limit would shorten the training on a machine that is slower now than it was then.
        settings[name.split(".")[0]]["minutes"] = 0
    yaml.dump(settings, file)
    if (clone.project / f"{source}.dvc").is_file():  # otherwise a stage generates the dataset
        clone.fetch([source])
    if params.automatic(content):
        # A new plan would time this machine again and could differ. So take the plan of the version, and freeze it.
        clone.fetch(out["path"] for out in clone.lock()["plan"]["outs"])
        run_dvc(["freeze", "plan"], clone.project)
    # Put the folder of the current Python first on PATH: DVC runs the stages with the first `python` on PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache", "--no-commit", "evaluate"]
    done = subprocess.run(command, cwd=clone.project, env={**surroundings(), "PATH": path}, check=False)
    if done.returncode:
        raise RebuildError(f"dvc repro failed with exit code {done.returncode}; see the last lines of its output above")


def _limits(content: Any) -> list[str]:
    """Return the full names of the settings in `content` that limit the time of training or search."""
    return [name for name in ("train.minutes", "tune.minutes") if params.value_at(content, name)]


def _compare(project: Path, tags: Mapping[str, str], metrics: Mapping[str, float], say: Callable[[str], None]) -> int:
    rebuilt, registered = lineage.model_md5(project / MODEL), tags.get("model.md5", "")
    if rebuilt == registered:
        say(f"the rebuilt model is the same: md5 {rebuilt}")
        return SAME
    say(f"the rebuilt model differs: md5 {rebuilt}, registered {registered}")
    if (data := lineage.content_md5(project / PREPARED)) != tags.get("data.md5"):
        say(f"the prepared data of the rebuilt model differ: md5 {data}, registered {tags.get('data.md5')}")
    files.read_record(
        project / RESULT,
        Result,
        "the code of the rebuilt commit wrote this file, and this version of segline cannot read it",
    )
    result = files.read_json(project / RESULT)
    for name in ("mean_iou", "pixel_error"):
        if (before := metrics.get(f"test_{name}")) is not None and (now := result.get(name)) is not None:
            say(f"{name}: {now:.4f}, registered {before:.4f}")
    here = lineage.environment()
    differing = [name for name in KIND if tags.get(name) != here[name]]
    for name in differing:
        say(
            f"{name} is {here[name]} now, but was {tags.get(name, 'not recorded')} in the original training, so a "
            "bit-identical model is not expected"
        )
    return UNDECIDED if differing else DIFFERENT
