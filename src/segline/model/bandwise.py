"""Find objects in an out-of-core image: find parts of objects in bands of rows, then join parts across bands.

The objects are the same as those of `objects.find`, which works on the whole image at once.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from .maps import Maps, Show
from .objects import LOWEST, Heights, Separation, core, distances, heights, learned, reach, steps
from .watershed import Ids, Watershed, bands, check_count

MARGIN = 64  # number of rows above and below a band that are searched first for the nearest background

Kinds = npt.NDArray[np.uint8]


class Table(NamedTuple):
    """Result of `find`: for each preliminary id (the id of a part of an object), the object number and the class."""

    total: int
    """Number of objects."""
    objects: Ids
    """For each preliminary id, the object number, from 1; 0 is background."""
    classes: Kinds
    """For each preliminary id, the most frequent class among the pixels of the object."""


class Sums:
    """Values of each object: number of pixels, sum of background probabilities, first pixel, pixels of each class."""

    def __init__(self, count: int, classes: int) -> None:
        self.area = np.zeros(count, np.int64)
        self.background = np.zeros(count)  # sum of the background probabilities of each object's pixels
        self.first = np.full(count, -1)  # index of each object's first pixel; pixels are numbered row by row
        self.votes = np.zeros((count, classes), np.int64)  # number of pixels of each class in each object

    def add(self, ids: Ids, places: npt.NDArray[np.int64], labels: Kinds, background: npt.NDArray[np.float32]) -> None:
        """Add the values of some pixels to the sums of the objects that contain these pixels.

        Each argument has one entry for each pixel: object, index in the image, class, background probability.
        """
        self.area += np.bincount(ids, minlength=self.area.size)
        # np.add.at adds one pixel after another. So the sums are bit-identical to the sums for an image in memory.
        np.add.at(self.background, ids, background.astype(np.float64))
        np.add.at(self.votes.reshape(-1), ids.astype(np.int64) * self.votes.shape[1] + labels, 1)
        fresh = np.flatnonzero(self.first[ids] < 0)[::-1]
        self.first[ids[fresh]] = places[fresh]  # if an id occurs twice, numpy keeps the last value


def find(maps: Maps, separation: Separation, show: Show) -> Table:
    """Find the objects; write preliminary ids into `maps`, and return the object and class of each preliminary id.

    Raises
    ------
    ImageError
        The image has more components than int32 can count.
    """
    maps.create_ids()

    def write(rows: slice, ids: Ids) -> None:
        maps.write_ids(rows, ids)
        maps.release()
        show("finding objects, rows", rows.stop, maps.height)

    if separation.depth is None:
        component = numbered(maps.labels, maps.height, maps.width, write)
    else:
        watershed = Watershed()
        for rows in bands(maps.height, maps.width):
            write(rows, watershed.add(_landscape(maps, rows, separation.heights)))
        component = watershed.objects(steps(separation.depth), LOWEST, separation.neck)
    lowest, dense = np.unique(component, return_inverse=True)
    sums = _count(maps, dense.astype(np.int32), len(lowest), show)
    probability = 1 - sums.background / np.maximum(sums.area, 1)
    kept = np.flatnonzero((sums.area >= separation.min_area) & (probability >= separation.min_probability))
    kept = kept[(kept > 0) & (sums.area[kept] > 0)]
    numbers, classes = np.zeros(len(lowest), np.int32), np.zeros(len(lowest), np.uint8)
    numbers[kept[np.argsort(sums.first[kept])]] = np.arange(1, kept.size + 1)
    classes[kept] = sums.votes[kept].argmax(axis=1)
    return Table(kept.size, numbers[dense], classes[dense])


def numbered(kinds: Callable[[slice], Kinds], height: int, width: int, write: Callable[[slice, Ids], None]) -> Ids:
    """Give preliminary ids to the pixels of an image (`height`, `width`); no two components share an id.

    Parameters
    ----------
    kinds : function that returns one small number for each pixel of some rows, as an array (h, W). 0 is background.
        4-connected pixels with the same number are a component.
    write : function that receives the ids of some rows.

    Returns
    -------
    For each preliminary id, the lowest preliminary id in the same component; 0 is background.
    """
    count, joined = 0, dict[int, int]()
    above: tuple[Kinds, Ids] | None = None
    for rows in bands(height, width):
        kind = kinds(rows)
        ids, count = _components(kind, count)
        if above is not None:
            same = (above[0] == kind[0]) & (kind[0] > 0)
            for pair in np.unique(np.stack([above[1][same], ids[0][same]]), axis=1).T.tolist():
                _join(joined, *pair)
        above = kind[-1].copy(), ids[-1].copy()
        write(rows, ids)
    component = np.arange(count + 1, dtype=np.int32)
    for number in sorted(joined):
        component[number] = component[joined[number]]
    return component


def _components(kind: Kinds, count: int) -> tuple[Ids, int]:
    """Give each component in a band of rows an id, from `count` + 1 on; return the pixel ids and the highest id."""
    ids = np.zeros(kind.shape, np.int32)
    for value in range(1, int(kind.max(initial=0)) + 1):
        mask = (kind == value).view(np.uint8)
        total, pieces = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
        np.add(pieces, count, out=ids, where=pieces > 0)
        count = check_count(count + total - 1)
    return ids, count


def _join(joined: dict[int, int], first: int, second: int) -> None:
    """Join two components by an entry in `joined`; each entry maps an id to a lower id of the same component.

    The lowest id of a component has no entry.
    """
    low, high = sorted((_lowest(joined, first), _lowest(joined, second)))
    if low < high:
        joined[high] = low


def _lowest(joined: dict[int, int], number: int) -> int:
    while (lower := joined.get(number)) is not None:
        joined[number] = joined.get(lower, lower)
        number = lower
    return number


def _landscape(maps: Maps, rows: slice, kind: Heights) -> npt.NDArray[np.int32]:
    """Return the height map of `rows` and of one row above and below; rows outside the image have height -1."""
    around = slice(max(0, rows.start - 1), min(maps.height, rows.stop + 1))
    if kind == "distance":
        ground = heights(_distances(maps, around), maps.probabilities(around), maps.labels(around))
    else:
        ground = learned(maps.object_map(around), maps.probabilities(around), maps.labels(around))
    missing = (around.start - rows.start + 1, rows.stop + 1 - around.stop)
    return np.pad(ground, (missing, (0, 0)), constant_values=-1)


def _distances(maps: Maps, rows: slice) -> npt.NDArray[np.float32]:
    """Measure the distance from each pixel in `rows` to the nearest pixel outside the core, in the whole image.

    Only a window around the rows is read. The window grows until no such pixel beyond it can be nearer.
    """
    most, margin = reach(maps.height, maps.width), MARGIN
    while True:
        window = slice(max(0, rows.start - margin), min(maps.height, rows.stop + margin))
        parts = bands(window.stop, maps.width, window.start)
        inside = np.concatenate([core(maps.labels(part), maps.probabilities(part)) for part in parts])
        distance = distances(inside, most)[rows.start - window.start : rows.stop - window.start]
        row = np.arange(rows.start, rows.stop)
        above = row - window.start + 1 if window.start else most
        below = window.stop - row if window.stop < maps.height else most
        if (distance.max(axis=1) <= np.minimum(np.minimum(above, below), most)).all():
            return distance
        margin *= 4


def _count(maps: Maps, component: Ids, count: int, show: Show) -> Sums:
    """Compute the `Sums` of all objects; read the image from the first row to the last."""
    sums = Sums(count, maps.classes)
    for rows in bands(maps.height, maps.width):
        objects = component[maps.ids(rows)].ravel()
        inside = np.flatnonzero(objects)
        labels, background = maps.labels(rows).ravel(), maps.probabilities(rows)[0].ravel()
        sums.add(objects[inside], inside + rows.start * maps.width, labels[inside], background[inside])
        maps.release()
        show("measuring objects, rows", rows.stop, maps.height)
    return sums
