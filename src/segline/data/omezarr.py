"""What an OME-Zarr image (NGFF 0.4 and 0.5) says of itself: where its pixels are, their axes and their scale."""

import hashlib
import itertools
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segline import files
from segline.files import FileError
from segline.model import headers
from segline.model.images import ImageError, Raw, usual

if TYPE_CHECKING:
    from zarr import Array

SUFFIXES = (".ome.zarr", ".zarr")
SIGNS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")  # files of which a folder of zarr has one
FORMATS = {"0.4": 2, "0.5": 3}  # of zarr, by the version of NGFF
CONVERT = "convert it to NGFF 0.4 or 0.5"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Axis(_Part):
    """An axis of the array."""

    name: str
    type: str | None = None
    unit: str | None = None


class Transformation(_Part):
    """How indices become places, a number for each axis."""

    type: Literal["scale", "translation", "identity"]
    scale: tuple[float, ...] = ()
    translation: tuple[float, ...] = ()

    def picked(self, axes: tuple[int, ...], channels: bool) -> dict[str, Any]:
        """A scale or translation of these axes alone, after one of channels where there is one."""
        before = {"scale": [1.0], "translation": [0.0]}[self.type] if channels else []
        numbers = self.scale if self.type == "scale" else self.translation
        return {"type": self.type, self.type: before + [numbers[axis] for axis in axes]}


Transformations = Annotated[tuple[Transformation, ...], Field(alias="coordinateTransformations")]


class Level(_Part):
    """An array of a pyramid."""

    path: str
    transformations: Transformations = ()


class Pyramid(_Part):
    """An image in several sizes, the largest first."""

    version: str | None = None
    axes: tuple[Axis, ...]
    datasets: Annotated[tuple[Level, ...], Field(min_length=1)]
    transformations: Transformations = ()


@dataclass(frozen=True)
class Frame:
    """An image, and what labels of it take over."""

    path: Path
    version: str
    pyramid: Pyramid

    @property
    def array(self) -> Path:
        """The folder of level 0."""
        return self.path / self.pyramid.datasets[0].path

    @property
    def names(self) -> list[str]:
        """Names of the axes."""
        return [axis.name for axis in self.pyramid.axes]


def is_zarr(path: Path) -> bool:
    """Whether a folder is zarr, and so one image, if any."""
    return path.is_dir() and (path.suffix == ".zarr" or any((path / sign).is_file() for sign in SIGNS))


def stem(path: Path) -> str:
    """The name of an image of any kind without what says of which."""
    ending = next((each for each in SUFFIXES if path.name.endswith(each) and path.name != each), None)
    return path.name.removesuffix(ending) if ending else path.stem


def read(path: Path) -> Frame:
    """What an image says of itself.

    Raises
    ------
    FileError
        It is no image of NGFF 0.4 or 0.5, or one of several: a plate, a series, or one with unknown axes.
    """
    said, version = _metadata(path)
    if "multiscales" not in said:
        raise FileError(f"{path}: {_instead(path, said)}")
    try:
        pyramid = Pyramid.model_validate(said["multiscales"][0])
    except (ValidationError, LookupError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, ("multiscales", 0, *first["loc"])))
        raise FileError(f"{path}: {where}: {first['msg']}; {CONVERT}") from error
    version = str(version or pyramid.version or "0.4")
    if FORMATS.get(version) != (3 if (path / "zarr.json").is_file() else 2):
        raise FileError(f"{path}: NGFF {version} is not read; {CONVERT}")
    frame = Frame(path, version, pyramid)
    _doubt(frame)
    return frame


def _metadata(path: Path) -> tuple[dict[str, Any], Any]:
    """The metadata of NGFF, and the version for all of it."""
    for name in ("zarr.json", ".zattrs"):
        if (path / name).is_file():
            said = files.read_json(path / name)
            for key in ("attributes", "ome") if name == "zarr.json" else ():
                said = said.get(key, {}) if isinstance(said, dict) else said
            if not isinstance(said, dict):
                raise FileError(f"{path / name}: no object with fields, as NGFF has it; {CONVERT}")
            return said, said.get("version")
    return {}, None


def _instead(path: Path, said: dict[str, Any]) -> str:
    """What a folder without an image is."""
    if "plate" in said:
        return "a plate of many images; name the fields, such as its A/1/0"
    if "well" in said:
        return "a well of many images; name the fields, such as its 0"
    if "bioformats2raw.layout" in said:
        return f"a series of images; name them: {path / '0'}, ..."
    return "it has no metadata called multiscales, so it is no OME-Zarr image; name the folder that has, or convert it"


def _doubt(frame: Frame) -> None:
    """Refuse axes and paths that are not understood."""
    pyramid, names = frame.pyramid, frame.names
    if names[-2:] != ["y", "x"] or len(set(names)) < len(names) or not set(names) <= set("tczyx"):
        raise FileError(
            f"{frame.path}: axes {', '.join(names) or 'none'}; segline reads t, c, z, y, x, the last two last"
        )
    parts = Path(pyramid.datasets[0].path).parts
    if not parts or ".." in parts or frame.array == Path(pyramid.datasets[0].path):
        raise FileError(f"{frame.path}: the path of level 0 is {pyramid.datasets[0].path!r}, not in the folder")
    for each in (*pyramid.transformations, *pyramid.datasets[0].transformations):
        if each.type != "identity" and len(getattr(each, each.type)) != len(names):
            raise FileError(f"{frame.path}: a {each.type} is not {len(names)} numbers, one for each axis; {CONVERT}")


def axes(frame: Frame, channels: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Axes y and x, after one of channels where asked for, and their transformations: of level 0, and of all."""
    found = ([Axis(name="c", type="channel")] if channels else []) + [
        axis.model_copy(update={"type": axis.type or "space"}) for axis in frame.pyramid.axes[-2:]
    ]
    levels = (frame.pyramid.datasets[0].transformations, frame.pyramid.transformations)
    own, all_of = ([each.picked((-2, -1), channels) for each in level if each.type != "identity"] for level in levels)
    scale: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0] * len(found)}]
    if not any(each["type"] == "scale" for each in own):  # it must be there, and first
        own = scale + own
    return [axis.model_dump(exclude_none=True) for axis in found], own, all_of


def md5(path: Path) -> str:
    """MD5 over the metadata and all files of level 0 with their names; FileError as in `read`."""
    digest = hashlib.md5()
    for file in _said(read(path)):
        with files.opened(file):
            digest.update(json.dumps([file.relative_to(path).as_posix(), files.md5(file)]).encode())
    return digest.hexdigest()


def _said(frame: Frame) -> Iterator[Path]:
    yield from (frame.path / sign for sign in SIGNS if (frame.path / sign).is_file())
    yield from sorted(file for file in frame.array.rglob("*") if file.is_file())


KEPT = 2**26  # bytes of decoded chunks that are kept for the next window
CHANNELS = 1024  # more than any camera has; a damaged number would fill the memory


class Chunks:
    """An open image."""

    def __init__(self, frame: Frame) -> None:
        """FileError where it is not read: the array is missing, or its axes, type or chunks are not as images have."""
        import zarr

        self._frame = frame
        if not frame.array.is_dir():
            raise FileError(f"{frame.path}: there is no array {frame.array.name!r}, its level 0; copy it anew")
        try:
            with headers.reading("OME-Zarr"):
                self._array: Array[Any] = zarr.open_array(
                    frame.array, mode="r", zarr_format=3 if FORMATS[frame.version] == 3 else 2
                )
            self._shape = tuple(self._array.shape)
            self._doubt()
        except ImageError as error:
            raise FileError(f"{frame.path}: {error}") from error
        self.height, self.width = self._shape[-2:]
        self._kept: OrderedDict[tuple[int, ...], Raw] = OrderedDict()

    def _doubt(self) -> None:
        names, array = self._frame.names, self._array
        if len(names) != len(self._shape):
            raise ImageError(f"{len(names)} axes ({', '.join(names)}) for an array of {len(self._shape)}; convert it")
        if array.dtype.kind not in "buif":
            raise ImageError(f"pixels of type {array.dtype}; convert them to whole or real numbers")
        for name, length in zip(names, self._shape, strict=True):
            if length < 1:
                raise ImageError(f"axis {name} is empty")
            if name in "tz" and length > 1:
                raise ImageError(f"axis {name} has a length of {length}; save each image of it as one OME-Zarr")
            if name == "c" and length > CHANNELS:
                raise ImageError(f"{length} channels; at most {CHANNELS} are read")
        size = int(np.prod(array.chunks, dtype=object)) * array.dtype.itemsize
        if size > headers.LARGEST:
            raise ImageError(f"chunks of {size / 2**30:.1f} GiB; write it with smaller ones, such as 1,024 x 1,024 px")

    def read(self, rows: slice, columns: slice) -> Raw:
        """Pixels (h, w, C) of these rows and columns, in one of the three types."""
        channels = self._shape[self._frame.names.index("c")] if "c" in self._frame.names else 1
        found = np.empty((channels, rows.stop - rows.start, columns.stop - columns.start), self._array.dtype)
        wanted = (slice(0, channels), rows, columns)
        sides = self._sides
        for index in itertools.product(*(_overlapping(*each) for each in zip(wanted, sides, strict=True))):
            chunk = self._chunk(index)
            target, source = [], []
            for part, number, side, length in zip(wanted, index, sides, chunk.shape, strict=True):
                first, last = max(part.start, number * side), min(part.stop, number * side + length)
                target.append(slice(first - part.start, last - part.start))
                source.append(slice(first - number * side, last - number * side))
            found[tuple(target)] = chunk[tuple(source)]
        return usual(np.moveaxis(found, 0, -1))

    @property
    def _sides(self) -> tuple[int, int, int]:
        """Of a chunk: channels, rows and columns."""
        chunks = dict(zip(self._frame.names, self._array.chunks, strict=True))
        return chunks.get("c", 1), chunks["y"], chunks["x"]

    def _chunk(self, index: tuple[int, ...]) -> npt.NDArray[Any]:
        """A chunk (C, h, w); those at the rim have only what is in the image."""
        if index not in self._kept:
            parts = {
                name: slice(n * side, (n + 1) * side) for name, n, side in zip("cyx", index, self._sides, strict=True)
            }
            where = tuple(parts.get(name, 0) for name in self._frame.names)
            try:
                with headers.reading("OME-Zarr"):
                    chunk = np.asarray(self._array[where])
            except ImageError as error:
                raise FileError(f"{self._frame.path}: chunk {index} of channels, rows, columns: {error}") from error
            self._kept[index] = chunk if chunk.ndim == 3 else chunk[np.newaxis]
        self._kept.move_to_end(index)
        while len(self._kept) > 1 and sum(chunk.nbytes for chunk in self._kept.values()) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[index]


def _overlapping(wanted: slice, side: int) -> range:
    """Numbers of the chunks along an axis that hold some of it."""
    return range(wanted.start // side, -(-wanted.stop // side))
