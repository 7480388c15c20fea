"""Decide whether a registered version may be trusted, and copy its weights, settings and code to a private folder.

Anyone who can write into mlruns/ can alter the files of a version, and anyone who can open MLflow's page can edit its
tags. Neither can alter registry.jsonl in git unnoticed. Therefore the md5 of a version is computed again from its
weights, settings and code, and a line of registry.jsonl must hold it. Exactly the hashed bytes are loaded.
"""

import errno
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mlflow.entities.model_registry import ModelVersion

from segline import files, progress
from segline.text import shown
from segline.track import entries, intact, packaging
from segline.track.history import CHAMPION, HISTORY, PREVIOUS, RegistryError, champions, read_history
from segline.track.store import Store
from segline.track.tags import VERSION_MD5

MODEL, EXAMPLE, CODE = "artifacts/model/", "artifacts/example/", "code/"
FILES = (*packaging.MODEL_FILES, packaging.SETTINGS)
IMAGES = "images.csv"
MAX_SOURCE = 2**24  # bytes of a Python file to read into memory
PLACES = {CHAMPION: -1, PREVIOUS: -2}  # index in the list of champions
SHOWN = 8  # damaged files that a message names


@dataclass(frozen=True)
class VersionContent:
    """Content of the folder of a version, read once."""

    md5s: Mapping[str, str]
    """The md5s of all regular files, by path."""
    others: Mapping[str, str]
    """Kinds of the entries that are not files, by path."""
    sources: Mapping[str, bytes]
    """Content of the Python files of the package, by path in the package."""
    package: str
    """Name of the package; empty unless there is exactly one."""
    size: int
    """Size of all regular files in bytes."""

    @property
    def code_md5(self) -> str:
        """MD5 of the code, as it enters the MD5 of the version; empty if the package does not bear its name."""
        return packaging.version_code(self.package, self.sources)

    @property
    def model_md5(self) -> str:
        """MD5 of the weights."""
        return self.md5s.get(f"{MODEL}{packaging.MODEL_FILES[0]}", "")

    @property
    def md5(self) -> str:
        """MD5 of the version, from weights, description, settings and code; empty if one of them is missing."""
        md5s = {name: self.md5s[f"{MODEL}{name}"] for name in FILES if f"{MODEL}{name}" in self.md5s}
        if len(md5s) < len(FILES) or not self.code_md5:
            return ""
        return packaging.version_md5(md5s, self.code_md5)


def read(folder: Path, copy: Path | None = None) -> VersionContent:
    """Read the folder of a version; copy weights, settings, example and image list into `copy`, a private folder.

    Raises
    ------
    OSError
        The folder cannot be read, or the copy cannot be written.
    """
    md5s: dict[str, str] = {}
    sources: dict[str, bytes] = {}
    sizes: list[int] = []

    def take(path: str, stream: BinaryIO) -> None:
        sizes.append(os.fstat(stream.fileno()).st_size)
        if path.startswith(CODE) and path.endswith(".py") and sizes[-1] <= MAX_SOURCE:
            sources[path] = stream.read()
            md5s[path] = files.bytes_md5(sources[path])
        elif copy is not None and (path.startswith((MODEL, EXAMPLE)) or path == IMAGES):
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            with (copy / path).open("xb") as target:
                md5s[path] = files.stream_md5(stream, target)
        else:
            md5s[path] = files.stream_md5(stream)

    others = entries.visit(folder, take)
    md5s.pop(intact.META, None)
    packages = {path.split("/")[1] for path in sources if path.count("/") > 1}
    package = packages.pop() if len(packages) == 1 else ""
    start = f"{CODE}{package}/"
    inner = {path.removeprefix(start): source for path, source in sources.items() if path.startswith(start)}
    return VersionContent(md5s, others, inner, package, sum(sizes))


def checked(store: Store, version: ModelVersion, *, trust: bool = False, copy: Path | None = None) -> VersionContent:
    """Read a version with `read`, and check that it may be trusted.

    Parameters
    ----------
    trust : accept a version without a line in registry.jsonl, on the user's responsibility.

    Raises
    ------
    RegistryError
        Files are missing or altered, or registry.jsonl has no line for the version.
    """
    folder = intact.version_folder(store, version)
    label = f"{version.name} version {version.version}"
    try:
        content = read(folder, copy)
    except OSError as error:
        raise RegistryError(f"{label}: its files cannot be checked: {_reason(error)}") from error
    if wrong := intact.damage(content.md5s, content.others, version):
        raise RegistryError(
            f"{label} differs from its registration: {'; '.join(wrong[:SHOWN])} (in {folder}); "
            f"{intact.way_out(version)}"
        )
    problem = contradiction(version, content, store.place.root / HISTORY)
    missing = "" if problem else unrecorded(version, content, store.place.root / HISTORY)
    if problem or (missing and not trust):
        raise RegistryError(f"{label} is not trusted: {problem or missing}")
    if missing:
        progress.note(f"warning: {label} is used because of --trust: {HISTORY} has no line for its md5 {content.md5}")
    return content


def is_sound(store: Store, version: ModelVersion) -> bool:
    """Return whether the files of a version match the md5 in its tag."""
    try:
        return read(intact.version_folder(store, version)).md5 == version.tags.get(VERSION_MD5)
    except (OSError, RegistryError):
        return False


def contradiction(version: ModelVersion, content: VersionContent, history: Path) -> str:
    """Describe a contradiction between the files of a version and its tag ``version.md5``; empty if there is none."""
    tag = version.tags.get(VERSION_MD5, "")
    claim = f"tag {VERSION_MD5} is {shown(tag)}" if tag else f"it has no tag {VERSION_MD5}"
    if not content.md5:
        return f"weights, settings or code are missing, or altered; {intact.way_out(version)}"
    if content.md5 == tag:
        return ""
    if content.md5 in known(version.name, history):
        return f"{claim}, but its files have md5 {content.md5}, which {HISTORY} has: set the tag to it on MLflow's page"
    return f"{claim}, but its files have md5 {content.md5}: they were altered; {intact.way_out(version)}"


def unrecorded(version: ModelVersion, content: VersionContent, history: Path) -> str:
    """Say that registry.jsonl has no line for a version, and what to do; empty if it has one."""
    if content.md5 in known(version.name, history):
        return ""
    return (
        f"no line of {HISTORY} has its md5 {content.md5}. If another clone registered it, commit {HISTORY} there, and "
        "pull it here with git. If an earlier segline registered it, run dvc repro -f -s register with its data/model. "
        "Otherwise, if you know where the files come from, use --trust of predict, serve and models promote"
    )


def known(name: str, history: Path) -> set[str]:
    """Return the md5s of all versions of a model in registry.jsonl."""
    return {line.version_md5 for line in read_history(history) if line.name == name}


def misplaced(alias: str, name: str, md5: str, history: Path) -> str:
    """Say that an alias is on another version than in registry.jsonl; empty if they agree."""
    if alias not in PLACES:
        return ""
    held = champions([line for line in read_history(history) if line.name == name])
    expected = held[PLACES[alias]] if len(held) >= -PLACES[alias] else None
    if md5 == expected:
        return ""
    recorded = f"md5 {expected}" if expected else "none"
    return (
        f"@{alias} is on md5 {md5}, but {HISTORY} has {recorded}: somebody set the alias by hand, or git changed the "
        "file; run `segline models verify` for details, `segline models sync` to set the aliases"
    )


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{tempfile.gettempdir()} has no room for a copy of them; make room, or set TMPDIR to another folder"
    return f"{error}; check that you may read them"
