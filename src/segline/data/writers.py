"""Write the prediction for an image as plain PNG or TIFF, GeoTIFF, tiled TIFF or OME-Zarr.

Tiled TIFF and OME-Zarr are written from the top down, one row of tiles or chunks in memory at a time.
"""

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from segline import files
from segline.data import imagefiles, omezarr
from segline.data.georeference import Tag, geotiff
from segline.data.sources import OpenImage, Readable
from segline.model.images import ImageError
from segline.model.objects import suffix
from segline.score.overlay import RGB, overlay

if TYPE_CHECKING:
    from zarr import Array, Group

SIDE = 512  # px; side of a tile or chunk
CLASSIC = 2**31  # largest size of the pixels in a classic TIFF, bytes; larger images become a BigTIFF
OVERLAY = 2048  # px, longer side of the overlay for an out-of-core or OME-Zarr image
SUFFIX = ".ome.zarr"
MARK, MADE = "segline", {"made_by": "segline predict"}  # the attribute that marks a folder as written by segline
_FOLDERS, _FILES = re.compile("c|[0-9]+"), re.compile(r"zarr\.json|\.z(group|attrs|array|metadata)|[0-9]+")

Rows = Callable[[slice], npt.NDArray[Any]]


class AnswerByRows(Protocol):
    """Prediction by a registered model version, in memory or out-of-core. `rows` selects rows of the upright image."""

    @property
    def has_instances(self) -> bool:
        """Whether the model version predicts instances."""

    def labels(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Return the class ids (h, W) in `rows`."""

    def instances(self, rows: slice) -> npt.NDArray[np.int32]:
        """Return the instance ids (h, W) in `rows`."""

    def probabilities(self, rows: slice) -> npt.NDArray[np.float32]:
        """Return the class probabilities (K, h, W) in `rows`."""

    @property
    def count(self) -> int:
        """Number of instances."""

    def encoded(self, kind: str) -> bytes | None:
        """Return the output `kind` of this prediction as an image file; None if the prediction is out-of-core.

        `kind` is "labels", "instances" or "probabilities".
        """


class Layer(NamedTuple):
    """Pixels of a prediction (labels, instances or probabilities), which are written row by row from the top."""

    rows: Rows
    """Function that returns the pixels of the rows in a slice: (h, W), or (K, h, W) for K planes."""
    shape: tuple[int, ...]
    """Shape of all pixels: (H, W), or (K, H, W) for K planes."""
    dtype: npt.DTypeLike


def write(stem: Path, kind: str, answer: AnswerByRows, image: OpenImage) -> Path:
    """Write the output `kind` of a prediction for `image` to the path `stem` plus a file suffix; return this path.

    `kind` is "labels", "instances", "probabilities" or "overlays". For an OME-Zarr image, the output is OME-Zarr.
    An out-of-core prediction becomes a tiled TIFF. A prediction in memory becomes a GeoTIFF if the image has a
    georeference. Without a georeference, the bytes from the model version are written unchanged.
    """
    encoded = answer.encoded(kind)
    if kind == "overlays":
        full_size = image.frame is None and answer.encoded("labels") is not None
        path = _path(stem, ".png")
        imagefiles.write_png(path, picture(image, answer, None if full_size else OVERLAY))
    elif image.frame is not None:
        path = _path(stem, SUFFIX)
        write_zarr(path, layer(kind, answer, image), image.frame, labels=kind != "probabilities")
    elif encoded is None:
        path = _path(stem, ".tif")
        write_tiled(path, layer(kind, answer, image), image.georeference)
    elif image.georeference:
        path = _path(stem, ".tif")
        rows, shape, dtype = layer(kind, answer, image)
        files.write_bytes(path, geotiff(rows(slice(0, shape[-2])).astype(dtype, copy=False), image.georeference))
    else:
        path = write_encoded(stem, encoded)
    return path


def write_encoded(stem: Path, encoded: bytes) -> Path:
    """Write an encoded PNG or TIFF to the path `stem` plus the suffix of the format; return this path."""
    path = _path(stem, suffix(encoded))
    files.write_bytes(path, encoded)
    return path


def _path(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)  # `with_suffix` would remove what follows a dot in the stem


def layer(kind: str, answer: AnswerByRows, image: OpenImage) -> Layer:
    """Return the pixels of the output `kind`, which is "labels", "instances" or "probabilities"."""
    size = (image.height, image.width)
    if kind == "labels":
        return Layer(answer.labels, size, np.uint8)
    if kind == "instances":
        dtype = np.uint16 if answer.count < 2**16 else np.int32
        return Layer(lambda rows: answer.instances(rows).astype(dtype), size, dtype)
    classes = len(answer.probabilities(slice(0, 1)))
    return Layer(answer.probabilities, (classes, *size), np.float32)


def picture(image: Readable, answer: AnswerByRows, longest: int | None = None) -> RGB:
    """Draw the outlines of the prediction over the image; `longest` limits the longer side of the picture, px.

    Raises
    ------
    ImageError
        The prediction differs in size from the upright image.
    """
    height, width = image.height, image.width
    step = min(math.ceil(max(height, width) / (longest or max(height, width))), height, width)
    if step == 1:
        rows, columns = slice(0, height), slice(0, width)
        objects = answer.instances(rows) if answer.has_instances else None
        return _outlined(image.read(rows, columns), answer.labels(rows), objects)
    bands = [slice(top, top + step) for top in range(0, height - step + 1, step)]
    wide = width // step
    middles = [slice(band.start + step // 2, band.start + step // 2 + 1) for band in bands]
    columns = slice(step // 2, wide * step, step)
    labels = np.concatenate([answer.labels(row)[:, columns] for row in middles])
    objects = np.concatenate([answer.instances(row)[:, columns] for row in middles]) if answer.has_instances else None
    return _outlined(np.stack([_shrunk(image, band, wide, step) for band in bands]), labels, objects)


def _outlined(pixels: npt.NDArray[Any], labels: npt.NDArray[Any], objects: npt.NDArray[Any] | None) -> RGB:
    if pixels.shape[:2] != labels.shape:
        raise ImageError(
            "the model version was registered by an earlier segline release, which ignores orientation tags; register "
            "the model again, or remove the orientation tag from the image"
        )
    return overlay(pixels, labels, objects=objects)


def _shrunk(image: Readable, rows: slice, wide: int, step: int) -> npt.NDArray[np.float32]:
    """Return the mean of each square block of pixels in a band of rows, as an array (number of blocks, C).

    A block has sides of `step` px; `wide` is the number of blocks.
    """
    pixels = image.read(rows, slice(0, wide * step)).astype(np.float32)
    means: npt.NDArray[np.float32] = pixels.reshape(step, wide, step, -1).mean(axis=(0, 2))
    return means


def write_tiled(path: Path, layer: Layer, georeference: list[Tag]) -> None:
    """Write a TIFF atomically, in tiles of 512 px with deflate compression. K planes become an image of K channels."""
    import tifffile

    rows, shape, dtype = layer
    planes = shape[0] if len(shape) == 3 else 1
    options: dict[str, Any] = {"planarconfig": "separate"} if planes > 1 else {}
    if np.dtype(dtype).kind == "f":
        options["predictor"] = True
    with files.partial(path) as temporary:
        tifffile.imwrite(
            temporary,
            _tiles(rows, shape, planes),
            shape=shape if planes > 1 else shape[-2:],
            dtype=dtype,
            tile=(SIDE, SIDE),
            photometric="minisblack",
            compression="zlib",
            bigtiff=int(np.prod(shape)) * np.dtype(dtype).itemsize > CLASSIC,
            metadata=None,
            extratags=georeference,
            maxworkers=1,
            **options,
        )


def _tiles(rows: Rows, shape: tuple[int, ...], planes: int) -> Iterator[npt.NDArray[Any]]:
    """Yield the tiles of each plane, row by row; tiles at the right and bottom edges are padded."""
    height, width = shape[-2:]
    for plane in range(planes):
        for top in range(0, height, SIDE):
            band = rows(slice(top, min(top + SIDE, height)))
            band = band[plane] if band.ndim == 3 else band
            for left in range(0, width, SIDE):
                tile = band[:, left : left + SIDE]
                padding = [(0, SIDE - tile.shape[0]), (0, SIDE - tile.shape[1])]
                yield np.ascontiguousarray(np.pad(tile, padding) if any(map(any, padding)) else tile)


def write_zarr(path: Path, layer: Layer, frame: omezarr.Frame, *, labels: bool) -> None:
    """Write an OME-Zarr image atomically, in chunks of 512 px. `frame` gives the NGFF version.

    Each further level has every second row and column of the level before, until one chunk holds the whole level.
    Values are not averaged, because they may be ids. K planes become K channels.

    Parameters
    ----------
    frame : metadata of the predicted image.
    labels : whether the values are ids.
    """
    import zarr

    rows, shape, dtype = layer
    form = omezarr.FORMATS[frame.version]
    axes, own, all_of = omezarr.axes(frame, channels=len(shape) == 3)
    options: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    if form == 3:
        options = {"dimension_names": [axis["name"] for axis in axes]}
    with files.whole_folder(path) as folder:
        group = zarr.create_group(folder, zarr_format=3 if form == 3 else 2)
        arrays = [_filled(group, "0", rows, shape, dtype=np.dtype(dtype), **options)]
        while max(arrays[-1].shape[-2:]) > SIDE:
            height, width = arrays[-1].shape[-2:]
            half = (*shape[:-2], -(-height // 2), -(-width // 2))
            level = _filled(group, str(len(arrays)), _halved(arrays[-1]), half, dtype=np.dtype(dtype), **options)
            arrays.append(level)
        levels = [
            {"path": array.basename, "coordinateTransformations": [_scaled(change, 2**number) for change in own]}
            for number, array in enumerate(arrays)
        ]
        pyramid = {"name": omezarr.stem(path), "axes": axes, "datasets": levels}
        content: dict[str, Any] = {"multiscales": [pyramid | ({"coordinateTransformations": all_of} if all_of else {})]}
        if labels:
            content["image-label"] = {"source": {"image": Path(os.path.relpath(frame.path, path)).as_posix()}}
        group.attrs.update(_versioned(content, frame.version) | {MARK: MADE})


def check_own_zarr(path: Path) -> None:
    """Refuse to replace a folder that `write_zarr` did not write.

    Raises
    ------
    FileError
        The folder holds a foreign file or a link, or its metadata does not name segline as its writer.
    """
    if path.is_dir() and not path.is_symlink() and not _is_ours(path):
        raise files.FileError(
            f"{path}: segline did not write this folder, or the folder was changed later; move the folder away, or "
            "give another folder with --out"
        )


def remove_zarr(path: Path) -> None:
    """Remove an OME-Zarr image that `write_zarr` wrote; leave any other folder in place and raise FileError."""
    check_own_zarr(path)
    shutil.rmtree(path)


def _is_ours(path: Path) -> bool:
    """Return whether a folder is marked in its metadata as written by segline, and holds only zarr files."""
    if not _is_marked(path / "zarr.json") and not _is_marked(path / ".zattrs"):
        return False
    for place, folders, names in os.walk(path):
        if not all(map(_FOLDERS.fullmatch, folders)) or not all(map(_FILES.fullmatch, names)):
            return False
        if any((Path(place) / name).is_symlink() for name in (*folders, *names)):
            return False
    return True


def _is_marked(metadata: Path) -> bool:
    if metadata.is_symlink() or not metadata.is_file():
        return False
    try:
        content = files.read_json(metadata)
    except files.FileError:
        return False
    attributes = content.get("attributes") if isinstance(content, dict) and metadata.name == "zarr.json" else content
    return isinstance(attributes, dict) and attributes.get(MARK) == MADE


def _filled(group: "Group", name: str, rows: Rows, shape: tuple[int, ...], **options: Any) -> "Array[Any]":
    """Create a chunked array in a zarr group and fill the array from the top down."""
    array = group.create_array(name, shape=shape, chunks=(1, SIDE, SIDE)[-len(shape) :], fill_value=0, **options)
    for top in range(0, shape[-2], SIDE):
        part = slice(top, min(top + SIDE, shape[-2]))
        array[..., part, :] = rows(part)
    return array


def _halved(array: "Array[Any]") -> Rows:
    """Return a function that reads every second row and column of `array`, one plane at a time."""

    def rows(part: slice) -> npt.NDArray[Any]:
        double = slice(2 * part.start, min(2 * part.stop, array.shape[-2]))
        planes = [np.asarray(array[(*plane, double)])[::2, ::2] for plane in np.ndindex(array.shape[:-2])]
        return np.stack(planes) if array.ndim == 3 else planes[0]

    return rows


def _scaled(transformation: dict[str, Any], by: int) -> dict[str, Any]:
    """Adapt a scale or translation of level 0 to a level whose pixels are larger by the factor `by`.

    A translation is returned unchanged, because the first pixel keeps its position.
    """
    if transformation["type"] != "scale":
        return transformation
    *channels, y, x = transformation["scale"]
    return {"type": "scale", "scale": [*channels, by * y, by * x]}


def _versioned(content: dict[str, Any], version: str) -> dict[str, Any]:
    """Return the metadata with the NGFF version added: to each part for NGFF 0.4, only once for NGFF 0.5."""
    if version == "0.4":
        content["multiscales"][0]["version"] = version
        if "image-label" in content:
            content["image-label"]["version"] = version
        return content
    return {"ome": {"version": version} | content}
