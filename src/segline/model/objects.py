"""Objects in a prediction: the connected parts of a class, or what a watershed makes of those that touch.

Objects are (H, W) int32 ids, numbered from 1; 0 is background.
"""

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .images import encode_png
from .numbering import bands
from .watershed import Watershed

Objects = npt.NDArray[np.int32]
Labels = npt.NDArray[np.uint8]  # class ids (H, W)

STEPS = 64  # heights are whole numbers of 1/64 px, so that equal ones are equal on every machine
REACH = 1024  # px; so many rows above and below decide what a pixel is a part of


@dataclass(frozen=True)
class Separation:
    """How objects that touch are told apart; a part of inference.json.

    ``depth``: px; two peaks of the landscape are two objects where the pass between them is more than this lower than
    both, None for connected components. ``min_area``: px; smaller objects are left out. ``min_probability``: so are
    those whose pixels are foreground with a lower probability, on average.
    """

    depth: float | None = None
    min_area: int = 0
    min_probability: float = 0.0


def find(probabilities: npt.NDArray[np.float32], labels: Labels, separation: Separation) -> Objects:
    """The objects (H, W) in the class ids `labels` (H, W) that were made of the `probabilities` (K, H, W)."""
    objects = components(labels) if separation.depth is None else parted(probabilities, labels, separation.depth)
    area, probability = measured(objects, probabilities)
    return selected(objects, (area >= separation.min_area) & (probability >= separation.min_probability))


def components(labels: Labels) -> Objects:
    """The 4-connected components of each class but the background."""
    objects = np.zeros(labels.shape, np.int32)
    for class_id in range(1, int(labels.max(initial=0)) + 1):
        pieces = segments(labels == class_id)
        objects += np.where(pieces > 0, pieces + objects.max(initial=0), 0).astype(np.int32)
    return objects


def parted(probabilities: npt.NDArray[np.float32], labels: Labels, depth: float) -> Objects:
    """Part the foreground of `labels` by a watershed of the landscape that `heights` makes.

    Each peak that rises more than `depth` above the pass to a higher one grows into an object, so every connected part
    of the foreground is one object or more, and every pixel of it belongs to one.

    Returns
    -------
    (H, W) int32
        4-connected objects.
    """
    height, width = labels.shape
    ground = heights(distances(labels > 0, reach(height, width)), probabilities)
    ground = np.pad(ground, ((1, 1), (0, 0)), constant_values=-1)
    watershed, objects = Watershed(), np.zeros(labels.shape, np.int32)
    for rows in bands(height, width):
        objects[rows] = watershed.add(ground[rows.start : rows.stop + 2])
    _, numbers = np.unique(watershed.objects(steps(depth)), return_inverse=True)
    renumbered: Objects = numbers.astype(np.int32)
    return renumbered[objects]


def heights(distance: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """The landscape of objects (H, W), 1 / `STEPS` px: the distance to the background, px, times the probability of
    the likeliest foreground class; -1 in the background.

    It falls in a neck, along a faint line, and where two classes meet.
    """
    ground: npt.NDArray[np.int32] = np.rint(distance * probabilities[1:].max(axis=0) * STEPS).astype(np.int32)
    ground[distance == 0] = -1
    return ground


def distances(inside: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.float32]:
    """The distance (H, W) of each pixel to the nearest one outside, `most` at most, px."""
    distance = cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.minimum(distance, np.float32(most))


def reach(height: int, width: int) -> int:
    """The longest distance to the background that is told from longer ones in an image of that size, px."""
    return min(REACH, height + width)


def steps(depth: float) -> int:
    """A depth in px as a difference of `heights`."""
    return max(1, round(depth * STEPS))


def measured(
    objects: Objects, probabilities: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Pixels (N,) of each id of `objects`, and the mean over these of the probability of not being background (N,)."""
    ids = objects.ravel()
    area = np.bincount(ids)
    return area, 1 - np.bincount(ids, probabilities[0].ravel()) / np.maximum(area, 1)


def selected(objects: Objects, keep: npt.NDArray[np.bool_]) -> Objects:
    """The objects whose id has True in `keep` (N,), numbered from 1 in the order of their first pixels, row by row."""
    kept = np.flatnonzero(keep & (np.bincount(objects.ravel(), minlength=keep.size) > 0))
    kept = kept[kept > 0]
    first = np.zeros(keep.size, np.int64)
    columns = np.arange(objects.shape[1])[::-1]
    for row in range(objects.shape[0] - 1, -1, -1):
        first[objects[row, ::-1]] = row * objects.shape[1] + columns  # of several, numpy keeps what is written last
    numbers = np.zeros(keep.size, np.int32)
    numbers[kept[np.argsort(first[kept])]] = np.arange(1, kept.size + 1)
    return numbers[objects]


def class_labels(objects: Objects, labels: Labels) -> Labels:
    """The class ids (H, W) that give each object one class, that of most of its pixels, and all else background."""
    classes = int(labels.max(initial=0)) + 1
    count = int(objects.max(initial=0)) + 1
    votes = np.bincount(objects.ravel() * classes + labels.ravel(), minlength=count * classes).reshape(count, classes)
    winner: Labels = votes.argmax(axis=1).astype(np.uint8)
    winner[0] = 0
    return winner[objects]


def encode(objects: npt.NDArray[Any]) -> bytes:
    """The bytes of an image file of `objects`: PNG, 16 bit; TIFF, 32 bit, where there are more than 65,535."""
    if objects.max(initial=0) < 2**16:
        return encode_png(objects.astype(np.uint16))
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, objects.astype(np.int32), compression="zlib")
    return stream.getvalue()


def encode_probabilities(probabilities: npt.NDArray[np.float32]) -> bytes:
    """The bytes of a TIFF of class probabilities (K, H, W), a plane for each class."""
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        probabilities,
        photometric="minisblack",
        planarconfig="separate",
        compression="zlib",
        predictor=True,
        metadata=None,
    )
    return stream.getvalue()


def suffix(encoded: bytes) -> str:
    """The suffix for a file with what `encode` gave: .png or .tif."""
    return ".png" if encoded.startswith(b"\x89PNG") else ".tif"


def segments(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Number the 4-connected components of `cells` (H, W) from 1; 0 elsewhere."""
    numbered = cv2.connectedComponents(np.ascontiguousarray(cells).view(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1]
    return numbered.astype(np.int32, copy=False)


def thin(foreground_probability: npt.NDArray[Any], threshold: float) -> npt.NDArray[np.int32]:
    """Segments above the threshold, grown into the border until a line one pixel wide is left between them.

    The growth sees only what is above the threshold, as in the challenge, and goes at the same pace in all directions:
    no pixel changes its segment, and a border that does not part two segments vanishes.

    Parameters
    ----------
    foreground_probability
        (H, W) float, probability of not being border.
    threshold
        A pixel belongs to a segment when its probability is larger.

    Returns
    -------
    (H, W) int32
        Segments numbered from 1; 0 is the line. Nothing above the threshold: 0 everywhere.
    """
    return _grown(segments(foreground_probability > float(threshold)))


def _grown(seeds: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Watershed of a flat landscape: all segments grow by a pixel at a time, and where two would meet is the line.

    In each step the white, then the black squares of a chessboard are decided. None of them touch, so the order of the
    pixels does not matter, and no pixel is passed on before it is known whether it is line: every segment stays
    4-connected, and every pixel of the line touches two (scikit-image's watershed_line keeps neither).
    """
    if seeds.max(initial=0) <= 1:
        return np.full_like(seeds, seeds.max(initial=0))
    ids, settled = np.pad(seeds, 1).ravel(), np.pad(seeds > 0, 1, constant_values=True).ravel()
    width = seeds.shape[1] + 2
    neighbours = np.array([-width, -1, 1, width])
    black = np.add(*np.divmod(np.arange(ids.size), width)) % 2 == 1
    fresh = np.flatnonzero(ids)
    while fresh.size:
        around = (fresh[:, np.newaxis] + neighbours).ravel()
        reached = np.unique(around[~settled[around]])
        for squares in (reached[~black[reached]], reached[black[reached]]):
            ids[squares] = _shared(ids[squares[:, np.newaxis] + neighbours])
        settled[reached] = True
        fresh = reached[ids[reached] > 0]
    return ids.reshape(-1, width)[1:-1, 1:-1].copy()


def _shared(ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The one id in each row (N, 4) beside 0, or 0 where there are several."""
    highest = ids.max(axis=1)
    lowest = np.where(ids > 0, ids, highest[:, np.newaxis]).min(axis=1)
    return np.where(lowest == highest, highest, 0).astype(np.int32)
