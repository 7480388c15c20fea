"""Restore a registry from registry.jsonl: find the versions that the store lacks, and set the aliases."""

import subprocess
from dataclasses import dataclass

from segline.track import commits, git, identity, installed, lineage, packaging
from segline.track.clone import Clone
from segline.track.history import CHAMPION, PREVIOUS, Promotion
from segline.track.location import Place
from segline.track.registry import Registry

MODEL, INFERENCE = "data/model/{}", "data/reports/inference.json"
STAGE = "register"


class NoCommitError(ValueError):
    """Raised if no known commit holds the files that a version was made from; the message says what is missing."""


@dataclass(frozen=True)
class Lost:
    """A version that has a line in registry.jsonl, but is missing from the store."""

    name: str
    version_md5: str
    model_md5: str


def lost(registry: Registry) -> list[Lost]:
    """Return the present and former champions that are missing from the store; the latest champion comes last.

    Versions that never became champion are not restored, because nobody chose them.
    """
    promoted = {
        line.version_md5: Lost(line.name, line.version_md5, line.model_md5)
        for line in reversed(registry.history())
        if line.alias == CHAMPION
    }
    return [version for version in reversed(promoted.values()) if registry.find(version.version_md5) is None]


def check_out(clone: Clone, place: Place, version: Lost) -> str:
    """Check out in `clone` the commit and the data that a version was made from; return the commit.

    Raises
    ------
    CloneError
        The data of the commit is neither in the cache nor in a remote.
    NoCommitError
        No known commit holds the files that the version was made from.
    """
    try:
        candidates = commits.locking(version.model_md5, place.root)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoCommitError(git.refusal(error, place.root)) from error
    mismatch = None
    for commit in candidates:
        clone.check_out(commit)
        mismatch = mismatch or installed.mismatch(clone.project)
        if version.version_md5 in version_md5s(clone):
            deps = clone.lock().get(STAGE, {}).get("deps", ())
            clone.fetch(dep["path"] for dep in deps if not dep["path"].startswith(lineage.CODE))
            return commit
    if mismatch:
        raise NoCommitError(f"commit {candidates[0][:10]}: {mismatch}")
    if candidates:
        raise NoCommitError(
            f"commit {candidates[0][:10]} has a dvc.lock with the version's weights, but the inference settings or the "
            "model code of this commit differ from the version; commit dvc.lock and the code as they were at the "
            "registration, and push the commit"
        )
    raise NoCommitError(
        f"no commit of this clone has a dvc.lock with the version's weights (md5 {version.model_md5}); on the machine "
        "that trained the model, commit dvc.lock, and push the commit"
    )


def version_md5s(clone: Clone) -> set[str]:
    """Return the possible MD5s of a version made from the checked-out commit, by the present and earlier MD5 rules.

    Earlier segline releases computed the MD5 of the code from the exact bytes. The result is empty if the commit has no
    model.
    """
    outs = {out["path"]: out.get("md5") for stage in clone.lock().values() for out in stage.get("outs", ())}
    md5s = {name: outs.get(MODEL.format(name)) for name in packaging.MODEL_FILES}
    md5s[packaging.SETTINGS] = outs.get(INFERENCE)
    known = {name: md5 for name, md5 in md5s.items() if md5}
    if len(known) < len(md5s):
        return set()
    sources = packaging.read_sources(packaging.room(clone.project))
    return {packaging.version_md5(known, code) for code in (identity.of_sources(sources), packaging.bytes_md5(sources))}


def aliases(registry: Registry) -> list[str]:
    """Set @champion and @previous as the history says; return a message for each changed alias."""
    with registry.store.place.lock("registry"):
        before = {alias: _number(registry, alias) for alias in (CHAMPION, PREVIOUS)}
        registry.set_aliases()
        after = {alias: _number(registry, alias) for alias in (CHAMPION, PREVIOUS)}
    return [f"@{alias} is {number or 'not set'}" for alias, number in after.items() if number != before[alias]]


def _number(registry: Registry, alias: str) -> str:
    version = registry.holder(alias)
    return "" if version is None else f"version {version.version}"


def names(lines: list[Promotion]) -> list[str]:
    """Return the distinct model names in a history, in the order of their first lines."""
    return list(dict.fromkeys(line.name for line in lines))
