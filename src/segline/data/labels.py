"""Truth as classes and instances: objects from classes, and the gap between instances that touch."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[Any]  # (H, W), any integer type
Pixels = npt.NDArray[np.intp]  # positions in the flattened image

_FORWARD = ((0, 1), (1, -1), (1, 0), (1, 1))  # half of the eight neighbours: every pair of pixels is met once


def components(classes: Labels, ignore: int | None = None) -> npt.NDArray[np.int32]:
    """Return the 4-connected components of each class but the background as instances.

    Parameters
    ----------
    classes : (H, W) class ids, 0 = background.
    ignore : class id that belongs to no instance.

    Returns
    -------
    (H, W) int32, 0 = background and ignored, else 1..n: class by class, row by row within a class.
    """
    instances = np.zeros(classes.shape, np.int32)
    count = 0
    for class_id in np.unique(classes):
        if class_id in (0, ignore):
            continue
        found, labels = cv2.connectedComponents((classes == class_id).astype(np.uint8), connectivity=4)
        instances = np.where(labels > 0, labels + count, instances).astype(np.int32)
        count += found - 1
    return instances


def separate(classes: Labels, instances: Labels, ignore: int | None = None) -> npt.NDArray[np.uint8]:
    """Return the classes with background between touching (8-neighbour) instances of one class.

    The instances are served in turn, those with the fewest untouched pixels first; each keeps the pixels that touch no
    instance served before. So the gap is one pixel wide, lies in the thicker of two instances, and no pixel of it could
    be given back. Where an instance would lose all its pixels, the others make room for one of them; only where there
    is no room (two instances of one pixel each, say) does it vanish. Separating twice changes nothing more.

    Parameters
    ----------
    classes : (H, W) class ids, 0 = background, at most 255.
    instances : (H, W) instance ids, 0 = background, in any numbering; an instance may be in several pieces. Pixels of
        class 0 or `ignore` are part of none.
    ignore : class id that stays as it is.

    Raises
    ------
    ValueError
        The arrays differ in shape, hold no integers, or hold ids out of range.
    """
    _check(classes, instances)
    separated = np.array(classes, np.uint8)
    cells, count = renumber(np.where(foreground(separated, ignore), instances, 0))
    first, second = _touching(separated, cells)
    if first.size:
        separated[_gap(separated, cells, count, first, second)] = 0
    return separated


def foreground(classes: Labels, ignore: int | None = None) -> npt.NDArray[np.bool_]:
    """(H, W) bool: neither background nor ignored."""
    inside = classes > 0
    return inside if ignore is None else inside & (classes != ignore)


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
    lowest, highest = int(instances.min(initial=0)), int(instances.max(initial=0))
    if lowest < 0:
        raise ValueError(f"instances hold id {lowest}; 0 is background, ids are above it")
    if highest > max(instances.size, 1 << 16):  # the table below would be larger than the image
        ids, inverse = np.unique(instances, return_inverse=True)
        skipped = int(ids[0] != 0)
        return (inverse.reshape(instances.shape) + skipped).astype(np.int32), ids.size - 1 + skipped
    present = np.zeros(highest + 1, bool)
    present[instances] = True
    present[0] = False
    numbers = np.cumsum(present, dtype=np.int32) * present
    return numbers[instances], int(numbers.max())


def _check(classes: Labels, instances: Labels) -> None:
    if classes.shape != instances.shape or classes.ndim != 2:
        raise ValueError(f"classes {classes.shape} and instances {instances.shape} must be one (H, W)")
    for name, array in (("classes", classes), ("instances", instances)):
        if array.dtype.kind not in "ui":
            raise ValueError(f"{name} are {array.dtype}; give integer ids")
    for id_ in (int(classes.min(initial=0)), int(classes.max(initial=0))):
        if not 0 <= id_ <= 255:
            raise ValueError(f"classes hold id {id_}; ids go from 0 to 255")


def _touching(classes: npt.NDArray[np.uint8], cells: npt.NDArray[np.int32]) -> tuple[Pixels, Pixels]:
    """The pairs of neighbouring pixels of one class in two cells."""
    height, width = cells.shape
    positions: list[tuple[Pixels, Pixels]] = []
    for dy, dx in _FORWARD:
        one = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        other = (slice(dy, height), slice(max(0, dx), width - max(0, -dx)))
        a, b = cells[one], cells[other]
        y, x = np.nonzero((a != b) & (a > 0) & (b > 0) & (classes[one] == classes[other]))
        start = y * width + x + max(0, -dx)
        positions.append((start, start + dy * width + dx))
    return np.concatenate([p for p, _ in positions]), np.concatenate([q for _, q in positions])


def _gap(
    classes: npt.NDArray[np.uint8], cells: npt.NDArray[np.int32], count: int, first: Pixels, second: Pixels
) -> npt.NDArray[np.bool_]:
    """(H, W) bool: the pixels that make way, given the touching pairs."""
    owner = cells.ravel()
    touched = np.zeros(owner.size, bool)
    touched[first] = touched[second] = True
    area = np.bincount(owner, minlength=count + 1)
    untouched = np.bincount(owner[~touched], minlength=count + 1)
    rank = np.empty(count + 1, np.intp)
    rank[np.lexsort((area, untouched))] = np.arange(count + 1)
    later = rank[owner[first]] > rank[owner[second]]
    first, second = np.where(later, second, first), np.where(later, first, second)

    protected: list[int] = []
    while True:
        gone = _make_room(classes, cells, sorted(protected, key=lambda cell: (area[cell], cell)), first, second)
        _serve(gone, first, second)
        left = np.bincount(owner[~gone], minlength=count + 1)
        lost = np.setdiff1d(np.flatnonzero(left == 0), [0, *protected])
        if lost.size == 0:
            return gone.reshape(cells.shape)
        protected += lost.tolist()


def _serve(gone: npt.NDArray[np.bool_], first: Pixels, second: Pixels) -> None:
    """Add to `gone` the pixels that touch a kept pixel of a cell served before; `first` is served before `second`.

    Instead of cell by cell, all pixels that wait for no other are kept at once, until none waits: the same outcome.
    """
    while True:
        undecided = ~(gone[first] | gone[second])
        first, second = first[undecided], second[undecided]
        if first.size == 0:
            return
        waiting = np.zeros(gone.size, bool)
        waiting[second] = True
        gone[second[~waiting[first]]] = True


def _make_room(
    classes: npt.NDArray[np.uint8],
    cells: npt.NDArray[np.int32],
    protected: Sequence[int],
    first: Pixels,
    second: Pixels,
) -> npt.NDArray[np.bool_]:
    """(H * W) bool: what makes way so that each protected cell, in turn, keeps the pixel that costs others least."""
    height, width = cells.shape
    gone = np.zeros((height, width), bool)
    if not protected:
        return gone.ravel()
    cost = np.bincount(np.concatenate([first, second]), minlength=cells.size)
    by_cell = np.argsort(cells, axis=None, kind="stable")
    starts = np.searchsorted(cells.ravel()[by_cell], np.arange(cells.max() + 2))
    for cell in protected:
        pixels = by_cell[starts[cell] : starts[cell + 1]]
        free = pixels[~gone.ravel()[pixels]]
        if free.size:
            y, x = divmod(int(free[np.argmin(cost[free])]), width)
            around = (slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2))
            gone[around] |= (cells[around] > 0) & (cells[around] != cell) & (classes[around] == classes[y, x])
    return gone.ravel()
