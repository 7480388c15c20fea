"""Which commit a version was made from, found by content: a run comes before its commit, so no name can be kept."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from segline.track import git, identity, lineage
from segline.track.tags import CODE_FILES, table, unreadable

CODE, PARAMS, PIPELINE = "closure.md5", "params.md5", "pipeline.md5"
TAGS = (CODE, CODE_FILES, PARAMS, PIPELINE)
LAST = "register"
UNSHAPING = "runtime"  # the section of params.yaml that shapes no result
AT_ONCE = 128  # commits that git is asked about together
NAMED = 3  # files that are named before the rest is counted
MISSING = frozenset({""})  # the md5 of a file that is not there


@dataclass(frozen=True)
class Making:
    """The commit that a version was made from; without one, `why`."""

    commit: str | None
    locked: bool = False
    """Whether its dvc.lock names the model and the data."""
    why: str = ""


def here(folder: Path = Path()) -> dict[str, str]:
    """The tags by which a version made in this checkout is found in a commit later on."""
    settings = git.stored(folder, ["dvc.yaml", "params.yaml"])
    pipeline = settings.get("dvc.yaml", b"")
    paths = lineage.code_files(_deps(pipeline), folder)
    content = git.stored(folder, paths)
    code = {path: identity.of_file(path, content[path]) if path in content else "" for path in paths}
    return {
        PIPELINE: _yaml_md5(pipeline),
        PARAMS: _yaml_md5(settings.get("params.yaml", b""), UNSHAPING),
        CODE: lineage.combined_md5(code),
        CODE_FILES: json.dumps(code),
    }


def making(tags: Mapping[str, str], root: Path) -> str | None:
    """The commit that a version of these tags was made from; None where there is none. See `find`."""
    return find(tags, root).commit


def find(tags: Mapping[str, str], root: Path) -> Making:
    """The newest commit whose code, params.yaml and dvc.yaml equal, by content, what a version was made from.

    One whose dvc.lock names the version's model and data goes before others. Only what a clone gets is searched:
    branches and tags, their remote copies, and HEAD; neither a stash nor an experiment that is not a branch yet.

    Parameters
    ----------
    tags : of the version.
    root : the project's folder, in a git repository.
    """
    if missing := [name for name in TAGS if not tags.get(name)]:
        return Making(None, why=f"it was registered without {', '.join(missing)}; run dvc repro -f -s {LAST}")
    if CODE_FILES in unreadable(tags) or not all(map(_is_code, table(tags, CODE_FILES))):
        return Making(None, why=f"its tag {CODE_FILES} was edited; run dvc repro -f -s {LAST}")
    try:
        repository = _Repository(root)
    except (OSError, subprocess.CalledProcessError) as error:
        return Making(None, why=git.refusal(error, root))
    return _search(repository, tags)


def _search(repository: "_Repository", tags: Mapping[str, str]) -> Making:
    everything = repository.commits()
    wanted = [tags[name].removesuffix(".dir").encode() for name in ("model.md5", "data.md5") if tags.get(name)]
    locked = repository.where(everything, "dvc.lock", lambda text: bool(wanted) and all(md5 in text for md5 in wanted))
    everything.sort(key=lambda commit: commit not in locked)  # stable: the newest first in each half
    code, seen = table(tags, CODE_FILES), set()
    for start in range(0, len(everything), AT_ONCE):
        part = everything[start : start + AT_ONCE]
        pipeline = repository.where(part, "dvc.yaml", lambda text: _yaml_md5(text) == tags[PIPELINE])
        params = repository.where(part, "params.yaml", lambda text: _yaml_md5(text, UNSHAPING) == tags[PARAMS])
        seen |= {name for name, found in (("dvc.yaml", pipeline), ("params.yaml", params)) if found}
        both = [commit for commit in part if commit in pipeline & params]
        if found := repository.with_code(both, code):
            return Making(found, found in locked)
    differing = sorted({"dvc.yaml", "params.yaml"} - seen)
    if everything and not differing:
        newest = repository.differing(everything[0], code)
        differing = newest[:NAMED] + [f"{len(newest) - NAMED} more files"] * (len(newest) > NAMED)
    why = _unfit(everything, differing)
    if repository.shallow:
        why += "; this clone is shallow: `git fetch --unshallow` brings the other commits"
    return Making(None, why=why)


def _is_code(path: str) -> bool:
    # git is asked for one path a line.
    return path.startswith(lineage.CODE) and path.isprintable()


def _unfit(commits: Sequence[str], differing: Sequence[str]) -> str:
    """Why no commit holds what the version was made from."""
    if not commits:
        return "there is no commit yet"
    if not differing:
        return "its code, params.yaml and dvc.yaml are in no commit together"
    return f"no commit holds what it was made from: {', '.join(differing)}"


class _Repository:
    """What the commits of a repository hold, asked for in few calls of git."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.prefix = os.fsdecode(git.call(root, "rev-parse", "--show-prefix").removesuffix(b"\n"))
        self._md5s: dict[str, frozenset[str]] = {}  # of each spelling of the line ends
        self._suspects: set[str] = set()  # files that some commit has otherwise: they are asked for first
        self._held: dict[tuple[str, str], bool] = {}

    @property
    def shallow(self) -> bool:
        """Whether the repository lacks older commits."""
        return git.call(self.root, "rev-parse", "--is-shallow-repository").strip() == b"true"

    def commits(self) -> list[str]:
        """All that a clone gets, the newest first."""
        everything = ("--branches", "--tags", "--remotes")
        head = ["HEAD"] if self._names(["HEAD"])[0] else []
        return git.call(self.root, "rev-list", *everything, *head).decode().split()

    def where(self, commits: Sequence[str], path: str, holds: Callable[[bytes], bool]) -> set[str]:
        """The commits in which the file at `path` is as it shall be."""
        names = self._names([f"{commit}:{self.prefix}{path}" for commit in commits])
        new = {name for name in names if name and (path, name) not in self._held}
        self._held |= {(path, name): holds(content) for name, content in git.contents(self.root, new).items()}
        return {commit for commit, name in zip(commits, names, strict=True) if name and self._held[path, name]}

    def with_code(self, commits: Sequence[str], code: Mapping[str, str]) -> str | None:
        """The first of `commits` in which the files of `code` have these md5s."""
        for paths in (sorted(self._suspects & {*code}), sorted(code)):
            wrong = self._differing(commits, paths, code)
            commits = [commit for commit in commits if not wrong[commit]]
        return commits[0] if commits else None

    def differing(self, commit: str, code: Mapping[str, str]) -> list[str]:
        """The files of `code` that are otherwise in `commit`."""
        return self._differing([commit], sorted(code), code)[commit]

    def _differing(self, commits: Sequence[str], paths: Sequence[str], code: Mapping[str, str]) -> dict[str, list[str]]:
        """By commit, those of `paths` whose content is not as `code` says."""
        names = self._names([f"{commit}:{self.prefix}{path}" for commit in commits for path in paths])
        self._learn(names)
        wrong: dict[str, list[str]] = {commit: [] for commit in commits}
        for index, name in enumerate(names):
            commit, path = commits[index // len(paths)], paths[index % len(paths)]
            if code[path] not in self._md5s.get(name or "", MISSING):
                wrong[commit].append(path)
        self._suspects |= {path for found in wrong.values() for path in found}
        return wrong

    def _learn(self, names: Iterable[str | None]) -> None:
        new = {name for name in names if name and name not in self._md5s}
        self._md5s |= {name: _spellings(content) for name, content in git.contents(self.root, new).items()}

    def _names(self, objects: Sequence[str]) -> list[str | None]:
        """git's names of objects; None for one that there is not."""
        if not objects:
            return []
        answers = git.call(self.root, "cat-file", "--batch-check", "--buffer", lines=objects).splitlines()
        return [None if answer.endswith(b"missing") else answer.split()[0].decode() for answer in answers]


def _deps(pipeline: bytes) -> list[object]:
    """Return the dependencies that a dvc.yaml names for the stages up to register."""
    content = _parsed(pipeline)
    stages: dict[str, Any] = content.get("stages", {}) if isinstance(content, dict) else {}
    deps: list[object] = []
    for name, stage in stages.items():
        deps += stage.get("deps", ())
        if name == LAST:
            break
    return deps


def _yaml_md5(text: bytes, without: str = "") -> str:
    """The md5 of what a YAML file says, whatever its comments and order."""
    content = _parsed(text)
    if isinstance(content, dict):
        content = {name: value for name, value in content.items() if name != without}
    return _md5(json.dumps(content, sort_keys=True, default=str).encode())


def _parsed(text: bytes) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text.decode("utf-8-sig"))
    except (YAMLError, UnicodeDecodeError):
        return text.decode(errors="replace")


def _spellings(content: bytes) -> frozenset[str]:
    """Return the digests by which a version may have recorded a file.

    They are its identity as Python, and, for other texts and older versions, its MD5 as it is, with LF and with CRLF.
    """
    text = git.lf(content)
    return frozenset({identity.of_source(content), _md5(content), _md5(text), _md5(text.replace(b"\n", b"\r\n"))})


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
