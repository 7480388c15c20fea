"""Compute statistics of each mask and sum them over all masks, to guess what the mask values mean."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from segline.data import labels
from segline.data.dataset import IGNORE
from segline.data.imagefiles import Labels
from segline.data.labels import grown, strips
from segline.importing.layout import MaskSource

MOST_CLASSES = 20  # if masks hold more values than this, the values are usually instance ids
MOST_VALUES = 2**16  # largest number of different values that are counted
FEWEST_NOISY, MOST_NOISY = 2, 4096  # limits for the number of different values in a mask whose texture is computed
# Lossy compression changes black and white slightly.
# So a value below 8/255 of pure white counts as black, and a value of at least 248/255 of pure white counts as white.
SOFT = (8 / 255, 248 / 255)
# Pixels of value 0 form a net of borders if nearly all of them are connected and the mask has many components, which
# are 4-connected groups of pixels above 0. The components must also fill at least half of the mask.
NET_SHARE, NET_PIECES, NET_FOREGROUND = 0.9, 10, 0.5


@dataclass(frozen=True)
class MaskCounts:
    """Statistics of one mask."""

    file: Path
    pixels: Mapping[int, int]  # number of pixels, by value
    whole: int | None  # number of values above 0 that each form a single 4-connected component; None if too many values
    pieces: int  # number of 4-connected components of the pixels above 0
    net: float  # pixels in the largest 8-connected component of value 0, as a share of all pixels of value 0
    blurred: int  # number of pixels that are neither black nor white and look blurred (see _blurred)
    # For each value: the number of its pixels in areas (`solid`), in lines (`linked`) and at edges (`edge`).
    # `solid`, `linked` and `edge` are empty if the mask holds only one value, or too many values.
    solid: Mapping[int, int] = field(default_factory=dict)
    linked: Mapping[int, int] = field(default_factory=dict)
    edge: Mapping[int, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the pixels whose value is not 0."""
        return 1 - self.pixels.get(0, 0) / max(1, sum(self.pixels.values()))

    @property
    def is_net(self) -> bool:
        """True if the pixels of value 0 form a net of borders around many components."""
        return self.share >= NET_FOREGROUND and self.pieces >= NET_PIECES and self.net >= NET_SHARE


def counts_of(source: MaskSource) -> MaskCounts:
    """Read one mask and return its statistics."""
    mask = source.read()
    pixels = pixel_counts(mask)
    above = [value for value in pixels if value > 0]
    whole = sum(_pieces(mask == value) == 1 for value in above) if len(above) <= MOST_CLASSES else None
    greys = (mask > 0) & (mask < max(IGNORE, max(pixels, default=0)))
    blurred = int(np.count_nonzero(greys & _blurred(mask))) if greys.any() else 0
    counts = MaskCounts(source.file, pixels, whole, _pieces(mask != 0), _largest_share(mask == 0), blurred)
    if not FEWEST_NOISY <= len(pixels) <= MOST_NOISY:
        return counts
    texture = texture_of(mask)
    return replace(
        counts,
        solid=pixel_counts(mask[texture.solid]),
        linked=pixel_counts(mask[texture.linked]),
        edge=pixel_counts(mask[texture.edge]),
    )


def pixel_counts(mask: Labels) -> dict[int, int]:
    """Count the pixels that have each value; return the counts by value, in ascending order of the values."""
    highest = int(mask.max(initial=0))
    if highest < MOST_VALUES:  # a histogram is much faster than sorting all pixels
        counts = labels.areas(np.atleast_2d(mask), highest + 1)
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(mask, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _pieces(region: Labels) -> int:
    return int(cv2.connectedComponents(region.astype(np.uint8), connectivity=4)[0]) - 1


def _largest_share(region: Labels) -> float:
    stats = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)[2]
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum()) if len(areas) else 0.0


def _blurred(mask: Labels) -> Labels:
    """Return a boolean mask (H, W) of the pixels that look blurred.

    A pixel looks blurred if all its 4-neighbours have other values. A pixel also looks blurred if its value lies
    between the values of its two neighbours in the row or in the column, and equals neither.
    """
    isolated, slope = np.ones(mask.shape, np.bool_), np.zeros(mask.shape, np.bool_)
    for axis in (0, 1):
        pixels, differing, monotonic = (np.moveaxis(array, axis, 0) for array in (mask, isolated, slope))
        up, down = pixels[1:] > pixels[:-1], pixels[1:] < pixels[:-1]
        differing[1:] &= up | down
        differing[:-1] &= up | down
        monotonic[1:-1] |= up[1:] & up[:-1] | down[1:] & down[:-1]
    return isolated | slope


@dataclass
class Census:
    """Statistics of all masks, summed mask by mask, so that memory does not grow with the number of masks."""

    masks: int = 0
    first: Path | None = None
    # Number of pixels, by value. After MOST_VALUES different values have been found, further masks are not counted.
    pixels: Counter[int] = field(default_factory=Counter)
    few_values: int = 0  # number of values above 0, summed over the masks with few values
    few_whole: int = 0  # how many of these values each form a single component
    numbered: bool = True  # True if every mask with few values has the values 1 to n, for some n
    numbers: set[int] = field(default_factory=set)  # all n that occur in these masks
    pieces: int = 0
    share: float = 0.0
    nets: int = 0
    blurred: int = 0
    beside_ignore: int = 0  # number of masks that hold IGNORE and another value above 0
    softest: tuple[int, Path | None] = (0, None)  # largest number of grey pixels in one mask, and its file
    masks_of: Counter[int] = field(default_factory=Counter)  # number of masks that hold a value, by value
    filled: int = 0  # number of masks that hold a value above 0
    # For each value, its number of pixels in all masks with at least 2 and at most MOST_NOISY different values:
    # `textured` counts all these pixels, `solid` those in areas, `linked` those in lines, `edge` those at edges.
    textured: Counter[int] = field(default_factory=Counter)
    solid: Counter[int] = field(default_factory=Counter)
    linked: Counter[int] = field(default_factory=Counter)
    edge: Counter[int] = field(default_factory=Counter)
    # For each value: the largest number of pixels of this value in one mask, and the file of that mask.
    most_of: dict[int, tuple[int, Path]] = field(default_factory=dict)

    @classmethod
    def of(cls, masks: Iterable[MaskCounts]) -> Self:
        """Sum the statistics of all `masks`; iterate over them only once."""
        census = cls()
        for counts in masks:
            census.add(counts)
        return census

    def add(self, counts: MaskCounts) -> None:
        """Add the statistics of one mask."""
        self.masks += 1
        self.first = self.first or counts.file
        if len(self.pixels) < MOST_VALUES:
            self.pixels.update(counts.pixels)
            self.masks_of.update(counts.pixels.keys())
        self.filled += any(counts.pixels.keys() - {0})
        if counts.solid or counts.linked or counts.edge:
            self.textured.update(counts.pixels)
            self.solid.update(counts.solid)
            self.linked.update(counts.linked)
            self.edge.update(counts.edge)
        if len(self.most_of) <= MOST_NOISY:
            for value, count in counts.pixels.items():
                self.most_of[value] = max(self.most_of.get(value, (0, counts.file)), (count, counts.file), key=_first)
        if counts.whole is not None:
            values = [value for value in counts.pixels if value > 0]
            self.few_values += len(values)
            self.few_whole += counts.whole
            self.numbered &= len(values) == max(values, default=0)
            self.numbers.add(len(values))
        self.beside_ignore += IGNORE in counts.pixels and len(counts.pixels.keys() - {0, IGNORE}) > 0
        self.pieces += counts.pieces
        self.share += counts.share
        self.nets += counts.is_net
        self.blurred += counts.blurred
        white = max(IGNORE, max(counts.pixels, default=0))
        soft = sum(count for value, count in counts.pixels.items() if 0 < value < white)
        self.softest = max(self.softest, (soft, counts.file), key=_first)


def _first(pair: tuple[int, object]) -> int:
    return pair[0]


Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Texture:
    """Three boolean masks (H, W), which mark the pixels in areas, in lines and at edges.

    `solid`: the pixel is in a block of 2 x 2 equal pixels. `linked`: at least two of the eight neighbours have the same
    value as the pixel. `edge`: the value of the pixel lies between the lowest and the highest value of the eight
    neighbours, and equals neither.
    """

    solid: Bools
    linked: Bools
    edge: Bools


def texture_of(mask: Labels) -> Texture:
    """Mark which pixels of `mask` are in areas, which are in lines, and which are at edges.

    A pixel can have several marks. To save memory, the mask is processed in strips of rows.
    """
    texture = Texture(*(np.zeros(mask.shape, np.bool_) for _ in range(3)))
    for rows in strips(mask.shape):
        around, inner = grown(rows, 1, mask.shape[0])
        part = mask[around]
        texture.solid[rows] = _solid(part)[inner]
        texture.linked[rows] = _linked(part)[inner]
        texture.edge[rows] = _edge(part)[inner]
    return texture


def _solid(mask: Labels) -> Bools:
    corner = (mask[:-1, :-1] == mask[1:, :-1]) & (mask[:-1, :-1] == mask[:-1, 1:]) & (mask[:-1, :-1] == mask[1:, 1:])
    solid = np.zeros(mask.shape, np.bool_)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            solid[rows, columns] |= corner
    return solid


def _linked(mask: Labels) -> Bools:
    count = np.zeros(mask.shape, np.uint8)
    for down, along in ((0, 1), (1, 0), (1, 1), (1, -1)):
        height, width = mask.shape[0] - down, mask.shape[1] - abs(along)
        left = max(0, -along)
        first = slice(0, height), slice(left, left + width)
        second = slice(down, down + height), slice(left + along, left + along + width)
        same = mask[first] == mask[second]
        count[first] += same
        count[second] += same
    return count >= 2


def _edge(mask: Labels) -> Bools:
    comparable = mask if mask.dtype in (np.uint8, np.uint16) else mask.astype(np.float64)
    around = np.ones((3, 3), np.uint8)
    edge: Bools = (comparable > cv2.erode(comparable, around)) & (comparable < cv2.dilate(comparable, around))
    return edge
