"""Check that a version's folder holds exactly the files that were registered."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import mlflow.artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path

from segline.files import stream_md5
from segline.text import shown, visible
from segline.track import entries, tags
from segline.track.history import RegistryError
from segline.track.store import Store

FILES_TAG = tags.FILES
META = "registered_model_meta"  # file that MLflow adds to a version's folder while loading the version


def listing(folder: Path) -> dict[str, str]:
    """Return the md5s of the regular files in `folder`, as a dict by path; skip bytecode and links."""
    return read(folder)[0]


def read(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return two dicts by path: the md5s of the regular files in `folder`, and the types of all other entries."""
    md5s: dict[str, str] = {}

    def add(path: str, stream: BinaryIO) -> None:
        md5s[path] = stream_md5(stream)

    others = entries.visit(folder, add)
    md5s.pop(META, None)
    return md5s, others


def recorded(version: ModelVersion) -> dict[str, str]:
    """Return the md5s of a version's files from the tag ``files.md5``; empty if the tag is missing or invalid."""
    return tags.table(version.tags, FILES_TAG)


def files(store: Store, version: ModelVersion) -> Path:
    """Return the folder that holds a version's files; if the files are on a server, download them first.

    Raises
    ------
    RegistryError
        The files are missing.
    """
    address = str(version.source)  # expected: models:/ followed by the id of the logged model
    lost = f"{version.name} version {version.version}: its files are missing"
    if not re.fullmatch(r"models:/[\w-]+", address, re.ASCII):
        raise RegistryError(f"{lost}: the address {shown(address)} names no logged model; {way_out(version)}")
    try:
        if store.place.own:  # MLflow's download would write into the folder and fail in a read-only project
            location = store.client.get_logged_model(address.removeprefix("models:/")).artifact_location
            folder = Path(local_file_uri_to_path(location))  # type: ignore[no-untyped-call]
        else:
            with store.current():
                folder = Path(mlflow.artifacts.download_artifacts(address))
        exists = folder.is_dir()
        inside = not store.place.own or folder.resolve().is_relative_to(store.place.artifacts.resolve())
    except Exception as error:  # if somebody edited the address, MLflow may raise any error
        raise RegistryError(f"{lost} ({_short(error)}); {way_out(version)}") from error
    if not inside:
        raise RegistryError(
            f"{lost}: the folder {visible(str(folder))} is outside the artifact folder "
            f"{store.place.artifacts}; {way_out(version)}"
        )
    if not exists:
        raise RegistryError(f"{lost}: the folder {visible(str(folder))} does not exist; {way_out(version)}")
    return folder


def damage(md5s: Mapping[str, str], others: Mapping[str, str], version: ModelVersion) -> list[str]:
    """Compare a version's folder with the md5s in the tag ``files.md5``; list altered, missing and added entries.

    Bytecode caches are ignored, because segline never uses them. If the tag is missing or invalid, altered and missing
    files cannot be found. In this case, only links, devices and other entries that are not files are listed.
    """
    expected = recorded(version)
    odd = [
        f"{visible(path)} was added; it is {kind}, which segline never uses; delete it"
        for path, kind in others.items()
        if kind != entries.CACHE
    ]
    if not expected:
        return odd
    altered = [path for path in expected if path in md5s and md5s[path] != expected[path]]
    return [
        *(
            f"{visible(path)} was altered (md5 {md5s[path]}, but the registered md5 is {shown(expected[path])})"
            for path in altered
        ),
        *(f"{visible(path)} is missing" for path in expected if path not in md5s),
        *(f"{visible(path)} was added" for path in md5s if path not in expected),
        *odd,
    ]


def caches(others: Mapping[str, str]) -> list[str]:
    """List the bytecode caches in a version's folder."""
    return [
        f"{visible(path)} is {kind}, which segline never uses; delete it"
        for path, kind in others.items()
        if kind == entries.CACHE
    ]


def way_out(version: ModelVersion) -> str:
    """Return advice on how to restore the files of a version."""
    return (
        f"restore the files from a copy of mlruns, or delete version {version.version} on MLflow's page and register "
        "the model again (`dvc repro -f -s register`, with the data/model of this version)"
    )


def _short(error: Exception) -> str:
    message = error.message if isinstance(error, MlflowException) else str(error)
    return visible(message)[:300]
