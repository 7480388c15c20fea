"""The images that a version learned from, as they were when it was registered."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path, PurePath

import mlflow.artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from segline.track.entries import open_regular
from segline.track.registry import IMAGES
from segline.track.store import Store

MAX_TABLE = 2**27  # bytes


@dataclass(frozen=True)
class Image:
    """An image of a version's data: its stem, its file in the dataset, the md5 of that, and its split."""

    image: str
    file: str
    md5: str
    split: str


def images(store: Store, version: ModelVersion) -> list[Image] | None:
    """The images of a version's data, train, validation and test; None where the version has no list of them."""
    try:
        logged = store.client.get_logged_model(str(version.source).removeprefix("models:/"))
        with store.current():  # the one file: from a server, the weights stay where they are
            file = mlflow.artifacts.download_artifacts(f"{logged.artifact_location}/{IMAGES}")
        with open_regular(Path(file)) as stream:
            text = stream.read(MAX_TABLE).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (MlflowException, OSError, ValueError, csv.Error):  # also a table or an address that was edited
        return None
    return [Image(*(row.get(name) or "" for name in ("image", "file", "md5", "split"))) for row in rows]


def alike(image: Image, name: str, md5: str | None) -> str:
    """In what an image of a version is the one asked for: content, name, or "" for nothing.

    Parameters
    ----------
    name : its file name, its stem, or its path in the dataset.
    md5 : of its content, where it is at hand.
    """
    if md5 is not None and image.md5 == md5:
        return "content"
    asked = PurePath(name)
    if name in (image.file, image.image) or asked.name == PurePath(image.file).name or asked.name == image.image:
        return "name" if md5 is None else "name, other content"
    return ""
