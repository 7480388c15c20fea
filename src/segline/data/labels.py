"""Work with images of class ids or instance ids. Large arrays are processed in strips to save memory."""

from collections.abc import Iterator
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[Any]  # (H, W), any integer type

STRIP = 1 << 19  # pixels in a strip, so few that intermediate results fit the processor's cache


def strips(shape: tuple[int, ...], pixels: int = STRIP) -> Iterator[slice]:
    """Divide an array (H, W, ...) into strips of rows. A strip has at most `pixels` pixels, but at least one row."""
    height, width = shape[:2]
    rows = max(1, pixels // max(1, width))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def parts(length: int, most: int, step: int = 1) -> list[slice]:
    """Divide an axis of `length` elements into parts of about equal size, each with at most `most` elements.

    Each part starts at a multiple of `step`, which divides `most`.
    """
    assert most % step == 0
    size = -(-length // -(-length // most)) if length else most
    size += -size % step
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def grown(part: slice, margin: int, length: int) -> tuple[slice, slice]:
    """Extend `part` by `margin` on both sides; return the longer part, and the position of `part` in the longer part.

    The extended part stays inside the axis.
    """
    start = max(0, part.start - margin)
    return slice(start, min(part.stop + margin, length)), slice(part.start - start, part.stop - start)


def components(classes: Labels, ignore: int | None = None, connectivity: Literal[4, 8] = 4) -> npt.NDArray[np.int32]:
    """Turn each connected component of a class other than background into an instance; return the instance ids.

    Parameters
    ----------
    classes : (H, W) class ids, 0 = background.
    ignore : class id without instances.
    connectivity : 8 connects diagonal neighbours, 4 does not.

    Returns
    -------
    (H, W) int32; 0 = background or ignored. Instances are numbered 1..n, class by class, and within a class row by row.
    """
    instances = np.zeros(classes.shape, np.int32)
    count = 0
    for class_id in ids(classes):
        if class_id == ignore:
            continue
        mask = (classes == class_id).view(np.uint8)
        left, top, width, height = cv2.boundingRect(mask)
        box = slice(top, top + height), slice(left, left + width)
        count_here, pieces = cv2.connectedComponents(mask[box], connectivity=connectivity)
        for rows in strips((height, width)):
            part = pieces[rows]
            instances[box][rows] += np.where(part > 0, part + np.int32(count), 0)
        count += count_here - 1
    return instances


def foreground(classes: Labels, ignore: int | None = None) -> npt.NDArray[np.bool_]:
    """Return a mask (H, W) of the pixels that are neither background nor ignored."""
    inside = classes > 0
    return inside if ignore is None else inside & (classes != ignore)


def ids(labels: Labels) -> npt.NDArray[np.int64]:
    """Return the ids above 0 that occur in `labels` (H, W), in ascending order.

    Raises
    ------
    ValueError
        An id is below 0.
    """
    highest = _highest(labels)
    if highest > _table_limit(labels):
        ids_of_strips = [np.unique(labels[rows]) for rows in strips(labels.shape)]
        return np.setdiff1d(np.concatenate(ids_of_strips).astype(np.int64), 0)
    present = np.zeros(highest + 1, bool)
    for rows in strips(labels.shape):
        present[labels[rows]] = True
    return np.flatnonzero(present[1:]) + 1


def areas(labels: Labels, length: int) -> npt.NDArray[np.int64]:
    """Count the pixels of each id in `labels` (H, W); return an array (`length`,). All ids must be below `length`."""
    total = np.zeros(length, np.int64)
    for rows in strips(labels.shape):
        counts = np.bincount(labels[rows].ravel())
        total[: counts.size] += counts
    return total


def renumber(instances: Labels) -> tuple[npt.NDArray[np.int32], int]:
    """Renumber instances to 1..n in the order of the old ids; return the new ids (H, W) and n.

    Parameters
    ----------
    instances : (H, W) ids, 0 = background; ids need not be consecutive, and can be huge.

    Raises
    ------
    ValueError
        An id is below 0.
    """
    old_ids = ids(instances)
    numbers = np.empty(instances.shape, np.int32)
    if old_ids.size and old_ids[-1] > _table_limit(instances):
        known = np.array([0, *old_ids])
        for rows in strips(instances.shape):
            numbers[rows] = np.searchsorted(known, instances[rows])
        return numbers, old_ids.size
    table = np.zeros(int(old_ids[-1]) + 1 if old_ids.size else 1, np.int32)
    table[old_ids] = np.arange(1, old_ids.size + 1)
    for rows in strips(instances.shape):
        numbers[rows] = table[instances[rows]]
    return numbers, old_ids.size


def _highest(labels: Labels) -> int:
    lowest = int(labels.min(initial=0))
    if lowest < 0:
        raise ValueError(f"the array of instance ids contains {lowest}; ids must be 0 (background) or greater")
    return int(labels.max(initial=0))


def _table_limit(labels: Labels) -> int:
    """Return the highest id for which a lookup table may be used: the number of pixels, but at least 65,536."""
    return max(labels.size, 1 << 16)
