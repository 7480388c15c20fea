"""Whether the files of a version are those that were registered."""

import json
from pathlib import Path

import mlflow.artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from segline.track import lineage
from segline.track.history import RegistryError
from segline.track.store import Store

FILES_TAG = "files.md5"
# Written where a version is loaded: by Python, and by MLflow.
BESIDE = ("__pycache__", "registered_model_meta")


def listing(folder: Path) -> dict[str, str]:
    """The md5 of every file in `folder`, by its path in it."""
    inside = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    names = [name for name in inside if not {*BESIDE} & {*name.parts}]
    return {name.as_posix(): lineage.file_md5(folder / name) for name in names}


def recorded(version: ModelVersion) -> dict[str, str]:
    """The md5s of the files of a version as it was registered; empty where none were recorded."""
    found: dict[str, str] = json.loads(version.tags.get(FILES_TAG, "{}"))
    return found


def files(store: Store, version: ModelVersion) -> Path:
    """The folder of a version's files; from a server they are fetched.

    Raises
    ------
    RegistryError
        They are not there.
    """
    address = str(version.source)  # models:/ and the id of the logged model
    lost = f"{version.name} version {version.version}: its files are missing"
    try:
        with store.current():
            folder = Path(mlflow.artifacts.download_artifacts(address))
    except (MlflowException, OSError) as error:
        raise RegistryError(f"{lost} ({error}); {way_out(version)}") from error
    if not folder.is_dir():
        raise RegistryError(f"{lost} from {folder}; {way_out(version)}")
    return folder


def damage(folder: Path, version: ModelVersion) -> list[str]:
    """What is wrong with the files of a version in `folder`: altered, missing, or more than were registered."""
    expected = recorded(version)
    if not expected:
        return []
    found = listing(folder)
    altered = [name for name in expected if name in found and found[name] != expected[name]]
    return [
        *(f"{name} was altered (md5 {found[name]}, registered {expected[name]})" for name in altered),
        *(f"{name} is missing" for name in expected if name not in found),
        *(f"{name} was added" for name in found if name not in expected),
    ]


def checked(store: Store, version: ModelVersion) -> Path:
    """The folder of a version's files, all as they were registered.

    Raises
    ------
    RegistryError
        They are not there, or not as they were.
    """
    folder = files(store, version)
    if wrong := damage(folder, version):
        raise RegistryError(
            f"{version.name} version {version.version} is not the one registered: {'; '.join(wrong)} (in {folder}); "
            f"{way_out(version)}"
        )
    return folder


def way_out(version: ModelVersion) -> str:
    """How the files of a version come back."""
    return (
        f"restore them from a copy of mlruns, or delete version {version.version} on MLflow's page and register the "
        "model again (dvc repro -f -s register, with its data/model)"
    )
