"""Determine the lineage of a result: commit, MD5s of data and weights, pipeline stage and machine."""

import getpass
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from segline import files
from segline.track import identity, installed
from segline.track.git import call as run_git

LOCK = Path("dvc.lock")
PREPARED = Path("data/prepared")
WEIGHTS = Path("data/weights")
# A path with one of these prefixes is code: a source file, the list of packages, or segline.yaml.
CODE = ("src/", "requirements.txt", installed.FILE.name)
# Changes to these files do not make a working tree dirty: the pipeline writes them, and no result depends on them.
RECORDS = ("dvc.lock", "registry.jsonl", "data/model/metrics.json", "data/reports/test.json")


def tags(threads: int | None = None) -> dict[str, str]:
    """Return the lineage tags for an MLflow run: commit, MD5s of the data, pipeline stage and machine."""
    known = {"data.md5": PREPARED, "weights.md5": WEIGHTS, "lock.md5": LOCK}
    return {
        **git(),
        **{name: digest(path) for name, path in known.items() if path.exists()},
        "dvc.stage": os.environ.get("DVC_STAGE", "none"),
        "dvc.exp": os.environ.get("DVC_EXP_NAME", "none"),
        **environment(threads),
    }


def git() -> dict[str, str]:
    """Return the tags `git.commit` and `git.dirty`; changes to the files in `RECORDS` are ignored."""
    commit = _git("rev-parse", "--verify", "HEAD")
    changes = _git(
        "status", "--porcelain", "--untracked-files=normal", "--", ".", *(f":(exclude){name}" for name in RECORDS)
    )
    if changes is None:
        return {"git.commit": "no git", "git.dirty": "unknown"}
    return {"git.commit": commit or "no commit yet", "git.dirty": "true" if changes else "false"}


def uncommitted(file: Path) -> bool:
    """Return whether a file is untracked or has uncommitted changes; return False if git fails."""
    arguments = ("status", "--porcelain", "--untracked-files=normal", "--", file.name)
    return file.exists() and bool(_git(*arguments, folder=file.parent))


def who() -> str:
    """Return the user's name: git's user.name, or else the login name."""
    if name := _git("config", "user.name"):
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # the user of a container may have no name
        return "unknown"


def environment(threads: int | None = None) -> dict[str, str]:
    """Return tags that describe the environment: versions of Python and packages, CPU, number of torch threads.

    Two runs can give bit-identical results only if these tags are equal.
    """
    facts = {"env.python": platform.python_version(), "env.system": platform.platform(), "env.cpu": cpu_model()}
    facts["env.cores"] = str(os.cpu_count())
    for package in ("torch", "numpy", "mlflow"):
        try:
            facts[f"env.{package}"] = version(package)
        except PackageNotFoundError:
            facts[f"env.{package}"] = "not installed"
    if threads is not None:
        facts["env.threads"] = str(threads)
    return facts


def cpu_model() -> str:
    """Return the product name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def digest(path: Path, lock: Path = LOCK) -> str:
    """Return DVC's MD5 of a file or folder: read it from dvc.lock if possible, otherwise compute it.

    If dvc.lock is up to date, the MD5 is read from dvc.lock. Otherwise the MD5 is computed. dvc.lock is up to date if
    it is newer than all files at `path`, and records the current number and total size of these files. The MD5 of a
    folder ends in ``.dir``.

    Raises
    ------
    FileNotFoundError
        `path` does not exist.
    """
    entry = locked(path, lock)
    if entry is not None and _current(path, entry, lock):
        return str(entry["md5"])
    return content_md5(path)


def locked(path: Path, lock: Path = LOCK) -> dict[str, Any] | None:
    """Return the entry in dvc.lock for the output `path`; None if there is no entry."""
    if not lock.is_file():
        return None
    outs = _locked_outputs(lock.read_text())
    return next((out for out in outs if out["path"] == path.as_posix() and "md5" in out), None)


@lru_cache(maxsize=1)  # a process reads dvc.lock several times, and parsing takes a quarter of a second
def _locked_outputs(lock: str) -> tuple[dict[str, Any], ...]:
    stages = (YAML(typ="safe", pure=True).load(lock) or {}).get("stages", {})
    return tuple(out for stage in stages.values() for out in stage.get("outs", ()))


def code(stage: str, pipeline: Path = Path("dvc.yaml")) -> dict[str, str]:
    """Return the code digests of the code files on which `stage` depends in dvc.yaml, as a dict by path.

    If `stage` depends on segline.yaml, the digest for this path is the code digest of the stage in the installed
    segline, because other stages do not affect the result.
    """
    stages = (YAML(typ="safe", pure=True).load(pipeline.read_text()) or {}).get("stages", {})
    digests = {}
    for path in code_files(stages.get(stage, {})):
        if path == installed.FILE.name:
            digests[path] = installed.digest(stage)
        elif Path(path).is_file():
            digests[path] = identity.of_file(path, Path(path).read_bytes())
    return digests


def code_files(stage: Mapping[str, Any], folder: Path = Path()) -> list[str]:
    """Return the paths of the code files on which a stage depends; `stage` is the stage's entry in dvc.yaml.

    A dependency on a folder stands for all Python files in it.
    """
    of_params = (name for entry in stage.get("params", ()) if isinstance(entry, dict) for name in entry)
    paths: set[str] = set()
    for dep in (*stage.get("deps", ()), *of_params):
        if isinstance(dep, str) and dep.startswith(CODE):
            inside = (folder / dep).rglob("*.py") if (folder / dep).is_dir() else [folder / dep]
            paths |= {file.relative_to(folder).as_posix() for file in inside}
    return sorted(paths)


def content_md5(path: Path) -> str:
    """Read a file, or all files of a folder, and compute DVC's MD5 of the file or folder."""
    if not path.is_dir():
        return files.md5(path)
    return listing_md5({f.relative_to(path).as_posix(): files.md5(f) for f in path.rglob("*") if f.is_file()})


def listing_md5(md5s: Mapping[str, str]) -> str:
    """Compute the MD5 of a folder, as DVC does; `md5s` holds the files' MD5s (relative path -> MD5)."""
    listing = [{"md5": md5, "relpath": path} for path, md5 in sorted(md5s.items())]
    return files.bytes_md5(json.dumps(listing, sort_keys=True).encode()) + ".dir"


def model_md5(folder: Path) -> str:
    """Return the MD5 of weights.safetensors. This MD5 identifies a trained model, and is also in dvc.lock."""
    return files.md5(folder / "weights.safetensors")


def combined_md5(parts: Mapping[str, str]) -> str:
    """Combine the MD5s in `parts` (name -> MD5) into one MD5; the order of the names does not affect the result."""
    lines = "".join(f"{name} {md5}\n" for name, md5 in sorted(parts.items()))
    return files.bytes_md5(lines.encode())


def _current(path: Path, entry: dict[str, Any], lock: Path) -> bool:
    """Return whether the files at `path` are older than dvc.lock and match the number and total size in `entry`."""
    states = [file.stat() for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return (
        sum(state.st_size for state in states) == entry.get("size")
        and len(states) == entry.get("nfiles", 1)
        and max((state.st_mtime_ns for state in states), default=0) < lock.stat().st_mtime_ns
    )


def _git(*arguments: str, folder: Path = Path()) -> str | None:
    """Run git and return its output; None if git is missing or fails."""
    try:
        return run_git(folder, *arguments).decode(errors="replace").strip()
    except (OSError, subprocess.CalledProcessError):
        return None
