"""Pack a model with its code into a folder that MLflow can load without segline."""

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
from segline import files, parse
from segline.model.images import Raw, decode, encode_png
from segline.model.objects import suffix
from segline.score.instances import Matches, matches
from segline.track import identity, lineage
from segline.track.git import lf
from segline.track.history import RegistryError

ROOM = Path(segline.model.__file__).parent
MODEL_FILES = ("weights.safetensors", "model.json")
SETTINGS = "inference.json"
# Packages that segline.model imports (a test checks the list), and imagecodecs, which tifffile needs for compression.
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
# Stage `evaluate` may predict on a GPU, and the packed model on a CPU. The two predictions may differ slightly.
TOLERANCE = 0.001  # largest share of pixels that may differ
OBJECT_TOLERANCE = 3  # number of objects that may differ; if an object is cut in two, one is missing and two are extra
OBJECT_SHARE = 0.01  # share of the matched objects that may differ; the larger of the two limits applies
ENTRY = '''\
"""Run by MLflow to load this model; all of its code is in code/{package}."""

from mlflow.models import set_model

from {package}.served import Served

set_model(Served())
'''


def room(project: Path) -> Path:
    """Return the folder with the code that is packed into the model versions of `project`.

    A checkout of segline's repository has this code itself; for other projects, the installed code is used.
    """
    own = project / "src" / "segline" / "model"
    return own.resolve() if own.is_dir() else ROOM


class PackagingError(ValueError):
    """Raised if a packed model and the evaluated model predict differently; the message says what to do."""


@dataclass(frozen=True)
class Parts:
    """Everything that a version is made from: trained model, inference settings, code, and an example prediction.

    ``model`` is the folder with weights.safetensors and model.json, and ``inference`` is the file inference.json.
    ``example`` is an encoded image. ``answer`` is the PNG of the predicted class ids, and ``instances`` is the image
    file of the predicted instance ids. ``room`` is the folder with the code to pack. If ``by_bytes`` is True, the MD5
    of the code is computed from the exact bytes (see `version_code`).
    """

    model: Path
    inference: Path
    example: bytes
    answer: bytes
    instances: bytes
    room: Path = ROOM
    by_bytes: bool = False

    def as_recorded(self, md5s: Container[str]) -> Self:
        """Return a copy with `by_bytes` = True if its MD5 is in `md5s`; otherwise return self.

        With `by_bytes`, the MD5 is computed from the exact bytes of the code, as in earlier segline releases.
        """
        earlier = replace(self, by_bytes=True)
        return earlier if earlier.md5 in md5s else self

    @cached_property
    def sources(self) -> dict[str, bytes]:
        """Contents of the Python files to pack, as a dict (path in the folder `room` -> content)."""
        return read_sources(self.room)

    @cached_property
    def code_md5(self) -> str:
        """MD5 of the packed code. The MD5 of the version depends on this MD5."""
        return bytes_md5(self.sources) if self.by_bytes else identity.of_sources(self.sources)

    @cached_property
    def md5(self) -> str:
        """MD5 of everything that determines predictions: weights, model.json, inference settings and code."""
        md5s = {name: files.md5(self.model / name) for name in MODEL_FILES}
        return version_md5({**md5s, SETTINGS: files.md5(self.inference)}, self.code_md5)

    @property
    def package(self) -> str:
        """Name of the Python package with the packed code.

        Each version has its own package name, so that one process can load two versions with different code.
        """
        return package_name(self.sources, by_bytes=self.by_bytes)

    def description(self) -> dict[str, Any]:
        """Return the content of model.json."""
        file = self.model / "model.json"
        try:
            content = parse.from_json(parse.read(file, parse.RECORD_SIZE))
        except parse.ParseError as error:
            raise RegistryError(f"{file}: {error}; remove the file, then run `dvc repro` to write it again") from error
        if not isinstance(content, dict):
            raise RegistryError(
                f"{file} is not the description of a model; remove the file, then run `dvc repro` to write it again"
            )
        return content


def version_md5(md5s: Mapping[str, str], code: str) -> str:
    """Compute the MD5 of a version.

    Parameters
    ----------
    md5s : MD5s of the files in `MODEL_FILES` and of the file `SETTINGS`, by file name.
    code : MD5 of the version's code.
    """
    return lineage.combined_md5({**md5s, "code": code})


def package_name(sources: Mapping[str, bytes], *, by_bytes: bool) -> str:
    """Return the name of the Python package that holds `sources`.

    The name depends on the exact bytes, so that one process can load two versions that differ only in a comment.
    """
    return f"segline_model_{'' if by_bytes else 'v2_'}{bytes_md5(sources)[:12]}"


def version_code(package: str, sources: Mapping[str, bytes]) -> str:
    """Compute the MD5 of a version's code; return an empty text if `package` is not the name of a package of this code.

    The name shows how the MD5 is computed: as the code digest or, in versions of earlier segline releases, from the
    exact bytes. If somebody renames a package to get the other MD5, registry.jsonl has no line with this MD5.
    """
    if package == package_name(sources, by_bytes=False):
        return identity.of_sources(sources)
    return bytes_md5(sources) if package == package_name(sources, by_bytes=True) else ""


def read_sources(room: Path) -> dict[str, bytes]:
    """Return the Python files in a folder as a dict (relative path -> content with LF line endings)."""
    return {file.relative_to(room).as_posix(): lf(file.read_bytes()) for file in room.rglob("*.py")}


def bytes_md5(sources: Mapping[str, bytes]) -> str:
    """Return one MD5 of all Python files, computed from their paths and exact bytes."""
    return lineage.listing_md5({path: files.bytes_md5(source) for path, source in sources.items()})[:32]


def requirements() -> list[str]:
    """Return the requirements of the packed code; each package is pinned to the installed version."""
    # A local version suffix is dropped, because PyPI has torch 2.13.0, but not 2.13.0+cpu.
    return [f"{package}=={Version(version(package)).public}" for package in PACKAGES]


def encode(raw: Raw) -> bytes:
    """Encode `raw` (H, W, C) as a lossless image file: PNG if possible, else TIFF."""
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
    """Write `parts` as an MLflow model into `folder`, which must be new or empty."""
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
    """Predict the example image with the model packed in `folder`, and compare the result with the expected prediction.

    Raises
    ------
    PackagingError
        The prediction differs from the expected one.
    """
    with _importable(folder / "code", parts.package):
        image = pd.DataFrame({"image": [parts.example]}, dtype=object)
        answer = mlflow.pyfunc.load_model(str(folder)).predict(image, params={"instances": True})
    again = "run stage evaluate again with the current code"
    share = other_pixels(answer["labels"][0], parts.answer)
    if share > TOLERANCE:
        raise PackagingError(
            f"the packed model's prediction of the example differs from data/reports/predictions in {share:.2%} of the "
            f"pixels; {again}"
        )
    objects = matched_objects(answer["instances"][0], parts.instances)
    if objects.fp + objects.fn > most_other(objects):
        raise PackagingError(
            f"the packed model does not reproduce the example: it finds {objects.tp} of the "
            f"{objects.tp + objects.fn} objects in data/reports/instances, and {objects.fp} other objects; {again}"
        )


def other_pixels(labels: bytes, expected: bytes) -> float:
    """Return the share of pixels that differ between two encoded label images; 1 if the image sizes differ."""
    actual, wanted = decode(labels), decode(expected)
    return float((actual != wanted).mean()) if actual.shape == wanted.shape else 1.0


def matched_objects(instances: bytes, expected: bytes) -> Matches:
    """Match the objects of two encoded instance images; two objects match if their IoU is at least 0.9."""
    actual, wanted = (decode(file)[..., 0].astype(np.int32) for file in (instances, expected))
    return matches(wanted, actual, 0.9)


def most_other(objects: Matches) -> float:
    """Return the maximum number of objects that may differ; this number grows with the number of matched objects."""
    return max(OBJECT_TOLERANCE, OBJECT_SHARE * objects.tp)


def _signature() -> ModelSignature:
    """Return the MLflow signature of the packed model: input (encoded image), outputs and parameters."""
    optional = ("instances", "probabilities")
    answer = Schema([ColSpec("binary", "labels"), *(ColSpec("binary", name, required=False) for name in optional)])
    flags = [ParamSpec(name, "boolean", default=False) for name in optional]
    parameters = ParamSchema([*flags, ParamSpec("views", "long", default=0)])
    return ModelSignature(Schema([ColSpec("binary")]), answer, parameters)


def _stage(parts: Parts, staging: Path) -> None:
    """Write all files that go into the MLflow model to the folder `staging`."""
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
    """Make `package` importable from the temporary `folder`, and unload the package at the end of the with block."""
    known, path = package in sys.modules, sys.path[:]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path
        if not known:
            for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
                del sys.modules[name]
