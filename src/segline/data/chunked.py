"""OME-Zarr images written from the top down, a row of chunks in memory at a time, with smaller copies to look at."""

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segline import files
from segline.data import omezarr
from segline.data.tiled import SIDE, Rows

if TYPE_CHECKING:
    from zarr import Array, Group

SUFFIX = ".ome.zarr"
MARK, MADE = "segline", {"made_by": "segline predict"}  # an attribute by which a folder is known to be segline's
_FOLDERS, _FILES = re.compile("c|[0-9]+"), re.compile(r"zarr\.json|\.z(group|attrs|array|metadata)|[0-9]+")


def write_chunked(
    path: Path, rows: Rows, shape: tuple[int, ...], dtype: npt.DTypeLike, frame: omezarr.Frame, *, labels: bool
) -> None:
    """Write an OME-Zarr image of the version of `frame`, in chunks of 512 px; whole or not at all.

    Each further level has every second row and column of the one before, until one chunk holds it: ids are not mixed.

    Parameters
    ----------
    rows : gives some rows of it, (h, W), or (K, h, W) of planes.
    shape : (H, W), or (K, H, W), which become K channels.
    frame : the image that it lies over.
    labels : whether its numbers are ids.
    """
    import zarr

    form = omezarr.FORMATS[frame.version]
    axes, own, all_of = omezarr.axes(frame, channels=len(shape) == 3)
    options: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    if form == 3:
        options = {"dimension_names": [axis["name"] for axis in axes]}
    with files.whole_folder(path) as folder:
        group = zarr.create_group(folder, zarr_format=3 if form == 3 else 2)
        arrays = [_written(group, "0", rows, shape, dtype=np.dtype(dtype), **options)]
        while max(arrays[-1].shape[-2:]) > SIDE:
            height, width = arrays[-1].shape[-2:]
            half = (*shape[:-2], -(-height // 2), -(-width // 2))
            level = _written(group, str(len(arrays)), _halved(arrays[-1]), half, dtype=np.dtype(dtype), **options)
            arrays.append(level)
        levels = [
            {"path": array.basename, "coordinateTransformations": [_scaled(each, 2**number) for each in own]}
            for number, array in enumerate(arrays)
        ]
        pyramid = {"name": omezarr.stem(path), "axes": axes, "datasets": levels}
        said: dict[str, Any] = {"multiscales": [pyramid | ({"coordinateTransformations": all_of} if all_of else {})]}
        if labels:
            said["image-label"] = {"source": {"image": Path(os.path.relpath(frame.path, path)).as_posix()}}
        group.attrs.update(_versioned(said, frame.version) | {MARK: MADE})


def doubt_folder(path: Path) -> None:
    """Refuse to replace a folder that is not an OME-Zarr image as `write_chunked` writes it.

    Raises
    ------
    FileError
        The folder holds anything else, even one file or link, or its metadata does not say that segline wrote it.
    """
    if path.is_dir() and not path.is_symlink() and not _is_ours(path):
        raise files.FileError(
            f"{path}: this folder is in the way, and segline did not write it as it is; move it away, or name another "
            "folder as --out"
        )


def remove(path: Path) -> None:
    """Remove an OME-Zarr image that `write_chunked` wrote; FileError, and nothing is removed, where it is none."""
    doubt_folder(path)
    shutil.rmtree(path)


def _is_ours(path: Path) -> bool:
    """Whether the metadata says so, and there is nothing below but zarr's own files and folders of chunks."""
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
        said = files.read_json(metadata)
    except files.FileError:
        return False
    attributes = said.get("attributes") if isinstance(said, dict) and metadata.name == "zarr.json" else said
    return isinstance(attributes, dict) and attributes.get(MARK) == MADE


def _written(group: "Group", name: str, rows: Rows, shape: tuple[int, ...], **options: Any) -> "Array[Any]":
    """An array of a group, in chunks, filled from the top."""
    array = group.create_array(name, shape=shape, chunks=(1, SIDE, SIDE)[-len(shape) :], fill_value=0, **options)
    for top in range(0, shape[-2], SIDE):
        part = slice(top, min(top + SIDE, shape[-2]))
        array[..., part, :] = rows(part)
    return array


def _halved(array: "Array[Any]") -> Rows:
    """Every second row and column, as `write_chunked` asks for rows; a plane of it is in memory at a time."""

    def rows(part: slice) -> npt.NDArray[Any]:
        double = slice(2 * part.start, min(2 * part.stop, array.shape[-2]))
        planes = [np.asarray(array[(*plane, double)])[::2, ::2] for plane in np.ndindex(array.shape[:-2])]
        return np.stack(planes) if array.ndim == 3 else planes[0]

    return rows


def _scaled(transformation: dict[str, Any], by: int) -> dict[str, Any]:
    """A transformation of level 0 for one whose pixels are as large as so many of its; the first one stays in place."""
    if transformation["type"] != "scale":
        return transformation
    *channels, y, x = transformation["scale"]
    return {"type": "scale", "scale": [*channels, by * y, by * x]}


def _versioned(said: dict[str, Any], version: str) -> dict[str, Any]:
    """NGFF 0.4 has its version in each of its parts, 0.5 over all of them."""
    if version == "0.4":
        said["multiscales"][0]["version"] = version
        if "image-label" in said:
            said["image-label"]["version"] = version
        return said
    return {"ome": {"version": version} | said}
