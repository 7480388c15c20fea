"""Find the commit that a model version was made from, by comparing file contents.

The run cannot record the commit, because the user commits after the run.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from segline import files
from segline.track import git, identity, lineage
from segline.track.tags import CODE_FILES, table, unreadable

CODE, PARAMS, PIPELINE = "closure.md5", "params.md5", "pipeline.md5"
TAGS = (CODE, CODE_FILES, PARAMS, PIPELINE)
LAST = "register"
UNSHAPING = "runtime"  # section of params.yaml that does not affect results
BATCH = 128  # number of commits that one call of git looks up
SHOWN = 3  # number of differing files that a message names
MISSING = frozenset({""})  # a missing file has the digest ""


@dataclass(frozen=True)
class Origin:
    """The commit that a version was made from; if ``commit`` is None, ``why`` explains why no commit was found."""

    commit: str | None
    locked: bool = False
    """True if dvc.lock in the commit holds the MD5s of the version's model and data."""
    why: str = ""


def here(folder: Path = Path()) -> dict[str, str]:
    """Return tags with the MD5s of this checkout's code and settings; `find` later uses the tags to find the commit."""
    settings = git.stored(folder, ["dvc.yaml", "params.yaml"])
    pipeline = settings.get("dvc.yaml", b"")
    paths = sorted({path for stage in _stages(pipeline) for path in lineage.code_files(stage, folder)})
    content = git.stored(folder, paths)
    code = {path: identity.of_file(path, content[path]) if path in content else "" for path in paths}
    return {
        PIPELINE: _yaml_md5(pipeline),
        PARAMS: _yaml_md5(settings.get("params.yaml", b""), UNSHAPING),
        CODE: lineage.combined_md5(code),
        CODE_FILES: json.dumps(code),
    }


def find(tags: Mapping[str, str], root: Path) -> Origin:
    """Find the newest commit that has the code, params.yaml and dvc.yaml from which a version was made.

    Commits whose dvc.lock holds the MD5s of the version's model and data are searched first. Only commits of branches,
    tags, remote branches and HEAD are searched, because a clone contains only these. Stashes, and DVC experiments that
    have no branch, are not searched.

    Parameters
    ----------
    tags : tags of the version.
    root : folder of the project, in a git repository.
    """
    if missing := [name for name in TAGS if not tags.get(name)]:
        return Origin(None, why=f"the version has no tag {', '.join(missing)}; run `dvc repro -f -s {LAST}`")
    if CODE_FILES in unreadable(tags) or not all(map(_is_code, table(tags, CODE_FILES))):
        return Origin(None, why=f"the version's tag {CODE_FILES} was edited; run `dvc repro -f -s {LAST}`")
    try:
        repository = _Repository(root)
    except (OSError, subprocess.CalledProcessError) as error:
        return Origin(None, why=git.refusal(error, root))
    return _search(repository, tags)


def locking(model_md5: str, root: Path) -> list[str]:
    """Return the commits that changed dvc.lock and whose dvc.lock holds `model_md5`, newest first.

    Raises
    ------
    OSError, subprocess.CalledProcessError
        There is no git on PATH, or `root` is in no git repository.
    """
    if not model_md5:
        return []
    repository = _Repository(root)
    commits = repository.commits("dvc.lock")
    holding = repository.locking(commits, [model_md5])
    return [commit for commit in commits if commit in holding]


def _search(repository: "_Repository", tags: Mapping[str, str]) -> Origin:
    commits = repository.commits()
    md5s = [tags[name].removesuffix(".dir") for name in ("model.md5", "data.md5") if tags.get(name)]
    locked = repository.locking(commits, md5s)
    commits.sort(key=lambda commit: commit not in locked)  # a stable sort, so each group stays newest first
    code, matched = table(tags, CODE_FILES), set()
    for start in range(0, len(commits), BATCH):
        batch = commits[start : start + BATCH]
        pipeline = repository.where(batch, "dvc.yaml", lambda text: _yaml_md5(text) == tags[PIPELINE])
        params = repository.where(batch, "params.yaml", lambda text: _yaml_md5(text, UNSHAPING) == tags[PARAMS])
        matched |= {name for name, holding in (("dvc.yaml", pipeline), ("params.yaml", params)) if holding}
        if commit := repository.with_code([commit for commit in batch if commit in pipeline & params], code):
            return Origin(commit, commit in locked)
    differing = sorted({"dvc.yaml", "params.yaml"} - matched)
    if commits and not differing:
        files = repository.differing(commits[0], code)
        differing = files[:SHOWN] + [f"{len(files) - SHOWN} more files"] * (len(files) > SHOWN)
    why = _reason(commits, differing)
    if repository.shallow:
        why += "; this shallow clone lacks older commits; fetch them with `git fetch --unshallow`"
    return Origin(None, why=why)


def _is_code(path: str) -> bool:
    # Refuse a path with a line break, because git would read the text after the line break as a second request.
    return path.startswith(lineage.CODE) and path.isprintable()


def _reason(commits: Sequence[str], differing: Sequence[str]) -> str:
    """Explain why no commit matches a version."""
    if not commits:
        return "there is no commit yet"
    if not differing:
        return "no single commit holds the version's code, params.yaml and dvc.yaml"
    return f"no commit holds these files as the version used them: {', '.join(differing)}"


class _Repository:
    """Read files from the commits of a repository, with few calls of git."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.prefix = os.fsdecode(git.call(root, "rev-parse", "--show-prefix").removesuffix(b"\n"))
        self._md5s: dict[str, frozenset[str]] = {}  # all possible digests of each git object, see `_spellings`
        self._suspects: set[str] = set()  # paths that differed in some commit; these are compared first
        self._matches: dict[tuple[str, str], bool] = {}  # results of `where` by path and git object

    @property
    def shallow(self) -> bool:
        """True if the repository is a shallow clone, which lacks older commits."""
        return git.call(self.root, "rev-parse", "--is-shallow-repository").strip() == b"true"

    def commits(self, changing: str = "") -> list[str]:
        """Return the commits of branches, tags, remote branches and HEAD, newest first.

        If `changing` names a file, only the commits that changed this file are returned.
        """
        refs = ["--branches", "--tags", "--remotes"]
        if self._objects(["HEAD"])[0]:
            refs.append("HEAD")
        paths = ["--", changing] if changing else []
        return git.call(self.root, "rev-list", *refs, *paths).decode().split()

    def where(self, commits: Sequence[str], path: str, matches: Callable[[bytes], bool]) -> set[str]:
        """Return the commits in which the function `matches` accepts the content of the file at `path`."""
        objects = self._objects([f"{commit}:{self.prefix}{path}" for commit in commits])
        new = {name for name in objects if name and (path, name) not in self._matches}
        self._matches |= {(path, name): matches(content) for name, content in git.contents(self.root, new).items()}
        return {commit for commit, name in zip(commits, objects, strict=True) if name and self._matches[path, name]}

    def locking(self, commits: Sequence[str], md5s: Sequence[str]) -> set[str]:
        """Return the commits whose dvc.lock holds all of `md5s`; return an empty set if `md5s` is empty."""
        wanted = [md5.encode() for md5 in md5s]
        return self.where(commits, "dvc.lock", lambda text: bool(wanted) and all(md5 in text for md5 in wanted))

    def with_code(self, commits: Sequence[str], code: Mapping[str, str]) -> str | None:
        """Return the first commit in which all files have the digests in `code` (path -> digest); None if not found."""
        for paths in (sorted(self._suspects & {*code}), sorted(code)):
            wrong = self._differing(commits, paths, code)
            commits = [commit for commit in commits if not wrong[commit]]
        return commits[0] if commits else None

    def differing(self, commit: str, code: Mapping[str, str]) -> list[str]:
        """Return the files whose digest in `commit` differs from the digest in `code` (path -> digest)."""
        return self._differing([commit], sorted(code), code)[commit]

    def _differing(self, commits: Sequence[str], paths: Sequence[str], code: Mapping[str, str]) -> dict[str, list[str]]:
        """Return, for each commit, the paths whose digest in the commit differs from the digest in `code`."""
        objects = self._objects([f"{commit}:{self.prefix}{path}" for commit in commits for path in paths])
        self._read(objects)
        wrong: dict[str, list[str]] = {commit: [] for commit in commits}
        for index, name in enumerate(objects):
            commit, path = commits[index // len(paths)], paths[index % len(paths)]
            if code[path] not in self._md5s.get(name or "", MISSING):
                wrong[commit].append(path)
        self._suspects |= {path for differing in wrong.values() for path in differing}
        return wrong

    def _read(self, objects: Iterable[str | None]) -> None:
        new = {name for name in objects if name and name not in self._md5s}
        self._md5s |= {name: _spellings(content) for name, content in git.contents(self.root, new).items()}

    def _objects(self, revisions: Sequence[str]) -> list[str | None]:
        """Return git's object name for each revision; None if the object is missing."""
        if not revisions:
            return []
        answers = git.call(self.root, "cat-file", "--batch-check", "--buffer", lines=revisions).splitlines()
        return [None if answer.endswith(b"missing") else answer.split()[0].decode() for answer in answers]


def _stages(pipeline: bytes) -> list[dict[str, Any]]:
    """Return the dvc.yaml entries of stage `register` and all earlier stages; `pipeline` is the content of dvc.yaml."""
    content = _parsed(pipeline)
    stages: dict[str, dict[str, Any]] = content.get("stages", {}) if isinstance(content, dict) else {}
    names = list(stages)
    return [stages[name] for name in names[: names.index(LAST) + 1 if LAST in names else None]]


def _yaml_md5(text: bytes, without: str = "") -> str:
    """Return an MD5 of the values in a YAML text; comments and the order of keys do not affect the MD5.

    The section with the name `without` does not affect the MD5 either.
    """
    content = _parsed(text)
    if isinstance(content, dict):
        content = {name: value for name, value in content.items() if name != without}
    return files.bytes_md5(json.dumps(content, sort_keys=True, default=str).encode())


def _parsed(text: bytes) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text.decode("utf-8-sig"))
    except (YAMLError, UnicodeDecodeError):
        return text.decode(errors="replace")


def _spellings(content: bytes) -> frozenset[str]:
    """Return all digests that this or an earlier segline release may have recorded for a file with this content.

    For a Python file, a version records the code digest. For other files, a version records the MD5 of the bytes. Older
    versions record the MD5 of the bytes for all files. These bytes may have other line endings than `content`: LF or
    CRLF.
    """
    text = git.lf(content)
    versions = (content, text, text.replace(b"\n", b"\r\n"))
    return frozenset({identity.of_source(content), *map(files.bytes_md5, versions)})
