"""A registered model at work: images in, answers out, by the code that it carries."""

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc import load_model as load_pyfunc

from segline import names
from segline.track import intact
from segline.track.history import RegistryError
from segline.track.store import Store

DEVICE = "MLFLOW_DEFAULT_PREDICTION_DEVICE"  # read by the code in the package


class Answer(NamedTuple):
    """What a registered model makes of an image."""

    labels: bytes
    """PNG of class ids."""
    instances: bytes | None = None
    """Image file of instance ids; None from a model of a segline that did not know them."""
    probabilities: bytes | None = None
    """TIFF of class probabilities, where they were asked for."""


class Example(NamedTuple):
    """The image that a model carries, and the answer that was expected of it at registration."""

    image: bytes
    answer: Answer


class Loaded:
    """A loaded model; called with an encoded image, it answers."""

    def __init__(self, model: PyFuncModel, folder: Path) -> None:
        self.folder = folder
        self._model = model

    def __call__(self, image: bytes, *, views: int = 0, probabilities: bool = False) -> Answer:
        """The answer to an image by that many views, 0 for the version's own number.

        Raises
        ------
        RegistryError
            The image does not suit the model, or the version knows no such views or probabilities.
        """
        asked = ({"views": views} if views else {}) | ({"probabilities": True} if probabilities else {})
        return self._ask([image], asked)[0]

    def each(self, images: Sequence[bytes]) -> list[Answer]:
        """The answers to several images, asked for in one call."""
        return self._ask(images, {})

    def _ask(self, images: Sequence[bytes], asked: dict[str, int]) -> list[Answer]:
        if unknown := sorted(asked.keys() - self._params):
            raise RegistryError(
                f"this version was registered by a segline that knew no {unknown[0]}; register it again"
            )
        params = {**asked, "instances": True} if "instances" in self._params else asked
        try:
            table: Any = self._model.predict(pd.DataFrame({"image": list(images)}, dtype=object), params=params or None)
        except MlflowException as error:
            raise RegistryError(error.message) from error
        return [Answer(**row) for row in table[[name for name in Answer._fields if name in table]].to_dict("records")]

    @property
    def served(self) -> Any:
        """The model as its own code has it."""
        return self._model.unwrap_python_model()  # type: ignore[no-untyped-call]

    @property
    def md5(self) -> str:
        """The md5 of the version: all that decides what it answers."""
        return str((self._model.metadata.metadata or {}).get("version.md5", ""))

    @property
    def example(self) -> Example:
        """The example in its package; RegistryError where it is missing."""
        folder = self.folder / "artifacts" / "example"
        try:
            instances = [file.read_bytes() for file in folder.glob("instances.*")]
            answer = Answer((folder / "labels.png").read_bytes(), instances[0] if instances else None)
            return Example((folder / "image").read_bytes(), answer)
        except OSError as error:
            raise RegistryError(f"{folder}: {error.strerror}: {error.filename}; register the model again") from None

    @property
    def size(self) -> int:
        """Bytes of its package."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    @cached_property
    def _params(self) -> set[str]:
        """What may be asked of it beside labels."""
        schema = self._model.metadata.get_params_schema()  # type: ignore[no-untyped-call]
        return {each.name for each in schema.params} if schema else set()


class Address(NamedTuple):
    """What an address names: a model, and an alias or a version's number; the other is empty."""

    name: str
    alias: str
    number: str


def parse_address(address: str) -> Address:
    """The parts of an address such as ``models:/cells@champion`` or ``models:/cells/3``; RegistryError for others."""
    found = re.fullmatch(r"models:/([^/:]+)(?:@([\w-]+)|/([0-9]+))", names.composed(address))
    if found is None:
        raise RegistryError(f"--model {address}: give models:/NAME@ALIAS, or models:/NAME/NUMBER for one version")
    return Address(*found.groups(""))


def load_model(store: Store, address: str) -> Loaded:
    """The model at, say, ``models:/cells@champion``: a function from an encoded image to what it makes of it.

    It answers by the code that it carries, not by segline's.

    Raises
    ------
    RegistryError
        The address is none, there is no such model, its files are not those that were registered, or its code fails
        here.
    """
    name, alias, number = parse_address(address)
    client = store.client
    try:
        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        folder = intact.checked(store, version)
    except MlflowException as error:
        raise RegistryError(f"{address}: {error.message}; `segline ui` shows what there is") from error
    except OSError as error:
        raise RegistryError(
            f"{address}: its files cannot be checked: {error}; see whether you may read them"
        ) from error
    try:
        with store.current():
            return Loaded(load_pyfunc(str(folder)), folder)
    except Exception as error:  # whatever the code in its package raises
        raise RegistryError(f"{address} cannot be loaded: {type(error).__name__}: {error}; {_why(version)}") from error


def _why(version: ModelVersion) -> str:
    """What may be the cause that a version cannot be loaded whose files have been checked, where they can be."""
    if not intact.recorded(version):
        return "its files may be missing or altered: it was registered by a segline that kept no md5 of them"
    if device := os.environ.get(DEVICE):
        return f"{DEVICE} is {device}: set it to a device that this machine has, such as cpu, or unset it"
    return "its files are as registered: see whether the packages of its requirements.txt are installed"
