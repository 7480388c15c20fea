"""`segline models rebuild`: make a version again from its commit and data, elsewhere, and compare."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML

from segline import files
from segline.commands.models import open_registry
from segline.score.judge import Result
from segline.text import shown
from segline.track import commits, lineage
from segline.track.elsewhere import Elsewhere
from segline.track.git import surroundings
from segline.track.store import open_store

SAME, DIFFERENT, UNDECIDED = 0, 1, 2
MODEL, PREPARED, RESULT = Path("data/model"), Path("data/prepared"), Path("data/reports/test.json")
# What bit equality depends on.
KIND = ("env.cpu", "env.torch", "env.numpy", "env.python")


class RebuildError(RuntimeError):
    """A version that cannot be made again; the message says why."""

    exit_code = UNDECIDED


def main(which: str, name: str, keep: Path | None, say: Callable[[str], None]) -> int:
    """Clone the project at the version's commit, run its pipeline there, and compare the models.

    The working tree, the store and the DVC cache stay as they are.

    Parameters
    ----------
    keep : folder for the clone, which must be new or empty; without it, a temporary one.

    Returns
    -------
    0: the same model; 1: another one, on the same kind of machine; 2: another one on another kind of machine, where
    that says nothing.

    Raises
    ------
    RebuildError
        No commit has what made the version, or the pipeline does not run there.
    """
    store = open_store()
    registry = open_registry(name, store)
    version = registry.version(which)
    making = commits.find(version.tags, store.place.root)
    if making.commit is None:
        raise RebuildError(f"{registry.name} version {version.version} cannot be made again: {making.why}")
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise RebuildError(f"--keep {keep}: there is something already; name a new or empty folder")
    run = registry.run(version)
    metrics = dict(run.data.metrics) if run else {}
    with contextlib.ExitStack() as stack:
        folder = keep.resolve() if keep else Path(stack.enter_context(TemporaryDirectory(prefix="segline-rebuild-")))
        elsewhere = Elsewhere(store.place.root, folder / "clone" if keep is None else folder)
        elsewhere.go_to(making.commit)
        say(f"{registry.name} version {version.version}: rebuilding commit {making.commit[:12]} in {elsewhere.project}")
        _reproduce(elsewhere, version.tags)
        return _compare(elsewhere.project, version.tags, metrics, say)


def _reproduce(elsewhere: Elsewhere, tags: Mapping[str, str]) -> None:
    """Run all stages up to evaluate, whatever the run cache remembers, with as many threads as then."""
    file = elsewhere.project / "params.yaml"
    content = files.read_yaml(file)  # settings of another segline perhaps, so not by the schema of this one
    data = content.get("data") if isinstance(content, dict) else None
    source = data.get("source") if isinstance(data, dict) else None
    if not isinstance(source, str):
        raise RebuildError(f"{file}: data.source = {shown(source)}: it names no dataset, so the commit cannot be built")
    yaml = YAML()
    settings = yaml.load(file.read_text(encoding="utf-8-sig"))
    if (threads := tags.get("env.threads", "")).isdecimal() and len(threads) < 5:  # a tag may be edited
        settings.setdefault("runtime", {})["threads"] = int(threads)
        yaml.dump(settings, file)
    if (elsewhere.project / f"{source}.dvc").is_file():  # else a stage draws it
        elsewhere.fetch([source])
    # The stages call `python`, which DVC does not take from its own environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache", "--no-commit", "evaluate"]
    done = subprocess.run(command, cwd=elsewhere.project, env={**surroundings(), "PATH": path}, check=False)
    if done.returncode:
        raise RebuildError(f"dvc repro ended with exit code {done.returncode}; its last lines say why")


def _compare(project: Path, tags: Mapping[str, str], metrics: Mapping[str, float], say: Callable[[str], None]) -> int:
    made, former = lineage.model_md5(project / MODEL), tags.get("model.md5", "")
    if made == former:
        say(f"the same model comes out: md5 {made}")
        return SAME
    say(f"another model comes out: md5 {made}, registered {former}")
    if (data := lineage.content_md5(project / PREPARED)) != tags.get("data.md5"):
        say(f"it learned from other data: md5 {data}, registered {tags.get('data.md5')}")
    files.read_record(project / RESULT, Result, "the rebuilt project wrote it")
    result = files.read_json(project / RESULT)
    for name in ("mean_iou", "pixel_error"):
        if (before := metrics.get(f"test_{name}")) is not None and (now := result.get(name)) is not None:
            say(f"{name}: {now:.4f}, registered {before:.4f}")
    here = lineage.environment()
    other = [name for name in KIND if tags.get(name) != here[name]]
    for name in other:
        say(f"{name} is {here[name]}, was {tags.get(name, 'not recorded')}: equal bytes are not promised")
    return UNDECIDED if other else DIFFERENT
