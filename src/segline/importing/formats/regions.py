"""Rasterise objects (polygons, discs, run lengths) as small masks within a large image.

A pixel is inside an outline if the centre of the pixel is inside. Pixel (x, y) has its centre at (x + 0.5, y + 0.5), as
in COCO and LabelMe, where x spans 0 to the width of the image. If a centre is on the line, the pixel belongs to the
side right of the line or below it. So outlines on both sides of a line share no pixel and leave no gap. Outlines that
cross themselves are filled by the even-odd rule. Rectangles of whole pixels are filled as in pycocotools. For other
outlines, pycocotools first rounds the points to a fifth of a pixel. So a pixel may differ from pycocotools if its
centre is less than a fifth of a pixel from the line. OpenCV's fillPoly and Pillow also draw the line itself. So with
these two, each object becomes about half a pixel wider on all sides.

Where objects overlap, the smaller object gets the pixels. Of two objects of equal size, the later one gets them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # (N, 2): x, y from the upper left corner of the image
Shape = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Region:
    """Pixels of an object: a boolean mask `inside` (h, w), which begins at row `top` and column `left` of the image."""

    top: int
    left: int
    inside: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> Self:
        """Return the True pixels of `mask` (H, W) as a region, cropped to the bounding box of these pixels."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            return cls(0, 0, np.zeros((0, 0), bool))
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return cls(int(rows[0]), int(columns[0]), mask[window].copy())

    @property
    def area(self) -> int:
        """Number of pixels in the region."""
        return int(np.count_nonzero(self.inside))

    @property
    def window(self) -> tuple[slice, slice]:
        """The image rows and columns that `inside` covers."""
        height, width = self.inside.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True)
class Painted:
    """Label image of objects: the array `labels` (H, W) holds 1 at the first object, 2 at the second, and so on.

    `overlapping` is the number of pixels that larger objects lost to smaller ones. `hidden` is the number of objects
    without a visible pixel.
    """

    labels: npt.NDArray[np.int32]
    overlapping: int
    hidden: int


def polygon(points: Points, shape: Shape) -> Region:
    """Rasterise the closed outline `points` in an image of `shape`.

    The region contains the pixels whose centres are inside the outline.
    """
    height, width = shape
    # Pixels in rows `top` to `bottom` - 1 and columns `left` to `right` - 1 have centres inside the bounding box.
    left, top = np.clip(np.ceil(points.min(axis=0) - 0.5), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(points.max(axis=0) - 0.5), 0, (width, height)).astype(int)
    toggles = np.zeros((bottom - top, right - left + 1), np.uint8)
    row, x = _crossings(points, top, bottom)
    column = np.clip(np.ceil(x - 0.5), left, right).astype(int)
    np.add.at(toggles, (row - top, column - left), 1)
    return Region(int(top), int(left), np.cumsum(toggles[:, :-1], axis=1, dtype=np.uint8) % 2 == 1)


def _crossings(points: Points, top: int, bottom: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return the points where the outline crosses the centre lines of rows `top` to `bottom` - 1.

    Return two arrays: the row of each point, and its x value.
    """
    following = np.roll(points, -1, axis=0)
    # Orient all edges downwards. Then two polygons that share an edge get bit-identical x values for this edge.
    down = points[:, 1] <= following[:, 1]
    x0, y0 = np.where(down[:, None], points, following).T
    x1, y1 = np.where(down[:, None], following, points).T
    first, last = (np.clip(np.ceil(y - 0.5), top, bottom).astype(int) for y in (y0, y1))
    count = last - first
    edge = np.repeat(np.arange(len(points)), count)
    row = np.arange(edge.size) + np.repeat(first - np.cumsum(count) + count, count)
    return row, x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]


def disc(centre: Points, radius: float, shape: Shape) -> Region:
    """Rasterise a disc in an image of `shape`.

    The region contains the pixels whose centres are at most `radius` px away from the point `centre`.
    """
    (x, y), (height, width) = centre, shape
    columns = np.arange(max(0, int(x - radius)), min(width, int(x + radius) + 1))
    rows = np.arange(max(0, int(y - radius)), min(height, int(y + radius) + 1))
    distance = np.hypot(columns[None] + 0.5 - x, rows[:, None] + 0.5 - y)
    return Region(int(rows[0]) if rows.size else 0, int(columns[0]) if columns.size else 0, distance <= radius)


def union(regions: Sequence[Region]) -> Region:
    """Unite one or more `regions` into a single region."""
    top, left = min(region.top for region in regions), min(region.left for region in regions)
    bottom, right = (max(region.window[axis].stop for region in regions) for axis in (0, 1))
    inside = np.zeros((bottom - top, right - left), bool)
    for region in regions:
        rows, columns = region.window
        inside[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] |= region.inside
    return Region(top, left, inside)


def paint(regions: Sequence[Region], shape: Shape) -> Painted:
    """Draw `regions` into one label image of `shape`, larger regions first, so that smaller ones stay visible."""
    labels = np.zeros(shape, np.int32)
    areas = [region.area for region in regions]
    for index in sorted(range(len(regions)), key=lambda index: -areas[index]):
        labels[regions[index].window][regions[index].inside] = index + 1
    hidden = sum(not np.any(labels[region.window] == number) for number, region in enumerate(regions, 1))
    return Painted(labels, sum(areas) - int(np.count_nonzero(labels)), hidden)


FIRST, BITS = 48, 5  # code of the character for 0, and number of bits in each character
LONGEST = 13  # largest number of characters of a run length, because a run length has at most 64 bits
MORE, SIGN = 1 << BITS, 1 << (BITS - 1)


class RunsError(ValueError):
    """Raised for run lengths that do not encode a mask; the message says what is wrong."""


def decompress(text: str, pixels: int | None = None) -> list[int]:
    """Decode a compressed COCO string into run lengths.

    From the fourth number on, the string holds the difference from the run length two positions earlier.

    Parameters
    ----------
    pixels : number of pixels in the image, if known; a longer run length is refused at once.

    Raises
    ------
    RunsError
        A character is invalid, a number is incomplete or too long, or there are more runs than pixels.
    """
    counts: list[int] = []
    value = shift = 0
    for place, character in enumerate(text):
        bits = ord(character) - FIRST
        if not 0 <= bits < 2 * MORE:
            raise RunsError(
                f"segmentation.counts has the character {character!r} at position {place}, but run lengths cannot "
                "contain this character"
            )
        if shift >= LONGEST * BITS:
            raise RunsError(f"segmentation.counts has a number longer than {LONGEST} characters at position {place}")
        value |= (bits % MORE) << shift
        shift += BITS
        if bits & MORE:
            continue
        if bits & SIGN:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        if pixels is not None:
            _check(counts[-1:], pixels)
            if len(counts) > 2 * pixels + 2:
                raise RunsError(f"segmentation.counts has more runs than the image has pixels ({pixels})")
        value = shift = 0
    if shift:
        raise RunsError("segmentation.counts ends in the middle of a number, so the text is truncated")
    return counts


def region(counts: Sequence[int], shape: Shape) -> Region:
    """Decode the run lengths `counts` of an object in an image of `shape`; pixels are numbered column by column.

    Raises
    ------
    RunsError
        The run lengths do not add up to the number of pixels of the image, or a run length is negative.
    """
    height, width = shape
    pixels = height * width
    if len(counts) > 2 * pixels + 2:
        raise RunsError(f"segmentation.counts has {len(counts)} runs, but the image has only {pixels} pixels")
    _check(counts, pixels)
    if sum(counts) != pixels:
        raise RunsError(
            f"the runs in segmentation.counts have {sum(counts)} pixels in total, but the image has {width}x{height} = "
            f"{pixels} pixels"
        )
    runs = np.array(counts, np.int64)
    ends = np.cumsum(runs)
    if not runs[1::2].any():
        return Region.of(np.zeros(shape, bool))
    first, last = ends[0], ends[1::2][-1]
    # Decode only the columns that the object covers; this saves time for small objects.
    left, right = int(first // height), int(-(-last // height))
    stops = ends[1::2] - left * height
    starts = ends[::2][: stops.size] - left * height
    toggles = np.zeros((right - left) * height + 1, np.int8)
    np.add.at(toggles, starts, 1)
    np.add.at(toggles, stops, -1)
    columns = np.cumsum(toggles[:-1], dtype=np.int8).astype(bool).reshape(right - left, height)
    cropped = Region.of(columns.T)
    return Region(cropped.top, cropped.left + left, cropped.inside)


def _check(counts: Sequence[int], pixels: int) -> None:
    """Raise RunsError if a run length in `counts` is negative or greater than `pixels`, the size of the image."""
    wrong = next((run for run in counts if not 0 <= run <= pixels), None)
    if wrong is not None:
        length = wrong if abs(wrong) < 10**30 else f"{'more' if wrong > 0 else 'less'} than {'-' * (wrong < 0)}10^30"
        raise RunsError(
            f"segmentation.counts has a run of {length} pixels, but a run in this image must have 0 to {pixels} pixels"
        )
