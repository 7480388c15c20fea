"""Load a registered model version and predict images with it, using the code in its package."""

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModelContext

from segline import names, parse, progress
from segline.track import entries, modules
from segline.track.history import HISTORY, RegistryError
from segline.track.store import Store, open_store
from segline.track.tags import VERSION_MD5
from segline.track.trust import VersionContent, checked, known, misplaced, read

SERVED = "served.py"  # file in the package that defines the class for predictions
PARAMS = (
    "instances",
    "probabilities",
    "views",
)  # prediction parameters; the code of an old version may not know all of them
DEVICE = "MLFLOW_DEFAULT_PREDICTION_DEVICE"  # environment variable that the code in the package reads


class Answer(NamedTuple):
    """Encoded prediction of one image by a registered model version."""

    labels: bytes
    """PNG of class ids."""
    instances: bytes | None = None
    """Image file of instance ids; None if the version predicts no instances."""
    probabilities: bytes | None = None
    """TIFF of class probabilities; None if they were not requested."""


class Example(NamedTuple):
    """The example image in a version's package, and the prediction that was stored at registration."""

    image: bytes
    answer: Answer


class Loaded:
    """A loaded model version; calling this object with an encoded image returns the prediction."""

    def __init__(self, content: VersionContent, folder: Path) -> None:
        """Load the model: weights and settings from `folder`, Python code from `content`.

        `folder` is a private copy of the version's data files; `content` holds the source text of its package.
        The code in the package may raise any error.
        """
        self.folder = folder
        """Private copy of the version's files; the copy is deleted when this object is deleted."""
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        artifacts = folder / "artifacts"
        context: Any = PythonModelContext  # MLflow's class has no types
        self._context = context({name: str(artifacts / name) for name in ("model", "example")}, None)
        self.served: Any = modules.load(content.package, content.sources, "served").Served()
        """Model object from the version's own code."""
        self.served.load_context(self._context)
        self.md5 = content.md5
        """MD5 that identifies the version; it covers weights, settings and code."""
        self.size = content.size
        """Size of the package, bytes."""
        self._params = {name for name in PARAMS if f'"{name}"'.encode() in content.sources[SERVED]}

    def __call__(self, image: bytes, *, views: int = 0, probabilities: bool = False) -> Answer:
        """Predict the labels of an encoded image; `views` is the number of rotations and mirror images to average.

        If `views` is 0, the number of views in the version's settings is used.

        Raises
        ------
        RegistryError
            The image does not fit the model, or the version does not support these views or probabilities.
        """
        params = ({"views": views} if views else {}) | ({"probabilities": True} if probabilities else {})
        return self._ask([image], params)[0]

    def each(self, images: Sequence[bytes]) -> list[Answer]:
        """Predict several encoded images in one call of the model."""
        return self._ask(images, {})

    def _ask(self, images: Sequence[bytes], params: dict[str, int]) -> list[Answer]:
        if unsupported := sorted(params.keys() - self._params):
            raise RegistryError(
                "the version was registered by an earlier segline release and does not support the parameter "
                f"{unsupported[0]}; register the model again"
            )
        if "instances" in self._params:
            params = params | {"instances": True}
        frame = pd.DataFrame({"image": list(images)}, dtype=object)
        try:
            table: Any = self.served.predict(self._context, frame, params or None)
        except MlflowException as error:
            raise RegistryError(error.message) from error
        return [Answer(**row) for row in table[[name for name in Answer._fields if name in table]].to_dict("records")]

    @property
    def description(self) -> dict[str, Any]:
        """Content of model.json: network, class names, type of labels, statistics of the training images."""
        content: dict[str, Any] = parse.from_json((self.folder / "artifacts/model/model.json").read_bytes())
        return content

    @property
    def example(self) -> Example:
        """Example image and expected prediction from the package; raise RegistryError if a file is missing."""
        folder = self.folder / "artifacts" / "example"
        try:
            instances = [file.read_bytes() for file in folder.glob("instances.*")]
            answer = Answer((folder / "labels.png").read_bytes(), instances[0] if instances else None)
            return Example((folder / "image").read_bytes(), answer)
        except OSError as error:
            raise RegistryError(
                f"the example in {folder} cannot be read ({error.strerror}: {error.filename}); register the model again"
            ) from None


class Address(NamedTuple):
    """Parts of a model URI: a name, and either an alias or a version number; the unused field is empty."""

    name: str
    alias: str
    number: str


def parse_address(address: str) -> Address:
    """Parse a model URI such as ``models:/cells@champion`` or ``models:/cells/3``.

    Raises
    ------
    RegistryError
        `address` is not a model URI.
    """
    match = re.fullmatch(r"models:/([^/:]+)(?:@([\w-]+)|/([0-9]+))", names.composed(address))
    if match is None:
        raise RegistryError(f"{address} is not a model URI; give models:/NAME@ALIAS or models:/NAME/NUMBER")
    return Address(*match.groups(""))


def load(address: str, *, trust: bool = False) -> Loaded:
    """Load a registered version of the current project, or a model folder.

    Parameters
    ----------
    address : ``models:/NAME@ALIAS`` or ``models:/NAME/NUMBER``, or the path of a model folder.
    trust : use a version without a line in registry.jsonl, on the user's responsibility.

    Raises
    ------
    RegistryError
        The model cannot be loaded for one of the reasons in `load_model` and `load_folder`.
    """
    folder = folder_of(address)
    return load_folder(folder) if folder else load_model(open_store(), address, trust=trust)


def folder_of(address: str) -> Path | None:
    """Return the model folder that `address` names; return None if `address` is a model URI.

    Raises
    ------
    RegistryError
        `address` is empty.
    """
    if not address:
        raise RegistryError(
            "the address of the model is empty; give models:/NAME@ALIAS, models:/NAME/NUMBER or a folder"
        )
    return None if address.startswith("models:") else Path(address)


def load_model(store: Store, address: str, *, trust: bool = False, alias: str = "") -> Loaded:
    """Load the version with the given model URI, for example ``models:/cells@champion``.

    The version predicts with the code in its package, not with the installed segline. The files are checked while they
    are copied to a private folder. Only this copy is used, because the files in the store may change later.

    Parameters
    ----------
    trust : use a version without a line in registry.jsonl, on the user's responsibility.
    alias : alias by which the caller found the version, if `address` holds a version number.

    Raises
    ------
    RegistryError
        The URI is malformed, the version does not exist or may not be trusted, or its code fails on this machine.
    """
    name, named, number = parse_address(address)
    client = store.client
    try:
        version = client.get_model_version_by_alias(name, named) if named else client.get_model_version(name, number)
    except MlflowException as error:
        raise RegistryError(
            f"the model {address} cannot be loaded: {error.message}; `segline ui` lists the models"
        ) from error
    with _private_folder() as copy:
        content = checked(store, version, trust=trust, copy=copy)
        _check_alias(store, name, named or alias, content.md5)
        return _loaded(f"the model {address}", content, copy)


def load_folder(folder: Path) -> Loaded:
    """Load a model from a folder that MLflow stored for a version; the caller must trust the code in the folder.

    Raises
    ------
    RegistryError
        The folder is not a model folder, is incomplete or altered, or holds code that fails on this machine.
    """
    if not (folder / "MLmodel").is_file():
        raise RegistryError(
            f"{folder} is not a model folder: it has no file MLmodel; give a folder that MLflow stored for a version, "
            "or a registered version such as models:/cells@champion"
        )
    with _private_folder() as copy:
        try:
            content = read(folder, copy)
            _check_folder(folder, content)
        except (OSError, parse.ParseError) as error:
            raise RegistryError(f"{folder}: {error}") from error
        return _loaded(str(folder), content, copy)


def _loaded(name: str, content: VersionContent, copy: Path) -> Loaded:
    try:
        return Loaded(content, copy)
    except Exception as error:  # the code in the package may raise any error
        raise RegistryError(f"{name} cannot be loaded: {type(error).__name__}: {error}; {_load_hint()}") from error


def _check_folder(folder: Path, content: VersionContent) -> None:
    """Check that a model folder is complete, and that the MD5 of its files equals the MD5 in the file MLmodel.

    This check finds damage. It cannot find tampering, because a person who alters the folder can also alter MLmodel.
    """
    description = parse.from_yaml(parse.read(folder / "MLmodel", parse.YAML_SIZE))
    metadata = description.get("metadata") if isinstance(description, dict) else None
    expected = metadata.get(VERSION_MD5) if isinstance(metadata, dict) else None
    if content.md5 and content.md5 == expected:
        return
    odd = [f"{path} is {kind}" for path, kind in sorted(content.others.items()) if kind != entries.CACHE]
    reason = f"{', '.join(odd[:3])}; segline reads only regular files" if odd else "files are missing or altered"
    raise RegistryError(
        f"the weights, settings or code in {folder} differ from the registered version: {reason}; "
        "copy the folder from MLflow's artifacts again"
    )


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Create a temporary folder that outlives the with block; remove the folder if the block raises an exception."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="segline-version-"))
    except OSError as error:
        raise RegistryError(
            f"cannot create a temporary folder for a copy of the version ({error}); set TMPDIR to a writable folder"
        ) from error
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_alias(store: Store, name: str, alias: str, md5: str) -> None:
    """Compare `md5` with the md5 that registry.jsonl records for `alias`; warn if the two md5s differ.

    Raises
    ------
    RegistryError
        `md5` is not the md5 of the alias, and registry.jsonl has no line with `md5`.
    """
    history = store.place.root / HISTORY
    if doubt := misplaced(alias, name, md5, history):
        if md5 not in known(name, history):
            raise RegistryError(f"{name}: {doubt}; --trust does not override this check")
        progress.note(f"warning: {doubt}")


def _load_hint() -> str:
    """Suggest why a version could not be loaded although its files are intact."""
    if device := os.environ.get(DEVICE):
        return f"the variable {DEVICE} is {device}; set it to a device of this machine, such as cpu, or unset it"
    return "the version's files are unchanged; check that the packages in the version's requirements.txt are installed"
