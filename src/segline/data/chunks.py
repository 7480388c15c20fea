"""Pixels of an OME-Zarr image by its chunks, the latest kept; a missing chunk is the fill value."""

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segline.data import ngff
from segline.data.files import FileError
from segline.model import headers
from segline.model.images import ImageError, Raw, usual

if TYPE_CHECKING:
    from zarr import Array

KEPT = 2**26  # bytes of decoded chunks that are kept for the next window
CHANNELS = 1024  # more than any camera has; a damaged number would fill the memory


class Chunks:
    """An open image."""

    def __init__(self, frame: ngff.Frame) -> None:
        """FileError where it is not read: the array is missing, or its axes, type or chunks are not as images have."""
        import zarr

        self._frame = frame
        if not frame.array.is_dir():
            raise FileError(f"{frame.path}: there is no array {frame.array.name!r}, its level 0; copy it anew")
        try:
            with headers.reading("OME-Zarr"):
                self._array: Array[Any] = zarr.open_array(
                    frame.array, mode="r", zarr_format=3 if ngff.FORMATS[frame.version] == 3 else 2
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
