"""Packs a model with its own code: a folder that MLflow loads where segline is not installed."""

import io
import shutil
import sys
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import mlflow.pyfunc
import numpy as np
import pandas as pd
import tifffile
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from packaging.version import Version

import segline.model
from segline import parse
from segline.model.images import Raw, decode, encode_png
from segline.model.objects import suffix
from segline.score.instances import Matches, matches
from segline.track import identity, lineage
from segline.track.git import lf
from segline.track.history import RegistryError

ROOM = Path(segline.model.__file__).parent
MODEL_FILES = ("weights.safetensors", "model.json")
SETTINGS = "inference.json"
# All that segline.model imports, and what tifffile leaves compressed files to; a test compares.
PACKAGES = (
    "imagecodecs",
    "mlflow",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "safetensors",
    "tifffile",
    "torch",
)
# What may differ between evaluate, perhaps on a GPU, and the package on a CPU: a share of the example's pixels, and
# as many objects as one cut more or less makes (one for two), or that share of them where they are many.
TOLERANCE = 0.001
OBJECT_TOLERANCE = 3
OBJECT_SHARE = 0.01
ENTRY = '''\
"""Run by MLflow to load this model; all of its code is in code/{package}."""

from mlflow.models import set_model

from {package}.served import Served

set_model(Served())
'''


class ShippingError(ValueError):
    """A packed model that is not the one evaluated; the message says what to do."""


@dataclass(frozen=True)
class Parts:
    """All that makes a version: the trained model, how it is used, and an image with the answer expected for it.

    ``model`` is the folder of weights.safetensors and model.json, ``inference`` the file inference.json, ``example`` an
    encoded image, ``answer`` the PNG of its labels, ``instances`` the image file of its instance ids, ``room`` the
    folder of the code that is shipped, ``by_bytes`` the rule for its MD5 (see `version_code`).
    """

    model: Path
    inference: Path
    example: bytes
    answer: bytes
    instances: bytes
    room: Path = ROOM
    by_bytes: bool = False

    def as_recorded(self, md5s: Container[str]) -> Self:
        """Return the parts under the MD5 that an earlier segline gave them, if it is among `md5s`; else unchanged."""
        earlier = replace(self, by_bytes=True)
        return earlier if earlier.md5 in md5s else self

    @cached_property
    def sources(self) -> dict[str, bytes]:
        """Python files of the shipped code, as they are shipped, by their paths in `room`."""
        return read_sources(self.room)

    @cached_property
    def code_md5(self) -> str:
        """MD5 of the shipped code, as it enters the MD5 of the version."""
        return bytes_md5(self.sources) if self.by_bytes else identity.of_sources(self.sources)

    @cached_property
    def md5(self) -> str:
        """The md5 of the version: weights, description, inference settings and code decide what it answers."""
        files = {name: lineage.file_md5(self.model / name) for name in MODEL_FILES}
        return version_md5({**files, SETTINGS: lineage.file_md5(self.inference)}, self.code_md5)

    @property
    def package(self) -> str:
        """The name under which the code is shipped.

        Python keeps one module a name: under one name, two versions loaded in a process would share the code of one.
        """
        return package_name(self.sources, by_bytes=self.by_bytes)

    def description(self) -> dict[str, Any]:
        """The content of model.json."""
        file = self.model / "model.json"
        try:
            content = parse.from_json(parse.read(file, parse.RECORD_SIZE))
        except parse.ParseError as error:
            raise RegistryError(f"{file}: {error}; remove it, and `dvc repro` writes it") from error
        if not isinstance(content, dict):
            raise RegistryError(f"{file}: not the description of a model; remove it, and `dvc repro` writes it")
        return content


def version_md5(files: Mapping[str, str], code: str) -> str:
    """The md5 of a version, of the md5s of `MODEL_FILES` and `SETTINGS`, by name, and of its code."""
    return lineage.combined_md5({**files, "code": code})


def package_name(sources: Mapping[str, bytes], *, by_bytes: bool) -> str:
    """Return the name of the package that holds `sources`.

    It follows from their bytes, so that two versions which differ in a comment can be loaded in one process.
    """
    return f"segline_model_{'' if by_bytes else 'v2_'}{bytes_md5(sources)[:12]}"


def version_code(package: str, sources: Mapping[str, bytes]) -> str:
    """Return the MD5 of code that enters the MD5 of a version; empty if `package` is not the name of `sources`.

    The name of the package says by which rule: the identity of the code, or, in versions of earlier seglines, its
    bytes. Whoever renames a package to change the rule gets an MD5 that no line of registry.jsonl has.
    """
    if package == package_name(sources, by_bytes=False):
        return identity.of_sources(sources)
    return bytes_md5(sources) if package == package_name(sources, by_bytes=True) else ""


def read_sources(room: Path) -> dict[str, bytes]:
    """Return the Python files in `room`, with LF as their line ends, by their paths in it."""
    return {file.relative_to(room).as_posix(): lf(file.read_bytes()) for file in room.rglob("*.py")}


def bytes_md5(sources: Mapping[str, bytes]) -> str:
    """Return the MD5 of Python files by their paths and their exact bytes."""
    return lineage.listing_md5({path: lineage.bytes_md5(source) for path, source in sources.items()})[:32]


def requirements() -> list[str]:
    """The packages that the shipped code imports, pinned to what is installed here."""
    # Without the local part: torch 2.13.0+cpu is not on PyPI, 2.13.0 is.
    return [f"{package}=={Version(version(package)).public}" for package in PACKAGES]


def encode(raw: Raw) -> bytes:
    """The bytes of an image file that decodes to `raw` (H, W, C): PNG where it can be, else TIFF."""
    channels = raw.shape[2]
    if raw.dtype != np.float32 and channels in (1, 3):
        return encode_png(raw[..., 0] if channels == 1 else raw)
    stream = io.BytesIO()
    if channels == 1:
        tifffile.imwrite(stream, raw[..., 0])
    else:
        tifffile.imwrite(stream, raw, photometric="minisblack", planarconfig="contig")
    return stream.getvalue()


def pack(parts: Parts, folder: Path, metadata: Model | None = None) -> None:
    """Write an MLflow model of `parts` into `folder`, which must be new or empty."""
    with TemporaryDirectory() as place:
        staging = Path(place)
        _stage(parts, staging)
        with _importable(staging / "code", parts.package):
            mlflow.pyfunc.save_model(
                folder,
                python_model=str(staging / "entry.py"),
                code_paths=[str(staging / "code" / parts.package)],
                artifacts={"model": str(staging / "model"), "example": str(staging / "example")},
                signature=_signature(),
                input_example=pd.DataFrame({"image": [parts.example]}, dtype=object),
                pip_requirements=requirements(),
                metadata={"version.md5": parts.md5, "code.md5": parts.code_md5},
                mlflow_model=metadata,
            )
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)


def check(folder: Path, parts: Parts) -> None:
    """Ask the model packed in `folder` for its example, by its own code, and compare.

    Raises
    ------
    ShippingError
        It does not answer as expected.
    """
    with _importable(folder / "code", parts.package):
        image = pd.DataFrame({"image": [parts.example]}, dtype=object)
        answer = mlflow.pyfunc.load_model(str(folder)).predict(image, params={"instances": True})
    again = "run stage evaluate again with the code as it is now"
    share = other_pixels(answer["labels"][0], parts.answer)
    if share > TOLERANCE:
        raise ShippingError(
            f"the packed model labels {share:.2%} of its example's pixels unlike data/reports/predictions; {again}"
        )
    found = matched_objects(answer["instances"][0], parts.instances)
    if found.fp + found.fn > most_other(found):
        raise ShippingError(
            f"the packed model finds {found.tp} of the {found.tp + found.fn} objects of its example in "
            f"data/reports/instances, and {found.fp} others; {again}"
        )


def other_pixels(labels: bytes, expected: bytes) -> float:
    """The share of pixels in which two encoded label images differ; 1 where their sizes do."""
    one, other = decode(labels), decode(expected)
    return float((one != other).mean()) if one.shape == other.shape else 1.0


def matched_objects(instances: bytes, expected: bytes) -> Matches:
    """The objects of two encoded instance images that are alike, and those that are not."""
    found, objects = (decode(file)[..., 0].astype(np.int32) for file in (instances, expected))
    return matches(objects, found, 0.9)


def most_other(found: Matches) -> float:
    """How many objects may be unlike, where so many are alike."""
    return max(OBJECT_TOLERANCE, OBJECT_SHARE * found.tp)


def _signature() -> ModelSignature:
    """Bytes of an image in, label image out, and instances and probabilities where the parameters ask for them."""
    beside = ("instances", "probabilities")
    answer = Schema([ColSpec("binary", "labels"), *(ColSpec("binary", name, required=False) for name in beside)])
    flags = [ParamSpec(name, "boolean", default=False) for name in beside]
    asked = ParamSchema([*flags, ParamSpec("views", "long", default=0)])
    return ModelSignature(Schema([ColSpec("binary")]), answer, asked)


def _stage(parts: Parts, staging: Path) -> None:
    """Lay out in `staging` what goes into the package."""
    for path, source in parts.sources.items():
        target = staging / "code" / parts.package / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source)
    (staging / "entry.py").write_text(ENTRY.format(package=parts.package))
    (staging / "model").mkdir()
    for name in MODEL_FILES:
        shutil.copyfile(parts.model / name, staging / "model" / name)
    shutil.copyfile(parts.inference, staging / "model" / "inference.json")
    (staging / "example").mkdir()
    (staging / "example" / "image").write_bytes(parts.example)
    (staging / "example" / "labels.png").write_bytes(parts.answer)
    (staging / "example" / f"instances{suffix(parts.instances)}").write_bytes(parts.instances)


@contextmanager
def _importable(folder: Path, package: str) -> Iterator[None]:
    """Let `package` be imported from `folder`, and forget it afterwards: the folder will be gone."""
    known, path = package in sys.modules, sys.path[:]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path
        if not known:
            for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
                del sys.modules[name]
