"""Decides whether a registered version may be trusted, and takes what decides its answers into a private copy.

Whoever can write into mlruns/ can alter the files of a version, and whoever sees MLflow's page can edit its tags.
Neither can alter registry.jsonl in git unseen. So the md5 of a version is computed again from its weights, settings and
code, and a line of registry.jsonl must have it. The bytes that were hashed are those that are loaded.
"""

import errno
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mlflow.entities.model_registry import ModelVersion

from segline import progress
from segline.text import shown
from segline.track import entries, intact, lineage, packaging
from segline.track.history import CHAMPION, HISTORY, PREVIOUS, RegistryError, champions, read_history
from segline.track.store import Store
from segline.track.tags import VERSION_MD5

MODEL, EXAMPLE, CODE = "artifacts/model/", "artifacts/example/", "code/"
FILES = (*packaging.MODEL_FILES, packaging.SETTINGS)
IMAGES = "images.csv"
MAX_SOURCE = 2**24  # bytes of a Python file that is read into memory
PLACES = {CHAMPION: -1, PREVIOUS: -2}  # in the list of champions
SHOWN = 8  # damaged files that a message names


@dataclass(frozen=True)
class Content:
    """What the folder of a version holds, as it was read once."""

    md5s: Mapping[str, str]
    """Of all regular files, by path."""
    others: Mapping[str, str]
    """What the entries are that are no files, by path."""
    sources: Mapping[str, bytes]
    """The Python files of the package, by path in it."""
    package: str
    """The name of the package; empty where there is not exactly one."""
    size: int
    """Bytes of all regular files."""

    @property
    def code_md5(self) -> str:
        """MD5 of the code, as it enters the MD5 of the version; empty if the package does not bear its name."""
        return packaging.version_code(self.package, self.sources)

    @property
    def model_md5(self) -> str:
        """The md5 of the weights."""
        return self.md5s.get(f"{MODEL}{packaging.MODEL_FILES[0]}", "")

    @property
    def md5(self) -> str:
        """The md5 of the version, computed from weights, description, settings and code; empty where one is missing."""
        files = {name: self.md5s[f"{MODEL}{name}"] for name in FILES if f"{MODEL}{name}" in self.md5s}
        if len(files) < len(FILES) or not self.code_md5:
            return ""
        return packaging.version_md5(files, self.code_md5)


def read(folder: Path, copy: Path | None = None) -> Content:
    """Read the folder of a version; write weights, settings, example and image list into `copy`, a private folder.

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
            md5s[path] = lineage.bytes_md5(sources[path])
        elif copy is not None and (path.startswith((MODEL, EXAMPLE)) or path == IMAGES):
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            with (copy / path).open("xb") as target:
                md5s[path] = lineage.stream_md5(stream, target)
        else:
            md5s[path] = lineage.stream_md5(stream)

    others = entries.visit(folder, take)
    md5s.pop(intact.META, None)
    packages = {path.split("/")[1] for path in sources if path.count("/") > 1}
    package = packages.pop() if len(packages) == 1 else ""
    start = f"{CODE}{package}/"
    inner = {path.removeprefix(start): source for path, source in sources.items() if path.startswith(start)}
    return Content(md5s, others, inner, package, sum(sizes))


def checked(store: Store, version: ModelVersion, *, trust: bool = False, copy: Path | None = None) -> Content:
    """Read a version that may be trusted; see `read`.

    Parameters
    ----------
    trust : the user vouches for a version of which registry.jsonl has no line.

    Raises
    ------
    RegistryError
        Its files are not there, not those that were registered, or nothing says that they are.
    """
    folder = intact.files(store, version)
    named = f"{version.name} version {version.version}"
    try:
        content = read(folder, copy)
    except OSError as error:
        raise RegistryError(f"{named}: its files cannot be checked: {_told(error)}") from error
    if wrong := intact.damage(content.md5s, content.others, version):
        raise RegistryError(
            f"{named} is not the one registered: {'; '.join(wrong[:SHOWN])} (in {folder}); {intact.way_out(version)}"
        )
    problem = contradiction(version, content, store.place.root / HISTORY)
    missing = "" if problem else unrecorded(version, content, store.place.root / HISTORY)
    if problem or (missing and not trust):
        raise RegistryError(f"{named} is not trusted: {problem or missing}")
    if missing:
        progress.note(f"warning: {named} is used because of --trust: {HISTORY} has no line of its md5 {content.md5}")
    return content


def is_sound(store: Store, version: ModelVersion) -> bool:
    """Tell whether the files of a version are those that its tag names."""
    try:
        return read(intact.files(store, version)).md5 == version.tags.get(VERSION_MD5)
    except (OSError, RegistryError):
        return False


def contradiction(version: ModelVersion, content: Content, history: Path) -> str:
    """Say in what the files of a version and its tag ``version.md5`` contradict each other; empty: in nothing."""
    tag = version.tags.get(VERSION_MD5, "")
    said = f"tag {VERSION_MD5} is {shown(tag)}" if tag else f"it has no tag {VERSION_MD5}"
    if not content.md5:
        return f"weights, settings or code are missing, or altered; {intact.way_out(version)}"
    if content.md5 == tag:
        return ""
    if content.md5 in known(version.name, history):
        return f"{said}, but its files have md5 {content.md5}, which {HISTORY} has: set the tag to it on MLflow's page"
    return f"{said}, but its files have md5 {content.md5}: they were altered; {intact.way_out(version)}"


def unrecorded(version: ModelVersion, content: Content, history: Path) -> str:
    """Say that registry.jsonl has no line of a version; empty: it has one."""
    if content.md5 in known(version.name, history):
        return ""
    return (
        f"no line of {HISTORY} has its md5 {content.md5}. Registered in another clone: commit {HISTORY} there, and git "
        f"pull. By an earlier segline: dvc repro -f -s register adds the line, with its data/model. Else --trust (of "
        "predict, serve and models promote), if you know where the files come from"
    )


def known(name: str, history: Path) -> set[str]:
    """The md5s of the versions of a model that registry.jsonl has."""
    return {line.version_md5 for line in read_history(history) if line.name == name}


def misplaced(alias: str, name: str, md5: str, history: Path) -> str:
    """Say that an alias leads to another version than registry.jsonl has for it; empty: it does not."""
    if alias not in PLACES:
        return ""
    held = champions([line for line in read_history(history) if line.name == name])
    wanted = held[PLACES[alias]] if len(held) >= -PLACES[alias] else None
    if md5 == wanted:
        return ""
    there = f"md5 {wanted}" if wanted else "none"
    return (
        f"@{alias} leads to md5 {md5}, {HISTORY} has {there}: somebody set the alias by hand, or git brought other "
        "lines; `segline models verify` says more, `segline models sync` sets the aliases"
    )


def _told(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"there is no room in {tempfile.gettempdir()} for a copy of them; make room, or set TMPDIR"
    return f"{error}; see whether you may read them"
