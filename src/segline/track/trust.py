"""Decide whether a registered version may be trusted, and copy its files to a private folder.

Anyone who can write into mlruns/ can alter the files of a version, and anyone who can open MLflow's page can edit the
tags. Nobody can alter registry.jsonl in git unnoticed. Therefore the md5 of a version is computed again from the
weights, settings and code, and a line of registry.jsonl must hold this md5. The loaded bytes are exactly the bytes from
which the md5 was computed.
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
MAX_SOURCE = 2**24  # bytes; a larger Python file is not read into memory
PLACES = {CHAMPION: -1, PREVIOUS: -2}  # index of each alias in the list returned by `champions`
SHOWN = 8  # number of damaged files that a message names


@dataclass(frozen=True)
class VersionContent:
    """Content of a version's folder. Each file was read only once, so the checked content is the content in use."""

    md5s: Mapping[str, str]
    """MD5 of each regular file, by path."""
    others: Mapping[str, str]
    """Type of each other entry by path, such as a link or a bytecode cache."""
    sources: Mapping[str, bytes]
    """Content of each Python file in the version's package, by path in the package."""
    package: str
    """Name of the Python package in the folder; empty unless the folder holds exactly one package."""
    size: int
    """Total size of all regular files, bytes."""

    @property
    def code_md5(self) -> str:
        """MD5 of the version's code; empty if the package name does not match the code."""
        return packaging.version_code(self.package, self.sources)

    @property
    def model_md5(self) -> str:
        """MD5 of the weights file; empty if the file is missing."""
        return self.md5s.get(f"{MODEL}{packaging.MODEL_FILES[0]}", "")

    @property
    def md5(self) -> str:
        """MD5 of the version, computed from weights, model.json, settings and code; empty if one of them is missing."""
        md5s = {name: self.md5s[f"{MODEL}{name}"] for name in FILES if f"{MODEL}{name}" in self.md5s}
        if len(md5s) < len(FILES) or not self.code_md5:
            return ""
        return packaging.version_md5(md5s, self.code_md5)


def read(folder: Path, copy: Path | None = None) -> VersionContent:
    """Read a version's folder; copy weights, settings, example and image list into the private folder `copy`.

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
    """Read a version's files, check that the version may be trusted, and return the content.

    Parameters
    ----------
    trust : accept a version without a line in registry.jsonl, on the user's responsibility.
    copy : private folder for a copy of the files (see `read`).

    Raises
    ------
    RegistryError
        Files are missing or altered, or registry.jsonl has no line for the version.
    """
    folder = intact.files(store, version)
    label = f"{version.name} version {version.version}"
    try:
        content = read(folder, copy)
    except OSError as error:
        raise RegistryError(f"{label}: the files cannot be checked: {_reason(error)}") from error
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
        progress.note(
            f"warning: {label} is used because of --trust, although {HISTORY} has no line for md5 {content.md5}"
        )
    return content


def is_sound(store: Store, version: ModelVersion) -> bool:
    """Return whether a version's files match the md5 in the version's tag."""
    try:
        return read(intact.files(store, version)).md5 == version.tags.get(VERSION_MD5)
    except (OSError, RegistryError):
        return False


def contradiction(version: ModelVersion, content: VersionContent, history: Path) -> str:
    """Describe why a version's files do not match the tag ``version.md5``; return an empty text if they match."""
    tag = version.tags.get(VERSION_MD5, "")
    claim = f"the tag {VERSION_MD5} is {shown(tag)}" if tag else f"the tag {VERSION_MD5} is missing"
    if not content.md5:
        return f"the weights, settings or code are missing or altered; {intact.way_out(version)}"
    if content.md5 == tag:
        return ""
    if content.md5 in known(version.name, history):
        return (
            f"{claim}, but the files have md5 {content.md5}, which is in {HISTORY}; set the tag to this md5 on "
            "MLflow's page"
        )
    return f"{claim}, but the files have md5 {content.md5}, so they were altered; {intact.way_out(version)}"


def unrecorded(version: ModelVersion, content: VersionContent, history: Path) -> str:
    """Return an empty text if registry.jsonl has a line with the version's md5; otherwise return advice to the user."""
    if content.md5 in known(version.name, history):
        return ""
    return (
        f"no line of {HISTORY} has the version's md5 {content.md5}. If another clone registered the version, commit "
        f"{HISTORY} there, and pull it here with git. If an earlier segline registered the version, run `dvc repro -f "
        "-s register` with the data/model of this version. Otherwise, if you know where the files come from, give "
        "--trust to predict, serve or models promote"
    )


def known(name: str, history: Path) -> set[str]:
    """Return the md5s of all versions that registry.jsonl lists for the model `name`."""
    return {line.version_md5 for line in read_history(history) if line.name == name}


def misplaced(alias: str, name: str, md5: str, history: Path) -> str:
    """Return a message if `md5` is not the md5 that registry.jsonl records for `alias`; else an empty text."""
    if alias not in PLACES:
        return ""
    held = champions([line for line in read_history(history) if line.name == name])
    expected = held[PLACES[alias]] if len(held) >= -PLACES[alias] else None
    if md5 == expected:
        return ""
    recorded = f"md5 {expected}" if expected else "no version"
    return (
        f"@{alias} is on md5 {md5}, but {HISTORY} names {recorded}; somebody set the alias by hand, or git changed "
        f"{HISTORY}; run `segline models verify` for details, or `segline models sync` to set the aliases"
    )


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{tempfile.gettempdir()} has no room for a copy of the files; make room there, or set TMPDIR to another "
            "folder"
        )
    return f"{error}; check that you may read these files"
