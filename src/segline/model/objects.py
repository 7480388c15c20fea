"""Find objects in a prediction: either the connected components of each class, or the objects of a watershed.

Objects are stored as an array of object ids (H, W), int32, numbered from 1; 0 is background.
"""

import io
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from .images import encode_png
from .watershed import Watershed, bands

Objects = npt.NDArray[np.int32]
Labels = npt.NDArray[np.uint8]  # class ids (H, W)
Heights = Literal["distance", "object_map"]

STEPS = 64  # heights are rounded to multiples of 1/64 px, so that they are equal on every machine
REACH = 1024  # larger distances to a pixel outside the core are replaced by this distance, px
TOP = 16  # height of the value 1 of the object map, px; so the same depths suit objects of any size
NECK_DEPTH = 1.0  # px; shallower necks are mostly steps between pixels
LOWEST = STEPS  # lowest height in the core of an object; the fringe is lower


class Outputs(NamedTuple):
    """Output of the network for an image, after softmax and sigmoid."""

    probabilities: npt.NDArray[np.float32]
    """Class probabilities (K, H, W)."""
    object_map: npt.NDArray[np.float32] | None = None
    """(H, W), about 1 in the middle of each object and 0 at its border; None if the network does not predict it."""


@dataclass(frozen=True)
class Separation:
    """Settings in inference.json that control how touching objects are separated.

    The saddle between two peaks of the height map is the highest point where the areas of these peaks touch.

    ``depth``: px; two peaks are two objects if the saddle is lower than both peaks by more than ``depth``. None:
    objects are connected components.
    ``min_area``: px; smaller objects are removed. ``min_probability``: objects with a lower mean foreground probability
    are removed. ``heights``: what the height map is computed from, see `heights` and `learned`.
    ``neck``: the saddle must also be lower than the lower peak by more than this fraction of the peak's height. Then
    large objects, whose outlines have deeper bays, need deeper necks than small ones.
    """

    depth: float | None = None
    min_area: int = 0
    min_probability: float = 0.0
    heights: Heights = "distance"
    neck: float = 0.0


def find(outputs: Outputs, labels: Labels, separation: Separation) -> Objects:
    """Find objects and return their ids (H, W).

    `labels` (H, W) holds the class id of each pixel, computed from the probabilities.
    """
    objects = components(labels) if separation.depth is None else parted(outputs, labels, separation)
    area, probability = measured(objects, outputs.probabilities)
    return selected(objects, (area >= separation.min_area) & (probability >= separation.min_probability))


def components(labels: Labels) -> Objects:
    """Give each 4-connected component of a foreground class an id from 1; return the ids (H, W), 0 for background."""
    objects = np.zeros(labels.shape, np.int32)
    for class_id in range(1, int(labels.max(initial=0)) + 1):
        pieces = segments(labels == class_id)
        objects += np.where(pieces > 0, pieces + objects.max(initial=0), 0).astype(np.int32)
    return objects


def parted(outputs: Outputs, labels: Labels, separation: Separation) -> Objects:
    """Separate the foreground of `labels` into objects by a watershed on a height map, see `heights` and `learned`.

    A saddle is the highest point where the areas of two peaks touch. Each peak that rises more than the depth and the
    neck of `separation` require above the saddle to a higher peak becomes an object. The highest peak of each connected
    component of the `core` becomes an object too. Pixels of the fringe join the objects that they touch, uphill along
    the foreground probability; a connected part of the fringe that touches no core is an object. Each foreground pixel
    is in exactly one object.

    Returns
    -------
    (H, W) int32
        4-connected objects.
    """
    assert separation.depth is not None
    height, width = labels.shape
    if separation.heights == "distance":
        inside = distances(core(labels, outputs.probabilities), reach(height, width))
        ground = heights(inside, outputs.probabilities, labels)
    else:
        assert outputs.object_map is not None
        ground = learned(outputs.object_map, outputs.probabilities, labels)
    return _of_watershed(ground, separation.depth, separation.neck)


def _of_watershed(ground: npt.NDArray[np.int32], depth: float, neck: float) -> Objects:
    """Return the objects (H, W) of the height map `ground` (H, W), see `Separation`."""
    watershed, objects = Watershed(), np.zeros(ground.shape, np.int32)
    padded = np.pad(ground, ((1, 1), (0, 0)), constant_values=-1)
    for rows in bands(*ground.shape):
        objects[rows] = watershed.add(padded[rows.start : rows.stop + 2])
    _, numbers = np.unique(watershed.objects(steps(depth), LOWEST, neck), return_inverse=True)
    renumbered: Objects = numbers.astype(np.int32)
    return renumbered[objects]


def core(labels: Labels, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return where (H, W) a foreground pixel is likelier foreground than background.

    With a threshold of at least 0.5, these are all foreground pixels. With a lower threshold, the others are the
    fringe: objects reach across it, but what meets only there is not one object.
    """
    likely: npt.NDArray[np.bool_] = (labels > 0) & (probabilities[0] < 0.5)
    return likely


def heights(
    distance: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float32], labels: Labels
) -> npt.NDArray[np.int32]:
    """Compute the height map (H, W) for the watershed, in units of 1 / `STEPS` px; -1 in the background.

    The height is the distance to the nearest pixel outside the `core`, px, times the probability of the likeliest
    foreground class. Heights are low where an object is narrow, along a faint line, and where two classes meet.
    docs/decisions.md calls this map the landscape. Heights in the core start at `LOWEST`; in the fringe, which is
    lower, they follow the foreground probability.
    """
    return _with_fringe(distance * probabilities[1:].max(axis=0) * STEPS, probabilities, labels)


def learned(
    object_map: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float32], labels: Labels
) -> npt.NDArray[np.int32]:
    """Compute the height map (H, W) for the watershed from the object map (H, W), in the units of `heights`.

    The height is the object map, `TOP` px high, times the probability of the likeliest foreground class.
    """
    return _with_fringe(object_map * probabilities[1:].max(axis=0) * (TOP * STEPS), probabilities, labels)


def _with_fringe(
    inside: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float32], labels: Labels
) -> npt.NDArray[np.int32]:
    """Round the heights of the core, `inside` (H, W), and add those of the fringe and the background."""
    ground: npt.NDArray[np.int32] = LOWEST + np.rint(inside).astype(np.int32)
    fringe = ~core(labels, probabilities)
    ground[fringe] = np.rint((1 - probabilities[0][fringe]) * (LOWEST - 1)).astype(np.int32)
    ground[labels == 0] = -1
    return ground


def distances(inside: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.float32]:
    """Return the distance (H, W), px, from each pixel to the nearest False pixel of `inside`, capped at `most`."""
    distance = cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.minimum(distance, np.float32(most))


def reach(height: int, width: int) -> int:
    """Return the limit, in px, for distances to the background in an image of `height` x `width` px."""
    return min(REACH, height + width)


def steps(depth: float) -> int:
    """Convert a depth in px to a height difference, in the units of `heights`; the result is at least 1."""
    return max(1, round(depth * STEPS))


def measured(
    objects: Objects, probabilities: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return two arrays, indexed by object id: areas (N,), px, and mean foreground probabilities (N,)."""
    ids = objects.ravel()
    area = np.bincount(ids)
    return area, 1 - np.bincount(ids, probabilities[0].ravel()) / np.maximum(area, 1)


def selected(objects: Objects, keep: npt.NDArray[np.bool_]) -> Objects:
    """Keep the objects whose entry in `keep` (N,) is True; renumber them from 1 in the order of their first pixels."""
    kept = np.flatnonzero(keep & (np.bincount(objects.ravel(), minlength=keep.size) > 0))
    kept = kept[kept > 0]
    first = np.zeros(keep.size, np.int64)
    columns = np.arange(objects.shape[1])[::-1]
    for row in range(objects.shape[0] - 1, -1, -1):
        # `first` will hold the position of the first pixel of each object. Rows are read from bottom to top, columns
        # from right to left, so the first pixel comes last and overwrites the positions of the others.
        # If an id occurs several times in one assignment, numpy keeps the position that is assigned last.
        first[objects[row, ::-1]] = row * objects.shape[1] + columns
    numbers = np.zeros(keep.size, np.int32)
    numbers[kept[np.argsort(first[kept])]] = np.arange(1, kept.size + 1)
    return numbers[objects]


def class_labels(objects: Objects, labels: Labels) -> Labels:
    """Return class ids (H, W): each object gets its most frequent class, and all other pixels become background."""
    classes = int(labels.max(initial=0)) + 1
    count = int(objects.max(initial=0)) + 1
    votes = np.bincount(objects.ravel() * classes + labels.ravel(), minlength=count * classes).reshape(count, classes)
    winner: Labels = votes.argmax(axis=1).astype(np.uint8)
    winner[0] = 0
    return winner[objects]


def encode(objects: npt.NDArray[Any]) -> bytes:
    """Encode object ids (H, W) as a 16-bit PNG, or as a 32-bit TIFF if an id is larger than 65,535."""
    if objects.max(initial=0) < 2**16:
        return encode_png(objects.astype(np.uint16))
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, objects.astype(np.int32), compression="zlib")
    return stream.getvalue()


def encode_probabilities(probabilities: npt.NDArray[np.float32]) -> bytes:
    """Encode class probabilities (K, H, W) as a TIFF with one plane per class."""
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
    """Return the file suffix for an encoded PNG or TIFF: .png or .tif."""
    return ".png" if encoded.startswith(b"\x89PNG") else ".tif"


def segments(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Give each 4-connected component of `cells` (H, W) an id from 1; all other pixels get 0."""
    numbered = cv2.connectedComponents(np.ascontiguousarray(cells).view(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1]
    return numbered.astype(np.int32, copy=False)


def cut(cells: npt.NDArray[np.bool_], neck: float) -> npt.NDArray[np.int32]:
    """Cut `cells` (H, W) at necks by a watershed on the distance to the nearest pixel outside; return their ids (H, W).

    A neck is at least 1 px and a fraction `neck` of the smaller cell's half width narrower than this half width.
    Two cells that a cut has parted have a line of 0 between them.
    """
    inside = distances(cells, reach(*cells.shape))
    ground = np.where(cells, LOWEST + np.rint(inside * STEPS).astype(np.int32), np.int32(-1))
    parts = _of_watershed(ground, NECK_DEPTH, neck)
    line = np.zeros(cells.shape, np.bool_)
    line[1:] |= _differ(parts[1:], parts[:-1])
    line[:, 1:] |= _differ(parts[:, 1:], parts[:, :-1])
    return segments(cells & ~line)


def _differ(here: Objects, there: Objects) -> npt.NDArray[np.bool_]:
    """Return where two arrays of object ids have two different objects."""
    different: npt.NDArray[np.bool_] = (here != there) & (here > 0) & (there > 0)
    return different


def thin(
    foreground_probability: npt.NDArray[Any], threshold: float, neck: float | None = None
) -> npt.NDArray[np.int32]:
    """Grow the segments (areas above `threshold`) until only lines one pixel wide are left between the segments.

    A segment is a connected component above the threshold, as in the ISBI 2012 challenge; no new segments appear. All
    segments grow at the same speed in all directions. No pixel changes its segment. A border inside a single segment
    vanishes.

    Parameters
    ----------
    foreground_probability
        (H, W) float, probability that a pixel is not border.
    threshold
        A pixel belongs to a segment if its probability is larger than the threshold.
    neck
        Segments are first cut at necks, see `cut`; None: segments are connected components.

    Returns
    -------
    (H, W) int32
        Segments numbered from 1; 0 is the line. If no pixel is above the threshold, all pixels are 0.
    """
    cells = foreground_probability > float(threshold)
    return _grown(segments(cells) if neck is None else cut(cells, neck))


def _grown(seeds: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Grow all segments pixel by pixel; a pixel where two would meet becomes part of the line between them.

    Pixels are coloured like a chessboard. Each step assigns the white pixels next to a segment, then the black
    pixels. Pixels of one colour do not touch, so the order of the pixels does not matter. Every segment stays
    4-connected, and every pixel of the line touches two segments. The option watershed_line of scikit-image guarantees
    neither of these.
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
    """Return, for each row of `ids` (N, 4), the one value that all entries above 0 share; 0 if none is shared."""
    highest = ids.max(axis=1)
    lowest = np.where(ids > 0, ids, highest[:, np.newaxis]).min(axis=1)
    return np.where(lowest == highest, highest, 0).astype(np.int32)
