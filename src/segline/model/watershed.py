"""A watershed that looks at an image some rows at a time; the objects are the same however many rows those are.

Each pixel belongs to the peak to which the steepest way up leads, from side to side of pixels (a watershed cut; Cousty,
Bertrand, Najman and Couprie 2009). Of pixels of one height the one that comes first, row by row, counts as the higher.
A peak that rises by no more than a step above the pass to a higher one belongs to the object across that pass (extended
maxima; Soille 2003, ch. 6.3.5).
"""

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .numbering import Ids, counted

LISTED = 2**16  # passes that are Python's numbers at once

Heights = npt.NDArray[np.int32]


class Passes(NamedTuple):
    """Where two ids meet, and the height of the way across."""

    one: Ids
    other: Ids
    height: Heights


class Land(NamedTuple):
    """The ids and heights of some pixels."""

    ids: Ids
    heights: Heights


class Last(NamedTuple):
    """The last row that was seen, and the columns in which ways leave it downward."""

    row: Land
    downward: npt.NDArray[np.intp]


class Watershed:
    """The objects of a landscape that is handed over from the top, some rows at a time."""

    def __init__(self) -> None:
        self._count = 0
        self._heights: list[Heights] = [np.zeros(1, np.int32)]
        """By id, of the pixel at which it was given: a peak, or the last one on a way up that leaves the rows."""
        self._onward: list[tuple[Ids, Ids]] = []
        """Ids of ways that leave their rows, and the ids where they go on."""
        self._passes: list[Passes] = []
        self._last: Last | None = None

    def add(self, heights: Heights) -> Ids:
        """Ids (h, W) of the next rows, not yet of objects; 0 outside of all.

        Parameters
        ----------
        heights : (h + 2, W), with the row above and the row below; negative outside of all objects, and of the image.

        Raises
        ------
        ImageError
            There are more ids than numbers.
        """
        inside, own = heights[1:-1] >= 0, heights[1:-1]
        uphill = _uphill(heights)
        ends = _ends(uphill, inside)
        found = np.flatnonzero(inside.ravel() & (ends == np.arange(ends.size)))
        numbers = np.zeros(ends.size, np.int32)
        numbers[found] = np.arange(self._count + 1, self._count + 1 + found.size)
        self._count = counted(self._count + found.size)
        ids: Ids = numbers[ends].reshape(own.shape)
        self._heights.append(own.ravel()[found])
        self._join(ids, own, uphill)
        self._passes.append(
            _highest(
                _met(Land(ids[:, :-1], own[:, :-1]), Land(ids[:, 1:], own[:, 1:])),
                _met(Land(ids[:-1], own[:-1]), Land(ids[1:], own[1:])),
            )
        )
        return ids

    def _join(self, ids: Ids, own: Heights, uphill: Ids) -> None:
        """Let ways go on from the rows before into these, and the other way round."""
        width = ids.shape[1]
        if self._last is not None:
            above, downward = self._last
            upward = np.flatnonzero((uphill[0] == -width) & (ids[0] > 0))
            self._onward.append((ids[0, upward], above.ids[upward]))
            self._onward.append((above.ids[downward], ids[0, downward]))
            self._passes.append(_highest(_met(above, Land(ids[0], own[0]))))
        leaving = np.flatnonzero((uphill[-1] == width) & (ids[-1] > 0))
        self._last = Last(Land(ids[-1].copy(), own[-1].copy()), leaving)

    def objects(self, step: int) -> Ids:
        """By id, the lowest id of its object.

        Parameters
        ----------
        step : a peak that rises more than this above the pass to a higher one is an object.
        """
        peaks = np.arange(self._count + 1, dtype=np.int32)
        for leaving, onward in self._onward:
            peaks[leaving] = onward
        peaks = _followed(peaks)
        passes = _highest(*(Passes(peaks[each.one], peaks[each.other], each.height) for each in self._passes))
        return _merged(np.concatenate(self._heights), passes, step)[peaks]


def _uphill(heights: Heights) -> npt.NDArray[np.int32]:
    """By how much the index of a pixel (h, W) changes towards the highest beside it; 0 at a peak."""
    width = heights.shape[1]
    padded = np.pad(heights, ((0, 0), (1, 1)), constant_values=-1)
    highest, change = padded[:-2, 1:-1].copy(), np.full((heights.shape[0] - 2, width), -width, np.int32)
    # In the order of their indices, so that of equal ones the first stays.
    for neighbour, by in (
        (padded[1:-1, :-2], -1),
        (padded[1:-1, 1:-1], 0),
        (padded[1:-1, 2:], 1),
        (padded[2:, 1:-1], width),
    ):
        higher = neighbour > highest
        np.copyto(highest, neighbour, where=higher)
        change[higher] = by
    return change


def _ends(uphill: npt.NDArray[np.int32], inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """By index of a pixel (h * W,), the index of the last pixel of its way up within these rows."""
    height, width = uphill.shape
    change = np.where(inside, uphill, 0)
    change[0, change[0] == -width] = 0
    change[-1, change[-1] == width] = 0
    return _followed((np.arange(height * width, dtype=np.int32).reshape(height, width) + change).ravel())


def _followed(pointers: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Where each way ends whose every step `pointers` name."""
    while True:
        further = pointers[pointers]
        if np.array_equal(further, pointers):
            return further
        pointers = further


def _met(one: Land, other: Land) -> Passes:
    """Where pixels of two ids touch; the arrays of `other` lie a pixel further."""
    meet = (one.ids != other.ids) & (one.ids > 0) & (other.ids > 0)
    return Passes(one.ids[meet], other.ids[meet], np.minimum(one.heights[meet], other.heights[meet]))


def _highest(*found: Passes) -> Passes:
    """The highest pass of each two ids, once, the lower id first, in the order of the ids."""
    one, other, height = (np.concatenate(parts) for parts in zip(*found, strict=True))
    pairs = np.minimum(one, other).astype(np.int64) << 32 | np.maximum(one, other)
    order = np.lexsort((-height, pairs))
    pairs, height = pairs[order], height[order]
    first = np.ones(pairs.size, bool)
    first[1:] = pairs[1:] != pairs[:-1]
    low, high = (pairs[first] >> 32).astype(np.int32), (pairs[first] & 0xFFFFFFFF).astype(np.int32)
    between = low != high
    return Passes(low[between], high[between], height[first][between])


def _merged(heights: Heights, passes: Passes, step: int) -> Ids:
    """By id of a peak, the lowest id of its object.

    As if the sea fell: from the highest pass to the lowest two islands join, each known by its highest peak. If the
    lower one of these rises by no more than `step`, no other peak of its island does, and all of the island goes to the
    object on the other side of the pass.
    """
    peaks, islands, objects = array("i", heights.tolist()), *(array("i", range(heights.size)) for _ in range(2))
    for one, other, height in _from_the_highest(passes):
        higher, lower = _root(islands, one), _root(islands, other)
        if higher == lower:
            continue
        if (peaks[higher], lower) < (peaks[lower], higher):
            higher, lower = lower, higher
        islands[lower] = higher
        if peaks[lower] - height <= step:
            first, second = sorted((_root(objects, one), _root(objects, other)))
            objects[second] = first
    return _followed(np.array(objects, np.int32))


def _from_the_highest(passes: Passes) -> Iterator[tuple[int, int, int]]:
    order = np.lexsort((passes.other, passes.one, -passes.height))
    for start in range(0, order.size, LISTED):
        some = order[start : start + LISTED]
        yield from zip(*(part[some].tolist() for part in passes), strict=True)


def _root(parents: "array[int]", each: int) -> int:
    while parents[each] != each:
        parents[each] = parents[parents[each]]
        each = parents[each]
    return each
