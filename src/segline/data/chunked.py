"""OME-Zarr images written from the top down, a row of chunks in memory at a time; the scale of an image kept."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segline.data import files, ngff
from segline.data.tiled import SIDE, Rows

SUFFIX = ".ome.zarr"


def write_chunked(
    path: Path, rows: Rows, shape: tuple[int, ...], dtype: npt.DTypeLike, frame: ngff.Frame, *, labels: bool
) -> None:
    """Write an OME-Zarr image of one level, of the version of `frame`, in chunks of 512 px; whole or not at all.

    Parameters
    ----------
    rows : gives some rows of it, (h, W), or (K, h, W) of planes.
    shape : (H, W), or (K, H, W), which become K channels.
    frame : the image that it lies over.
    labels : whether its numbers are ids.
    """
    import zarr

    form = ngff.FORMATS[frame.version]
    axes, own, all_of = ngff.axes(frame, channels=len(shape) == 3)
    options: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    if form == 3:
        options = {"dimension_names": [axis["name"] for axis in axes]}
    with files.whole_folder(path) as folder:
        group = zarr.create_group(folder, zarr_format=3 if form == 3 else 2)
        array = group.create_array(
            "0", shape=shape, chunks=(1, SIDE, SIDE)[-len(shape) :], dtype=np.dtype(dtype), fill_value=0, **options
        )
        for top in range(0, shape[-2], SIDE):
            part = slice(top, min(top + SIDE, shape[-2]))
            array[..., part, :] = rows(part)
        pyramid = {"name": ngff.stem(path), "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": own}]}
        said: dict[str, Any] = {"multiscales": [pyramid | ({"coordinateTransformations": all_of} if all_of else {})]}
        if labels:
            said["image-label"] = {"source": {"image": Path(os.path.relpath(frame.path, path)).as_posix()}}
        group.attrs.update(_versioned(said, frame.version))


def _versioned(said: dict[str, Any], version: str) -> dict[str, Any]:
    """NGFF 0.4 has its version in each of its parts, 0.5 over all of them."""
    if version == "0.4":
        said["multiscales"][0]["version"] = version
        if "image-label" in said:
            said["image-label"]["version"] = version
        return said
    return {"ome": {"version": version} | said}
