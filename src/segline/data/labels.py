"""Label images in classes and instances, and the strips and parts in which large arrays are processed."""

from collections.abc import Iterator
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

STRIP = 1 << 19  # pixels in a strip: what is worked out for one stays in the processor's cache


def strips(shape: tuple[int, ...], pixels: int = STRIP) -> Iterator[slice]:
    """The rows of an array (H, W, ...), as many at a time as hold `pixels` at most, but one at least."""
    height, width = shape[:2]
    rows = max(1, pixels // max(1, width))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def parts(length: int, most: int, step: int = 1) -> list[slice]:
    """An axis in parts of about one size, `most` at most; all begin at a multiple of `step`, which divides `most`."""
    assert most % step == 0
    size = -(-length // -(-length // most)) if length else most
    size += -size % step
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def grown(part: slice, margin: int, length: int) -> tuple[slice, slice]:
    """`part` of an axis with a margin on both sides where there is room, and where in that the part lies."""
    start = max(0, part.start - margin)
    return slice(start, min(part.stop + margin, length)), slice(part.start - start, part.stop - start)


Labels = npt.NDArray[Any]  # (H, W), any integer type


def components(classes: Labels, ignore: int | None = None, connectivity: Literal[4, 8] = 4) -> npt.NDArray[np.int32]:
    """Return the connected components of each class but the background as instances.

    Parameters
    ----------
    classes : (H, W) class ids, 0 = background.
    ignore : class id that belongs to no instance.
    connectivity : whether diagonal neighbours are connected (8) or not (4).

    Returns
    -------
    (H, W) int32, 0 = background and ignored, else 1..n: class by class, row by row within a class.
    """
    instances = np.zeros(classes.shape, np.int32)
    count = 0
    for class_id in ids(classes):
        if class_id == ignore:
            continue
        mask = (classes == class_id).view(np.uint8)
        left, top, width, height = cv2.boundingRect(mask)
        box = slice(top, top + height), slice(left, left + width)
        found, pieces = cv2.connectedComponents(mask[box], connectivity=connectivity)
        for rows in strips((height, width)):
            part = pieces[rows]
            instances[box][rows] += np.where(part > 0, part + np.int32(count), 0)
        count += found - 1
    return instances


def foreground(classes: Labels, ignore: int | None = None) -> npt.NDArray[np.bool_]:
    """(H, W) bool: neither background nor ignored."""
    inside = classes > 0
    return inside if ignore is None else inside & (classes != ignore)


def ids(labels: Labels) -> npt.NDArray[np.int64]:
    """Return the ids above 0 that `labels` (H, W) hold, ascending.

    Raises
    ------
    ValueError
        An id is below 0.
    """
    highest = _highest(labels)
    if highest > _table_limit(labels):
        found = [np.unique(labels[rows]) for rows in strips(labels.shape)]
        return np.setdiff1d(np.concatenate(found).astype(np.int64), 0)
    present = np.zeros(highest + 1, bool)
    for rows in strips(labels.shape):
        present[labels[rows]] = True
    return np.flatnonzero(present[1:]) + 1


def areas(labels: Labels, length: int) -> npt.NDArray[np.int64]:
    """(`length`,) int64: how many pixels of `labels` (H, W) hold id 0, 1, ..., of which none is `length` or above."""
    total = np.zeros(length, np.int64)
    for rows in strips(labels.shape):
        counts = np.bincount(labels[rows].ravel())
        total[: counts.size] += counts
    return total


def renumber(instances: Labels) -> tuple[npt.NDArray[np.int32], int]:
    """Return the instances numbered 1..n in the order of their ids, and n.

    Parameters
    ----------
    instances : (H, W) ids, 0 = background; they may have gaps and be huge.

    Raises
    ------
    ValueError
        An id is below 0.
    """
    found = ids(instances)
    numbers = np.empty(instances.shape, np.int32)
    if found.size and found[-1] > _table_limit(instances):
        known = np.array([0, *found])
        for rows in strips(instances.shape):
            numbers[rows] = np.searchsorted(known, instances[rows])
        return numbers, found.size
    table = np.zeros(int(found[-1]) + 1 if found.size else 1, np.int32)
    table[found] = np.arange(1, found.size + 1)
    for rows in strips(instances.shape):
        numbers[rows] = table[instances[rows]]
    return numbers, found.size


def _highest(labels: Labels) -> int:
    lowest = int(labels.min(initial=0))
    if lowest < 0:
        raise ValueError(f"instances hold id {lowest}; 0 is background, ids are above it")
    return int(labels.max(initial=0))


def _table_limit(labels: Labels) -> int:
    """The highest id for which a table of all ids is no larger than the image."""
    return max(labels.size, 1 << 16)
