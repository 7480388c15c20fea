"""The objects of an image larger than memory, the same as `objects.find` gives: from files, band by band."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .averaging import Show
from .maps import Maps
from .numbering import Ids, Kinds, bands, numbered
from .objects import Separation, distances, heights, reach, steps
from .watershed import Watershed

MARGIN = 64  # rows above and below in which the background nearest to a pixel is looked for first


class Table(NamedTuple):
    """What the ids in the file mean."""

    found: int
    """Number of objects."""
    objects: Ids
    """By id, the object, numbered from 1; 0 is background."""
    classes: Kinds
    """By id, the class of most of the object's pixels."""


class Sums:
    """What is counted in each of N objects."""

    def __init__(self, count: int, classes: int) -> None:
        self.area = np.zeros(count, np.int64)
        self.background = np.zeros(count)  # sum of the probabilities of it
        self.first = np.full(count, -1)  # first pixel, row by row
        self.votes = np.zeros((count, classes), np.int64)  # pixels of each class

    def add(self, own: Ids, places: npt.NDArray[np.int64], labels: Kinds, background: npt.NDArray[np.float32]) -> None:
        """Count pixels: the object that each belongs to, where it is, its class and probability of background."""
        self.area += np.bincount(own, minlength=self.area.size)
        np.add.at(self.background, own, background.astype(np.float64))  # one by one: sums round as in memory
        np.add.at(self.votes.reshape(-1), own.astype(np.int64) * self.votes.shape[1] + labels, 1)
        fresh = np.flatnonzero(self.first[own] < 0)[::-1]
        self.first[own[fresh]] = places[fresh]  # of several, numpy keeps what is written last


def find(maps: Maps, separation: Separation, show: Show) -> Table:
    """Write ids of the objects into the file of `maps`, and what they mean.

    Raises
    ------
    ImageError
        There are more parts than numbers.
    """
    maps.create_ids()

    def write(rows: slice, ids: Ids) -> None:
        maps.write_ids(rows, ids)
        maps.release()
        show("finding objects, rows", rows.stop, maps.height)

    if separation.depth is None:
        part = numbered(maps.labels, maps.height, maps.width, write)
    else:
        watershed = Watershed()
        for rows in bands(maps.height, maps.width):
            write(rows, watershed.add(_landscape(maps, rows)))
        part = watershed.objects(steps(separation.depth))
    lowest, dense = np.unique(part, return_inverse=True)
    sums = _count(maps, dense.astype(np.int32), len(lowest), show)
    probability = 1 - sums.background / np.maximum(sums.area, 1)
    kept = np.flatnonzero((sums.area >= separation.min_area) & (probability >= separation.min_probability))
    kept = kept[(kept > 0) & (sums.area[kept] > 0)]
    numbers, classes = np.zeros(len(lowest), np.int32), np.zeros(len(lowest), np.uint8)
    numbers[kept[np.argsort(sums.first[kept])]] = np.arange(1, kept.size + 1)
    classes[kept] = sums.votes[kept].argmax(axis=1)
    return Table(kept.size, numbers[dense], classes[dense])


def _landscape(maps: Maps, rows: slice) -> npt.NDArray[np.int32]:
    """Heights of some rows, of the one above and of the one below; -1 outside of the image."""
    around = slice(max(0, rows.start - 1), min(maps.height, rows.stop + 1))
    ground = heights(_distances(maps, around), maps.probabilities(around))
    missing = (around.start - rows.start + 1, rows.stop + 1 - around.stop)
    return np.pad(ground, (missing, (0, 0)), constant_values=-1)


def _distances(maps: Maps, rows: slice) -> npt.NDArray[np.float32]:
    """The distances of some rows as the whole image has them: with so many rows around that no background is nearer."""
    most, margin = reach(maps.height, maps.width), MARGIN
    while True:
        window = slice(max(0, rows.start - margin), min(maps.height, rows.stop + margin))
        inside = np.concatenate([maps.labels(part) > 0 for part in bands(window.stop, maps.width, window.start)])
        found = distances(inside, most)[rows.start - window.start : rows.stop - window.start]
        at = np.arange(rows.start, rows.stop)
        above = at - window.start + 1 if window.start else most
        below = window.stop - at if window.stop < maps.height else most
        if (found.max(axis=1) <= np.minimum(np.minimum(above, below), most)).all():
            return found
        margin *= 4


def _count(maps: Maps, part: Ids, count: int, show: Show) -> Sums:
    """Count what is in each object, pixel by pixel in the order of the rows."""
    sums = Sums(count, maps.classes)
    for rows in bands(maps.height, maps.width):
        objects = part[maps.ids(rows)].ravel()
        inside = np.flatnonzero(objects)
        labels, background = maps.labels(rows).ravel(), maps.probabilities(rows)[0].ravel()
        sums.add(objects[inside], inside + rows.start * maps.width, labels[inside], background[inside])
        maps.release()
        show("measuring objects, rows", rows.stop, maps.height)
    return sums
