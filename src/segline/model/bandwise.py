"""The objects of an image larger than memory, the same as `instances.find` gives: from files, band by band."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .averaging import Show
from .headers import ImageError
from .instances import Separation, divided, ringed
from .maps import Maps
from .numbering import BAND, Ids, Kinds, Numbered, bands, numbered

LARGEST_PART = 2**23  # pixels of the box around objects that touch; the watershed needs some 100 bytes for each


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
        Objects that touch fill more of the image than a watershed has memory for.
    """
    maps.create_ids()

    def write(rows: slice, ids: Ids) -> None:
        maps.write_ids(rows, slice(None), ids)
        maps.release()
        show("joining objects, rows", rows.stop, maps.height)

    if separation.depth is None:
        part = numbered(maps.labels, maps.height, maps.width, write).part
    else:
        found = numbered(lambda rows: (maps.labels(rows) > 0).view(np.uint8), maps.height, maps.width, write)
        part = _divide(maps, found, separation.depth, show)
    lowest, dense = np.unique(part, return_inverse=True)
    sums = _count(maps, dense.astype(np.int32), len(lowest), show)
    probability = 1 - sums.background / np.maximum(sums.area, 1)
    kept = np.flatnonzero((sums.area >= separation.min_area) & (probability >= separation.min_probability))
    kept = kept[(kept > 0) & (sums.area[kept] > 0)]
    numbers, classes = np.zeros(len(lowest), np.int32), np.zeros(len(lowest), np.uint8)
    numbers[kept[np.argsort(sums.first[kept])]] = np.arange(1, kept.size + 1)
    classes[kept] = sums.votes[kept].argmax(axis=1)
    return Table(kept.size, numbers[dense], classes[dense])


def _divide(maps: Maps, found: Numbered, depth: float, show: Show) -> Ids:
    """Give new ids to what the watershed parts; by id, the lowest of its object."""
    known = len(found.part)
    part, count = np.append(found.part, np.int32(0)), known  # the last one is for all new ids
    components = np.flatnonzero(found.part == np.arange(known))[1:]
    bottoms, shown = found.boxes[components, 2], 0
    for each in components[np.argsort(bottoms, kind="stable")].tolist():
        box = _box(maps, found, each)
        mask = part[np.minimum(maps.ids(*box), known)] == each
        objects = np.zeros(mask.shape, np.int32)
        pieces = divided(mask, maps.probabilities(*box), depth, objects, count - 1)
        if pieces > 1:
            maps.write_ids(*box, objects, where=mask)
            count += pieces
        if box[0].stop >= shown + BAND // maps.width:
            shown = box[0].stop
            maps.release()
            show("parting objects, rows", shown, maps.height)
    return np.concatenate([found.part, np.arange(known, count, dtype=np.int32)])


def _box(maps: Maps, found: Numbered, component: int) -> tuple[slice, slice]:
    """The box around a component, with a ring; ImageError where it is too large."""
    top, left, bottom, right = found.boxes[component].tolist()
    if (bottom - top) * (right - left) > LARGEST_PART:
        raise ImageError(
            f"objects that touch fill {right - left} x {bottom - top} px from row {top}, column {left}, on; to part "
            f"them, their box may have {LARGEST_PART / 1e6:.0f} million pixels; cut the image"
        )
    return ringed(slice(top, bottom), slice(left, right), (maps.height, maps.width))


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
