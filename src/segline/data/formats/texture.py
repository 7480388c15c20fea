"""How the pixels of each value of a mask lie: in areas, in lines, scattered, or at edges between two other values.

Classes are drawn, so their pixels form areas or lines. Compression, smoothing and resizing leave values that are
scattered, or that lie only between a lower and a higher value.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segline.data.blocks import grown, strips
from segline.data.files import Labels

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
