"""What registry.jsonl tells and the store lacks: versions, and the aliases that follow from the history."""

from dataclasses import dataclass

from segline.track import identity, lineage, packaging
from segline.track.elsewhere import Elsewhere, commits_holding
from segline.track.history import CHAMPION, PREVIOUS, Promotion
from segline.track.location import Place
from segline.track.registry import Registry

MODEL, INFERENCE = "data/model/{}", "data/reports/inference.json"
ROOM = "src/segline/model"
STAGE = "register"


@dataclass(frozen=True)
class Lost:
    """A version that the history names and the store lacks."""

    name: str
    version_md5: str
    model_md5: str


def lost(registry: Registry) -> list[Lost]:
    """The versions that are to be brought back, in the order in which they first became champion.

    A version that was only registered does not come back by itself: nobody chose it.
    """
    named = {
        line.version_md5: Lost(line.name, line.version_md5, line.model_md5)
        for line in reversed(registry.history())
        if line.alias == CHAMPION
    }
    return [each for each in reversed(named.values()) if registry.find(each.version_md5) is None]


def go_to_making(elsewhere: Elsewhere, place: Place, version: Lost) -> str:
    """Have in `elsewhere` the commit, and its data, that made a version; returns the commit.

    Raises
    ------
    ElsewhereError
        There is no such commit, or its data is neither in the cache nor in a remote.
    """
    commits = commits_holding(place.root, version.model_md5)
    for commit in commits:
        elsewhere.go_to(commit)
        if version.version_md5 in version_md5s(elsewhere):
            deps = elsewhere.lock().get(STAGE, {}).get("deps", ())
            elsewhere.fetch(dep["path"] for dep in deps if not dep["path"].startswith(lineage.CODE))
            return commit
    if commits:
        raise NoCommitError(
            f"the weights are in dvc.lock of commit {commits[0][:10]}, with other inference settings or model code; "
            "commit the dvc.lock that it was registered with, and push"
        )
    raise NoCommitError(
        f"no commit here has a dvc.lock with its weights (md5 {version.model_md5}); commit dvc.lock where it was "
        "trained, and push"
    )


class NoCommitError(ValueError):
    """No commit is known that made a version; the message says what is missing."""


def version_md5s(elsewhere: Elsewhere) -> set[str]:
    """Return the MD5s, by today's rule and by that of earlier seglines, of the version that a commit registers.

    They follow from its dvc.lock and its code; empty: the commit has no model.
    """
    outs = {out["path"]: out.get("md5") for stage in elsewhere.lock().values() for out in stage.get("outs", ())}
    files = {name: outs.get(MODEL.format(name)) for name in packaging.MODEL_FILES}
    files[packaging.SETTINGS] = outs.get(INFERENCE)
    known = {name: md5 for name, md5 in files.items() if md5}
    room = elsewhere.project / ROOM
    if len(known) < len(files) or not room.is_dir():
        return set()
    sources = packaging.read_sources(room)
    return {packaging.version_md5(known, code) for code in (identity.of_sources(sources), packaging.bytes_md5(sources))}


def aliases(registry: Registry) -> list[str]:
    """Set @champion and @previous as the history ends; returns what moved."""
    with registry.store.place.lock("registry"):
        before = {alias: _number(registry, alias) for alias in (CHAMPION, PREVIOUS)}
        registry.set_aliases()
        now = {alias: _number(registry, alias) for alias in (CHAMPION, PREVIOUS)}
    return [f"@{alias} is {number or 'nowhere'}" for alias, number in now.items() if number != before[alias]]


def _number(registry: Registry, alias: str) -> str:
    version = registry.holder(alias)
    return "" if version is None else f"version {version.version}"


def names(lines: list[Promotion]) -> list[str]:
    """The models in a history, each once, by their first line."""
    return list(dict.fromkeys(line.name for line in lines))
