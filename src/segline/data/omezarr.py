"""Read OME-Zarr images (NGFF 0.4 and 0.5): metadata with axes and scale, and pixels chunk by chunk."""

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
SIGNS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")  # a zarr folder has at least one of these files
FORMATS = {"0.4": 2, "0.5": 3}  # NGFF version -> zarr format
CONVERT = "convert the image to NGFF 0.4 or 0.5"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class ZarrAxis(_Part):
    """Axis of an OME-Zarr array: name, type and unit."""

    name: str
    type: str | None = None
    unit: str | None = None


class Transformation(_Part):
    """Transformation from pixel indices to positions: a scale or translation (one number per axis) or identity."""

    type: Literal["scale", "translation", "identity"]
    scale: tuple[float, ...] = ()
    translation: tuple[float, ...] = ()

    def picked(self, axes: tuple[int, ...], channels: bool) -> dict[str, Any]:
        """Return the scales or the translations of `axes`.

        If `channels` is True, the first number is for a channel axis: scale 1 or translation 0.
        """
        before = {"scale": [1.0], "translation": [0.0]}[self.type] if channels else []
        numbers = self.scale if self.type == "scale" else self.translation
        return {"type": self.type, self.type: before + [numbers[axis] for axis in axes]}


Transformations = Annotated[tuple[Transformation, ...], Field(alias="coordinateTransformations")]


class Level(_Part):
    """One resolution level of a pyramid."""

    path: str
    transformations: Transformations = ()


class Pyramid(_Part):
    """Image at several resolutions, from fine to coarse."""

    version: str | None = None
    axes: tuple[ZarrAxis, ...]
    datasets: Annotated[tuple[Level, ...], Field(min_length=1)]
    transformations: Transformations = ()


@dataclass(frozen=True)
class Frame:
    """Path and metadata of an OME-Zarr image. Predictions for the image get the same NGFF version, axes and scale."""

    path: Path
    version: str
    pyramid: Pyramid

    @property
    def array(self) -> Path:
        """Folder of level 0, which is the array with the full resolution."""
        return self.path / self.pyramid.datasets[0].path

    @property
    def names(self) -> list[str]:
        """Names of the axes."""
        return [axis.name for axis in self.pyramid.axes]


def is_zarr(path: Path) -> bool:
    """Return whether a path is a zarr folder. segline treats such a folder as one image."""
    return path.is_dir() and (path.suffix == ".zarr" or any((path / sign).is_file() for sign in SIGNS))


def stem(path: Path) -> str:
    """Return the name of an image file or OME-Zarr folder without its suffix."""
    ending = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix) and path.name != suffix), None)
    return path.name.removesuffix(ending) if ending else path.stem


def read(path: Path) -> Frame:
    """Read the metadata of an OME-Zarr image.

    Raises
    ------
    FileError
        The folder is not an image of NGFF 0.4 or 0.5, holds several images (a plate or a series), or has unknown axes.
    """
    content, version = _metadata(path)
    if "multiscales" not in content:
        raise FileError(f"{path}: {_advice(path, content)}")
    try:
        pyramid = Pyramid.model_validate(content["multiscales"][0])
    except (ValidationError, LookupError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, ("multiscales", 0, *first["loc"])))
        raise FileError(f"{path}: metadata field {where}: {first['msg']}; {CONVERT}") from error
    version = str(version or pyramid.version or "0.4")
    if FORMATS.get(version) != (3 if (path / "zarr.json").is_file() else 2):
        raise FileError(f"{path}: NGFF {version} is not supported; {CONVERT}")
    frame = Frame(path, version, pyramid)
    _check(frame)
    return frame


def _metadata(path: Path) -> tuple[dict[str, Any], Any]:
    """Return the NGFF metadata, and the NGFF version at the top level of the metadata (None if there is no version)."""
    for name in ("zarr.json", ".zattrs"):
        if (path / name).is_file():
            content = files.read_json(path / name)
            for key in ("attributes", "ome") if name == "zarr.json" else ():
                content = content.get(key, {}) if isinstance(content, dict) else content
            if not isinstance(content, dict):
                raise FileError(f"{path / name}: the metadata is not a JSON object, but NGFF demands one; {CONVERT}")
            return content, content.get("version")
    return {}, None


def _advice(path: Path, content: dict[str, Any]) -> str:
    """Say what the folder contains instead of an image, and which folder the user should name."""
    if "plate" in content:
        return "the folder is a plate of many images; name the folders of its fields, such as A/1/0"
    if "well" in content:
        return "the folder is a well of many images; name the folders of its fields, such as 0"
    if "bioformats2raw.layout" in content:
        return f"the folder is a series of images; name the folders of its images, such as {path / '0'}"
    return (
        "the folder has no metadata field multiscales, so it is not an OME-Zarr image; name the folder that has this "
        "field, or convert the image"
    )


def _check(frame: Frame) -> None:
    """Refuse unsupported axes, paths that leave the folder, and transformations of the wrong length.

    A transformation needs one number for each axis.
    """
    pyramid, names = frame.pyramid, frame.names
    if names[-2:] != ["y", "x"] or len(set(names)) < len(names) or not set(names) <= set("tczyx"):
        raise FileError(
            f"{frame.path}: the axes are {', '.join(names) or 'none'}; segline reads only t, c, z, y and x, and the "
            "last two axes must be y and x"
        )
    parts = Path(pyramid.datasets[0].path).parts
    if not parts or ".." in parts or frame.array == Path(pyramid.datasets[0].path):
        raise FileError(
            f"{frame.path}: the path of level 0, {pyramid.datasets[0].path!r}, leads out of the folder; "
            "move level 0 into the folder, and correct the path in the metadata"
        )
    for change in (*pyramid.transformations, *pyramid.datasets[0].transformations):
        if change.type != "identity" and len(getattr(change, change.type)) != len(names):
            raise FileError(
                f"{frame.path}: a {change.type} must have {len(names)} numbers, one for each axis; {CONVERT}"
            )


def axes(frame: Frame, channels: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return three lists: the axes, the transformations of level 0, and the transformations common to all levels.

    The axes are y and x. If `channels` is true, the channel axis comes before them.
    """
    kept = ([ZarrAxis(name="c", type="channel")] if channels else []) + [
        axis.model_copy(update={"type": axis.type or "space"}) for axis in frame.pyramid.axes[-2:]
    ]
    levels = (frame.pyramid.datasets[0].transformations, frame.pyramid.transformations)
    own, all_of = (
        [change.picked((-2, -1), channels) for change in level if change.type != "identity"] for level in levels
    )
    scale: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0] * len(kept)}]
    if not any(change["type"] == "scale" for change in own):  # NGFF requires that a scale is the first transformation
        own = scale + own
    return [axis.model_dump(exclude_none=True) for axis in kept], own, all_of


def md5(path: Path) -> str:
    """Return a single MD5 that covers the metadata, and the names and contents of all files of level 0.

    The function raises FileError as `read` does.
    """
    digest = hashlib.md5()
    for file in _content(read(path)):
        with files.opened(file):
            digest.update(json.dumps([file.relative_to(path).as_posix(), files.md5(file)]).encode())
    return digest.hexdigest()


def _content(frame: Frame) -> Iterator[Path]:
    yield from (frame.path / sign for sign in SIGNS if (frame.path / sign).is_file())
    yield from sorted(file for file in frame.array.rglob("*") if file.is_file())


KEPT = 2**26  # bytes of decoded chunks that are kept for the next window
CHANNELS = 1024  # more than any camera has; a higher number is a damaged one, and reading could exhaust the memory


class Chunks:
    """Reader of the pixels of an OME-Zarr image; keeps the latest decoded chunks in memory."""

    def __init__(self, frame: Frame) -> None:
        """Open the array; raise FileError if the array is missing or has unsupported axes, values or chunks."""
        import zarr

        self._frame = frame
        if not frame.array.is_dir():
            raise FileError(f"{frame.path}: the array {frame.array.name!r} (level 0) is missing; copy the image again")
        try:
            with headers.reading("OME-Zarr"):
                self._array: Array[Any] = zarr.open_array(
                    frame.array, mode="r", zarr_format=3 if FORMATS[frame.version] == 3 else 2
                )
            self._shape = tuple(self._array.shape)
            self._check()
        except ImageError as error:
            raise FileError(f"{frame.path}: {error}") from error
        self.height, self.width = self._shape[-2:]
        self._kept: OrderedDict[tuple[int, ...], Raw] = OrderedDict()

    def _check(self) -> None:
        names, array = self._frame.names, self._array
        if len(names) != len(self._shape):
            raise ImageError(
                f"the metadata declare {len(names)} axes ({', '.join(names)}), but the array has "
                f"{len(self._shape)} axes; {CONVERT}"
            )
        if array.dtype.kind not in "buif":
            raise ImageError(f"pixels of type {array.dtype} are not supported; convert them to integers or floats")
        for name, length in zip(names, self._shape, strict=True):
            if length < 1:
                raise ImageError(f"axis {name} is empty")
            if name in "tz" and length > 1:
                raise ImageError(
                    f"axis {name} has a length of {length}, but only 1 is supported; save each image as a separate "
                    f"OME-Zarr"
                )
            if name == "c" and length > CHANNELS:
                raise ImageError(f"the image has {length} channels; segline reads at most {CHANNELS}")
        size = int(np.prod(array.chunks, dtype=object)) * array.dtype.itemsize
        if size > headers.LARGEST:
            raise ImageError(f"a chunk has {size / 2**30:.1f} GiB; write smaller chunks, such as 1,024 x 1,024 px")

    def read(self, rows: slice, columns: slice) -> Raw:
        """Read the pixels (h, w, C) in `rows` and `columns` as uint8, uint16 or float32."""
        channels = self._shape[self._frame.names.index("c")] if "c" in self._frame.names else 1
        pixels = np.empty((channels, rows.stop - rows.start, columns.stop - columns.start), self._array.dtype)
        window = (slice(0, channels), rows, columns)
        sides = self._sides
        for index in itertools.product(*map(_overlapping, window, sides)):
            chunk = self._chunk(index)
            target, source = [], []
            for part, number, side, length in zip(window, index, sides, chunk.shape, strict=True):
                first, last = max(part.start, number * side), min(part.stop, number * side + length)
                target.append(slice(first - part.start, last - part.start))
                source.append(slice(first - number * side, last - number * side))
            pixels[tuple(target)] = chunk[tuple(source)]
        return usual(np.moveaxis(pixels, 0, -1))

    @property
    def _sides(self) -> tuple[int, int, int]:
        """Number of channels, rows and columns in a chunk."""
        chunks = dict(zip(self._frame.names, self._array.chunks, strict=True))
        return chunks.get("c", 1), chunks["y"], chunks["x"]

    def _chunk(self, index: tuple[int, ...]) -> npt.NDArray[Any]:
        """Read a chunk (C, h, w), or take it from memory. A chunk that reaches beyond the image is cut at the edge."""
        if index not in self._kept:
            parts = {
                name: slice(n * side, (n + 1) * side) for name, n, side in zip("cyx", index, self._sides, strict=True)
            }
            where = tuple(parts.get(name, 0) for name in self._frame.names)
            try:
                with headers.reading("OME-Zarr"):
                    chunk = np.asarray(self._array[where])
            except ImageError as error:
                raise FileError(f"{self._frame.path}: chunk {index} (channel, row, column): {error}") from error
            self._kept[index] = chunk if chunk.ndim == 3 else chunk[np.newaxis]
        self._kept.move_to_end(index)
        while len(self._kept) > 1 and sum(chunk.nbytes for chunk in self._kept.values()) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[index]


def _overlapping(window: slice, side: int) -> range:
    """Return the indices of the chunks that overlap `window` along one axis."""
    return range(window.start // side, -(-window.stop // side))
