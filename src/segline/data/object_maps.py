"""Compute the object map: the target of a network's second output, by which touching objects are told apart."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import cv2
import numpy as np
import numpy.typing as npt

from segline.data.labels import Labels, ids, renumber, strips

FULL = 255  # value of the deepest pixel of an object
BAND = 1 << 22  # pixels in a band of rows that is computed at once


def object_map(instances: Labels) -> npt.NDArray[np.uint8]:
    """Return the object map (H, W): `FULL` at the deepest pixel of each object, near 0 at its border, 0 outside.

    The value of a pixel is its distance to the nearest pixel outside its object, divided by the largest such distance
    in the object. So all objects have the same height, whatever their size. The border of the image is no border of an
    object.

    Parameters
    ----------
    instances : (H, W) instance ids, 0 = background, in any numbering.
    """
    return np.concatenate([*object_map_bands(lambda: instances)])


def object_map_bands(read: Callable[[], Labels]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the object map of an image as groups of consecutive rows.

    `read` returns the instances, which may be memory-mapped. It is called for each group of rows, so that the memory of
    the group before is freed. Only the rows of the group, and of the objects in them, are read.
    """
    shape = read().shape
    boxes = Boxes.of(read)
    for rows in strips(shape, BAND):
        yield _band(read(), rows, boxes.touching(rows))


class Boxes(NamedTuple):
    """Ids of all objects of an image, and the rows and columns of each: from `top` to before `bottom`, and so on."""

    number: npt.NDArray[np.int64]
    top: npt.NDArray[np.int64]
    bottom: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]

    @classmethod
    def of(cls, read: Callable[[], Labels]) -> Self:
        """Find the boxes, reading one strip of rows at a time."""
        parts = np.array([box for rows in strips(read().shape, BAND) for box in _boxes(read()[rows], rows.start)])
        if not parts.size:
            return cls(*np.zeros((5, 0), np.int64))
        number, top, bottom, left, right = parts[np.argsort(parts[:, 0], kind="stable")].T
        first = np.flatnonzero(np.diff(number, prepend=-1))  # an object in several strips has several parts
        lowest, highest = np.minimum.reduceat, np.maximum.reduceat
        return cls(
            number[first], lowest(top, first), highest(bottom, first), lowest(left, first), highest(right, first)
        )

    def touching(self, rows: slice) -> Self:
        """Return the boxes of the objects that have pixels in `rows`."""
        inside = (self.top < rows.stop) & (self.bottom > rows.start)
        return type(self)(*(values[inside] for values in self))


def _boxes(instances: Labels, start: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield id, top, bottom, left and right of each object in a strip of rows that begins at row `start`."""
    from scipy.ndimage import find_objects  # late, because the import takes long

    numbers, _ = renumber(instances)
    for number, box in zip(ids(instances).tolist(), find_objects(numbers), strict=True):
        rows, columns = box
        yield number, start + rows.start, start + rows.stop, columns.start, columns.stop


def _band(instances: Labels, rows: slice, boxes: Boxes) -> npt.NDArray[np.uint8]:
    """Return the object map of `rows`; `boxes` are those of the objects in them."""
    result = np.zeros((rows.stop - rows.start, instances.shape[1]), np.uint8)
    for number, top, bottom, left, right in zip(*(values.tolist() for values in boxes), strict=True):
        high, wide = slice(max(0, top - 1), bottom + 1), slice(max(0, left - 1), right + 1)
        inside = instances[high, wide] == number
        kept = slice(max(high.start, rows.start), min(high.start + len(inside), rows.stop))
        own = slice(kept.start - high.start, kept.stop - high.start)
        target = result[kept.start - rows.start : kept.stop - rows.start, wide]
        target[inside[own]] = _heights(inside)[own][inside[own]]
    return result


def _heights(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return the object map of one object: the True pixels of `inside`, which has a margin except at image borders."""
    if inside.all():
        return np.full(inside.shape, FULL, np.uint8)
    distance = cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    heights: npt.NDArray[np.uint8] = np.rint(distance * (FULL / distance.max())).astype(np.uint8)
    return heights
