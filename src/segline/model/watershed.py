"""A watershed that reads an image a few rows at a time; the objects do not depend on the number of rows per read.

From each pixel, the steepest uphill path along 4-connected pixels leads to a peak, and the pixel belongs to this peak
(a watershed cut; Cousty, Bertrand, Najman and Couprie 2009). Among pixels of equal height, the first pixel, row by row,
is taken as the highest. A saddle (pass) is the highest point where the areas of two peaks touch. A peak that rises by
no more than a given step above the saddle to a higher peak is not a separate object. It joins the object on the other
side of that saddle (extended maxima; Soille 2003, ch. 6.3.5). The step may grow with the height of the peak, so that
small and large objects are treated alike.
"""

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .headers import ImageError

BAND = 2**22  # number of pixels in a band; a band is a group of rows that are processed together
LISTED = 2**16  # number of saddles that are converted at once from arrays to Python integers
LARGEST_ID = np.iinfo(np.int32).max

Ids = npt.NDArray[np.int32]
Heights = npt.NDArray[np.int32]


def bands(stop: int, width: int, start: int = 0) -> Iterator[slice]:
    """Divide the image rows `start` to `stop` into bands (groups of consecutive rows) of about `BAND` pixels each."""
    rows = max(1, BAND // width)
    for top in range(start, stop, rows):
        yield slice(top, min(top + rows, stop))


def check_count(count: int) -> int:
    """Return `count`; raise ImageError if `count` exceeds the range of int32."""
    if count > LARGEST_ID:
        raise ImageError(f"the image has more than {LARGEST_ID} separate parts; cut the image into smaller images")
    return count


class Passes(NamedTuple):
    """Pairs of ids of neighbouring regions, and the height of the saddle (highest point of contact) of each pair."""

    first: Ids
    second: Ids
    height: Heights


class Land(NamedTuple):
    """Preliminary object ids of some pixels, and the values of these pixels in the height map."""

    ids: Ids
    heights: Heights


class LastRow(NamedTuple):
    """Last row of a band, and the columns in which uphill paths continue into the next band."""

    land: Land
    downward: npt.NDArray[np.intp]


class Watershed:
    """Watershed objects of a height map. Call `add` for each group of rows, from top to bottom."""

    def __init__(self) -> None:
        self._count = 0
        self._heights: list[Heights] = [np.zeros(1, np.int32)]
        """For each id, the height of the pixel where the uphill paths end (a peak) or leave the band."""
        self._onward: list[tuple[Ids, Ids]] = []
        """Pairs of arrays: ids of uphill paths that leave a band, and ids of the same paths in the other band."""
        self._passes: list[Passes] = []
        self._last: LastRow | None = None

    def add(self, heights: Heights) -> Ids:
        """Return preliminary ids (h, W) of the next rows; 0 is background. One object may get several ids.

        `objects` merges the ids of each object.

        Parameters
        ----------
        heights : (h + 2, W), the band with one row above and one row below. Background and pixels outside the image
            are negative.

        Raises
        ------
        ImageError
            There are more ids than int32 can count.
        """
        inside, own = heights[1:-1] >= 0, heights[1:-1]
        uphill = _uphill(heights)
        ends = _ends(uphill, inside)
        summits = np.flatnonzero(inside.ravel() & (ends == np.arange(ends.size)))
        numbers = np.zeros(ends.size, np.int32)
        numbers[summits] = np.arange(self._count + 1, self._count + 1 + summits.size)
        self._count = check_count(self._count + summits.size)
        ids: Ids = numbers[ends].reshape(own.shape)
        self._heights.append(own.ravel()[summits])
        self._join(ids, own, uphill)
        self._passes.append(
            _highest(
                _touching(Land(ids[:, :-1], own[:, :-1]), Land(ids[:, 1:], own[:, 1:])),
                _touching(Land(ids[:-1], own[:-1]), Land(ids[1:], own[1:])),
            )
        )
        return ids

    def _join(self, ids: Ids, own: Heights, uphill: Ids) -> None:
        """Connect the uphill paths that cross the border between the previous band of rows and this band."""
        width = ids.shape[1]
        if self._last is not None:
            above, downward = self._last
            upward = np.flatnonzero((uphill[0] == -width) & (ids[0] > 0))
            self._onward.append((ids[0, upward], above.ids[upward]))
            self._onward.append((above.ids[downward], ids[0, downward]))
            self._passes.append(_highest(_touching(above, Land(ids[0], own[0]))))
        leaving = np.flatnonzero((uphill[-1] == width) & (ids[-1] > 0))
        self._last = LastRow(Land(ids[-1].copy(), own[-1].copy()), leaving)

    def objects(self, step: int, lowest: int = 0, neck: float = 0.0) -> Ids:
        """Return, for each preliminary id, the lowest preliminary id in the same object.

        Parameters
        ----------
        step : a peak that rises by more than `step` above the saddle to a higher peak is a separate object.
        neck : the rise must also exceed this fraction of the peak's height above `lowest`.
        lowest : a peak below this height joins the object beyond its highest saddle, if there is a saddle. All other
            peaks are separate objects if their saddle is below this height.
        """
        peaks = np.arange(self._count + 1, dtype=np.int32)
        for leaving, onward in self._onward:
            peaks[leaving] = onward
        peaks = _followed(peaks)
        between_peaks = (Passes(peaks[p.first], peaks[p.second], p.height) for p in self._passes)
        return _merged(np.concatenate(self._heights), _highest(*between_peaks), step, lowest, neck)[peaks]


def _uphill(heights: Heights) -> npt.NDArray[np.int32]:
    """Return, for each pixel (h, W), the index of the highest neighbour minus the pixel's own index; 0 at a peak."""
    width = heights.shape[1]
    padded = np.pad(heights, ((0, 0), (1, 1)), constant_values=-1)
    highest, change = padded[:-2, 1:-1].copy(), np.full((heights.shape[0] - 2, width), -width, np.int32)
    # Neighbours are compared in index order, so that the first of several equally high neighbours is chosen.
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
    """Follow the uphill path from each pixel to the end of the path, or to where the path leaves this band.

    Return, for each pixel (h * W,), the index of the last pixel of its path in this band.
    """
    height, width = uphill.shape
    change = np.where(inside, uphill, 0)
    change[0, change[0] == -width] = 0
    change[-1, change[-1] == width] = 0
    return _followed((np.arange(height * width, dtype=np.int32).reshape(height, width) + change).ravel())


def _followed(pointers: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Follow `pointers` (index -> next index) to the end; return, for each index, the last index that is reached."""
    while True:
        further = pointers[pointers]
        if np.array_equal(further, pointers):
            return further
        pointers = further


def _touching(land: Land, shifted: Land) -> Passes:
    """Return one saddle for each pixel whose region in `land` differs from its region in `shifted`."""
    meet = (land.ids != shifted.ids) & (land.ids > 0) & (shifted.ids > 0)
    return Passes(land.ids[meet], shifted.ids[meet], np.minimum(land.heights[meet], shifted.heights[meet]))


def _highest(*passes: Passes) -> Passes:
    """Keep only the highest saddle of each pair of regions; sort the ids within each pair, and then the pairs."""
    first_ids, second_ids, height = (np.concatenate(parts) for parts in zip(*passes, strict=True))
    pairs = np.minimum(first_ids, second_ids).astype(np.int64) << 32 | np.maximum(first_ids, second_ids)
    order = np.lexsort((-height, pairs))
    pairs, height = pairs[order], height[order]
    first = np.ones(pairs.size, bool)
    first[1:] = pairs[1:] != pairs[:-1]
    low, high = (pairs[first] >> 32).astype(np.int32), (pairs[first] & 0xFFFFFFFF).astype(np.int32)
    between = low != high
    return Passes(low[between], high[between], height[first][between])


def _merged(heights: Heights, passes: Passes, step: int, lowest: int, neck: float) -> Ids:
    """Merge peaks into objects; return, for each peak's preliminary id, the lowest preliminary id in the same object.

    The result also has entries for all other preliminary ids; these entries are not valid.

    Think of a sea that falls from the highest saddle to the lowest. Each saddle joins two islands, and the highest peak
    of an island represents the island. If the lower of these two peaks rises by no more than `step` above the saddle,
    or by no more than the fraction `neck` of its height above `lowest`, the whole island of the lower peak joins the
    object on the other side of the saddle. A saddle below `lowest` joins only a peak below `lowest`.
    """
    peaks, islands, objects = array("i", heights.tolist()), *(array("i", range(heights.size)) for _ in range(2))
    for left, right, height in _from_the_highest(passes):
        higher, lower = _root(islands, left), _root(islands, right)
        if higher == lower:
            continue
        if (peaks[higher], lower) < (peaks[lower], higher):
            higher, lower = lower, higher
        islands[lower] = higher
        rise = max(step, neck * (peaks[lower] - lowest))
        if peaks[lower] < lowest or (height >= lowest and peaks[lower] - height <= rise):
            first, second = sorted((_root(objects, left), _root(objects, right)))
            objects[second] = first
    return _followed(np.array(objects, np.int32))


def _from_the_highest(passes: Passes) -> Iterator[tuple[int, int, int]]:
    order = np.lexsort((passes.second, passes.first, -passes.height))
    for start in range(0, order.size, LISTED):
        some = order[start : start + LISTED]
        yield from zip(*(part[some].tolist() for part in passes), strict=True)


def _root(parents: "array[int]", number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number
