"""What is counted of masks before anyone says what they mean: mask by mask, then added up."""

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
from segline.importing.formats import Mask

MOST_CLASSES = 20  # more values than this are taken for instance ids
MOST_VALUES = 2**16  # more than this are not told apart
FEWEST_NOISY, MOST_NOISY = 2, 4096  # values in a mask of which it is asked how their pixels lie
SOFT = (8 / 255, 248 / 255)  # shares of white that neither black nor white become when compressed with losses
# A net of borders: it is nearly all in one piece, and parts most of the image into many pieces.
NET_SHARE, NET_PIECES, NET_FOREGROUND = 0.9, 10, 0.5


@dataclass(frozen=True)
class Facts:
    """What is counted of one mask."""

    file: Path
    pixels: Mapping[int, int]  # by value
    whole: int | None  # values above 0 that are one 4-connected piece each; None where there are too many values
    pieces: int  # 4-connected pieces of what is not 0
    net: float  # share of the zeros that lies in their largest 8-connected piece
    blurred: int  # pixels above 0 and below the highest value that lie in no area of their own; see _blurred
    # Pixels by value that lie in an area, in a line, at an edge (see texture); empty where values are one or too many.
    solid: Mapping[int, int] = field(default_factory=dict)
    linked: Mapping[int, int] = field(default_factory=dict)
    edge: Mapping[int, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of the pixels that are not 0."""
        return 1 - self.pixels.get(0, 0) / max(1, sum(self.pixels.values()))

    @property
    def is_net(self) -> bool:
        """Whether the zeros are a net of borders around many pieces."""
        return self.share >= NET_FOREGROUND and self.pieces >= NET_PIECES and self.net >= NET_SHARE


def facts_of(source: Mask) -> Facts:
    """Facts of one mask."""
    mask = source.read()
    pixels = counted(mask)
    above = [value for value in pixels if value > 0]
    whole = sum(_pieces(mask == value) == 1 for value in above) if len(above) <= MOST_CLASSES else None
    greys = (mask > 0) & (mask < max(IGNORE, max(pixels, default=0)))
    blurred = int(np.count_nonzero(greys & _blurred(mask))) if greys.any() else 0
    facts = Facts(source.file, pixels, whole, _pieces(mask != 0), _largest_share(mask == 0), blurred)
    if not FEWEST_NOISY <= len(pixels) <= MOST_NOISY:
        return facts
    found = of(mask)
    return replace(
        facts, solid=counted(mask[found.solid]), linked=counted(mask[found.linked]), edge=counted(mask[found.edge])
    )


def counted(mask: Labels) -> dict[int, int]:
    """Pixels by value, values in ascending order."""
    highest = int(mask.max(initial=0))
    if highest < MOST_VALUES:  # much faster than sorting all pixels
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
    """(H, W) bool: none of the four neighbours has the same value, or the values rise through the pixel."""
    alone, slope = np.ones(mask.shape, np.bool_), np.zeros(mask.shape, np.bool_)
    for axis in (0, 1):
        pixels, others, rising = (np.moveaxis(array, axis, 0) for array in (mask, alone, slope))
        up, down = pixels[1:] > pixels[:-1], pixels[1:] < pixels[:-1]
        others[1:] &= up | down
        others[:-1] &= up | down
        rising[1:-1] |= up[1:] & up[:-1] | down[1:] & down[:-1]
    return alone | slope


@dataclass
class Census:
    """The facts of all masks, added up one by one: its size does not grow with the number of masks."""

    masks: int = 0
    first: Path | None = None
    pixels: Counter[int] = field(default_factory=Counter)  # by value; of MOST_VALUES values at most
    few_values: int = 0  # values that are in one piece or more, over masks with few of them ...
    few_whole: int = 0  # ... and those in one piece
    numbered: bool = True  # each such mask has the values 1 to n, for some n ...
    numbers: set[int] = field(default_factory=set)  # ... and these are the n
    pieces: int = 0
    share: float = 0.0
    nets: int = 0
    blurred: int = 0
    beside_ignore: int = 0  # masks that hold IGNORE and another value above 0
    softest: tuple[int, Path | None] = (0, None)  # most pixels that are neither 0 nor 255, and the mask that has them
    masks_of: Counter[int] = field(default_factory=Counter)  # masks that hold a value; of MOST_VALUES values at most
    filled: int = 0  # masks that hold a value above 0
    # Pixels by value, over the masks with MOST_NOISY values at most: all, and those in an area, in a line, at an edge.
    textured: Counter[int] = field(default_factory=Counter)
    solid: Counter[int] = field(default_factory=Counter)
    linked: Counter[int] = field(default_factory=Counter)
    edge: Counter[int] = field(default_factory=Counter)
    most_of: dict[int, tuple[int, Path]] = field(default_factory=dict)  # of few values, the mask with most pixels

    @classmethod
    def of(cls, masks: Iterable[Facts]) -> Self:
        """All of `masks`, which are gone through once."""
        census = cls()
        for facts in masks:
            census.add(facts)
        return census

    def add(self, facts: Facts) -> None:
        """One mask more."""
        self.masks += 1
        self.first = self.first or facts.file
        if len(self.pixels) < MOST_VALUES:
            self.pixels.update(facts.pixels)
            self.masks_of.update(facts.pixels.keys())
        self.filled += any(facts.pixels.keys() - {0})
        if facts.solid or facts.linked or facts.edge:
            self.textured.update(facts.pixels)
            self.solid.update(facts.solid)
            self.linked.update(facts.linked)
            self.edge.update(facts.edge)
        if len(self.most_of) <= MOST_NOISY:
            for value, count in facts.pixels.items():
                self.most_of[value] = max(self.most_of.get(value, (0, facts.file)), (count, facts.file), key=_first)
        if facts.whole is not None:
            values = [value for value in facts.pixels if value > 0]
            self.few_values += len(values)
            self.few_whole += facts.whole
            self.numbered &= len(values) == max(values, default=0)
            self.numbers.add(len(values))
        self.beside_ignore += IGNORE in facts.pixels and len(facts.pixels.keys() - {0, IGNORE}) > 0
        self.pieces += facts.pieces
        self.share += facts.share
        self.nets += facts.is_net
        self.blurred += facts.blurred
        white = max(IGNORE, max(facts.pixels, default=0))
        soft = sum(count for value, count in facts.pixels.items() if 0 < value < white)
        self.softest = max(self.softest, (soft, facts.file), key=_first)


def _first(pair: tuple[int, object]) -> int:
    return pair[0]


Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Texture:
    """Pixels (H, W) bool that lie in an area, in a line, or at an edge.

    `solid`: in a block of 2 x 2 pixels of one value. `linked`: two or more of the eight neighbours have the same value.
    `edge`: above the least and below the highest of the eight neighbours.
    """

    solid: Bools
    linked: Bools
    edge: Bools


def of(mask: Labels) -> Texture:
    """The texture of `mask`, strip by strip, so that a large mask needs little more memory."""
    found = Texture(*(np.zeros(mask.shape, np.bool_) for _ in range(3)))
    for rows in strips(mask.shape):
        around, inner = grown(rows, 1, mask.shape[0])
        part = mask[around]
        found.solid[rows] = _solid(part)[inner]
        found.linked[rows] = _linked(part)[inner]
        found.edge[rows] = _edge(part)[inner]
    return found


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
