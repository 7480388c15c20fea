"""A registered model at work: images in, answers out, by the code that it carries."""

import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModelContext

from segline import names, progress
from segline.track import modules
from segline.track.history import HISTORY, RegistryError
from segline.track.store import Store
from segline.track.trust import Content, checked, known, misplaced

SERVED = "served.py"  # in the package: the class that answers
PARAMS = ("instances", "probabilities", "views")  # that a version may know; an earlier one names fewer in its code
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

    def __init__(self, content: Content, folder: Path) -> None:
        """Run the code in `content` on the files in `folder`, a private copy; whatever the code raises is raised."""
        self.folder = folder
        """The private copy, which is removed with this object."""
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        artifacts = folder / "artifacts"
        context: Any = PythonModelContext  # it has no types
        self._context = context({name: str(artifacts / name) for name in ("model", "example")}, None)
        self.served: Any = modules.load(content.package, content.sources, "served").Served()
        """The model as its own code has it."""
        self.served.load_context(self._context)
        self.md5 = content.md5
        """The md5 of the version: all that decides what it answers."""
        self.size = content.size
        """Bytes of its package."""
        self._params = {name for name in PARAMS if f'"{name}"'.encode() in content.sources[SERVED]}

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
        frame = pd.DataFrame({"image": list(images)}, dtype=object)
        try:
            table: Any = self.served.predict(self._context, frame, params or None)
        except MlflowException as error:
            raise RegistryError(error.message) from error
        return [Answer(**row) for row in table[[name for name in Answer._fields if name in table]].to_dict("records")]

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


def load_model(store: Store, address: str, *, trust: bool = False, alias: str = "") -> Loaded:
    """The model at, say, ``models:/cells@champion``: a function from an encoded image to what it makes of it.

    It answers by the code that it carries, not by segline's. Only what was checked is used, from a private copy: the
    folder in the store may be altered meanwhile.

    Parameters
    ----------
    trust : the user vouches for a version of which registry.jsonl has no line.
    alias : by which the version was found, where the address holds its number.

    Raises
    ------
    RegistryError
        The address is none, there is no such model, it may not be trusted, or its code fails here.
    """
    name, named, number = parse_address(address)
    client = store.client
    try:
        version = client.get_model_version_by_alias(name, named) if named else client.get_model_version(name, number)
    except MlflowException as error:
        raise RegistryError(f"{address}: {error.message}; `segline ui` shows what there is") from error
    copy = _private_folder()
    try:
        content = checked(store, version, trust=trust, copy=copy)
        _check_alias(store, name, named or alias, content.md5)
    except RegistryError:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    try:
        return Loaded(content, copy)
    except Exception as error:  # whatever the code in its package raises
        raise RegistryError(f"{address} cannot be loaded: {type(error).__name__}: {error}; {_why()}") from error


def _private_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="segline-version-"))
    except OSError as error:
        raise RegistryError(f"no folder for a copy of the version can be made ({error}); set TMPDIR") from error


def _check_alias(store: Store, name: str, alias: str, md5: str) -> None:
    """Warn of an alias that is not where registry.jsonl has it; refuse the version where no line has that either."""
    history = store.place.root / HISTORY
    if doubt := misplaced(alias, name, md5, history):
        if md5 not in known(name, history):
            raise RegistryError(f"{name}: {doubt}; --trust does not change that")
        progress.note(f"warning: {doubt}")


def _why() -> str:
    """What may be the cause that a version cannot be loaded whose files have been checked."""
    if device := os.environ.get(DEVICE):
        return f"{DEVICE} is {device}: set it to a device that this machine has, such as cpu, or unset it"
    return "its files are as registered: see whether the packages of its requirements.txt are installed"


Read = Callable[[slice, slice], npt.NDArray[Any]]
Show = Callable[[str, int, int], None]

OLD = 200  # bytes a pixel that a version needs which cannot say so


class LargeAnswer:
    """What a model sees in a large image, by rows; RegistryError where it refuses."""

    def __init__(self, found: Any, errors: type[Exception]) -> None:
        self._found, self._errors = found, errors

    def labels(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Class ids (h, W)."""
        with _named(self._errors):
            labels: npt.NDArray[np.uint8] = self._found.labels(rows)
        return labels

    def instances(self, rows: slice) -> npt.NDArray[np.int32]:
        """Instance ids (h, W)."""
        with _named(self._errors):
            instances: npt.NDArray[np.int32] = self._found.objects(rows)
        return instances

    def probabilities(self, rows: slice) -> npt.NDArray[np.float32]:
        """Class probabilities (K, h, W)."""
        probabilities: npt.NDArray[np.float32] = self._found.probabilities(rows)
        return probabilities

    @property
    def count(self) -> int:
        """Number of instances."""
        with _named(self._errors):
            count: int = self._found.count
        return count


def memory(model: Loaded, height: int, width: int) -> tuple[str, int]:
    """Why a model takes no image window by window, empty where it does, and the bytes that it needs for it in one."""
    served = model.served
    if not hasattr(served, "large"):
        return "this version was registered by a segline that knew no windows; register it again", OLD * height * width
    reason, needed = served.needs_whole(height, width)
    return str(reason), int(needed)


def answer(model: Loaded, size: tuple[int, int], read: Read, folder: Path, *, views: int, show: Show) -> LargeAnswer:
    """What a model sees in an image (`size`: height, width, px) of which `read` gives pixels (h, w, C).

    Parameters
    ----------
    folder : for files as large as the image; those of an earlier call that ended are gone on with.
    views : 1, 4 or 8 views are averaged; 0: as many as the version's settings say.
    show : is told what is being done, how many steps of it are, and how many there will be.

    Raises
    ------
    RegistryError
        The image does not suit the model.
    """
    errors = sys.modules[type(model.served).__module__].ImageError  # its own, not segline's
    with _named(errors):
        return LargeAnswer(model.served.large(size, read, folder, views, show), errors)


@contextmanager
def _named(errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise RegistryError(str(error)) from error
