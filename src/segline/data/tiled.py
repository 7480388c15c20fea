"""Tiled TIFF files written from the top down, a row of tiles in memory at a time; the georeference of an image kept."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segline.data.georeference import Tag
from segline.files import partial

SIDE = 512  # px, of a tile
CLASSIC = 2**31  # bytes of pixels up to which the file is a classic TIFF; above a BigTIFF

Rows = Callable[[slice], npt.NDArray[Any]]


def write_tiled(path: Path, rows: Rows, shape: tuple[int, ...], dtype: npt.DTypeLike, georeference: list[Tag]) -> None:
    """Write an image as a TIFF of tiles of 512 px, compressed by deflate; whole or not at all.

    Parameters
    ----------
    rows : gives some rows of it, (h, W), or (K, h, W) of planes.
    shape : (H, W), or (K, H, W), which become K planes of one picture.
    """
    import tifffile

    planes = shape[0] if len(shape) == 3 else 1
    options: dict[str, Any] = {"planarconfig": "separate"} if planes > 1 else {}
    if np.dtype(dtype).kind == "f":
        options["predictor"] = True
    with partial(path) as temporary:
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
    """The tiles plane by plane, from the top left on; tifffile fills those at the rim up."""
    height, width = shape[-2:]
    for plane in range(planes):
        for top in range(0, height, SIDE):
            band = rows(slice(top, min(top + SIDE, height)))
            band = band[plane] if band.ndim == 3 else band
            for left in range(0, width, SIDE):
                tile = band[:, left : left + SIDE]
                padding = [(0, SIDE - tile.shape[0]), (0, SIDE - tile.shape[1])]
                yield np.ascontiguousarray(np.pad(tile, padding) if any(map(any, padding)) else tile)
