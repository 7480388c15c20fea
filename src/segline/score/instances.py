"""Objects matched to objects: AP, PQ and SEG, from one sparse table of overlaps.

All functions take label images: (H, W) integer ids, 0 = background, ids need not be consecutive. To leave pixels out
(an ignore id), set both images to 0 there. Counts of several images are added; only the sum is divided.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

LARGEST_ID = 2**31 - 1
"""A pair of ids fits an int64."""


class Overlaps(NamedTuple):
    """The cells of a contingency table that are not 0, background (id 0) included; one row a pair of ids."""

    truth: Integers
    """True id of the pair, (N,), rising."""
    predicted: Integers
    """Predicted id of the pair, (N,)."""
    pixels: Integers
    """Pixels that carry both, (N,)."""
    truth_area: Integers
    """Pixels that carry the true id, whatever was predicted there, (N,)."""
    predicted_area: Integers
    """Pixels that carry the predicted id, (N,)."""


class Matches(NamedTuple):
    """True positives, false positives and false negatives: objects, to be added over images."""

    tp: int
    fp: int
    fn: int


class Panoptic(NamedTuple):
    """What panoptic quality is made of, to be added over images."""

    iou_sum: float
    tp: int
    fp: int
    fn: int


def overlaps(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> Overlaps:
    """Return how many pixels each pair of ids shares; memory grows with the pairs that touch, not with all pairs.

    Raises
    ------
    ValueError
        The shapes differ, or an id is no integer from 0 to LARGEST_ID.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth has shape {truth.shape}, predicted {predicted.shape}; they must be one image")
    _check_ids("truth", truth)
    _check_ids("predicted", predicted)
    width = int(predicted.max(initial=0)) + 1
    pairs = (truth.astype(np.int64) * width + predicted.astype(np.int64)).ravel()
    if pairs.max(initial=0) < pairs.size:  # counting is a tenth of the work of sorting, while the table is no larger
        counts = np.bincount(pairs)
        cells = np.flatnonzero(counts)
        pixels = counts[cells]
    else:
        cells, pixels = np.unique(pairs, return_counts=True)
    true_ids, predicted_ids = cells // width, cells % width
    return Overlaps(true_ids, predicted_ids, pixels, _areas(true_ids, pixels), _areas(predicted_ids, pixels))


def matches(truth: npt.NDArray[Any], predicted: npt.NDArray[Any], iou: float) -> Matches:
    """Match true to predicted objects, one to one, where they overlap by at least `iou`.

    Above 0.5 an object has at most one partner. At 0.5 exactly (an object cut into equal halves) and below it may have
    several: then the most pairs that can be matched at once are counted, so that no object counts twice.

    Parameters
    ----------
    iou
        Smallest intersection over union, in (0, 1]; write 0.6, not 0.5 + 0.05 + 0.05, which is larger than 3/5.
    """
    return matches_of(overlaps(truth, predicted), iou)


def matches_of(table: Overlaps, iou: float) -> Matches:
    """`matches`, of overlaps that were counted before."""
    if not 0 < iou <= 1:
        raise ValueError(f"iou = {iou} is no threshold; it must be above 0 and at most 1")
    pairs, scores = _object_pairs(table)
    tp = _largest_matching(table.truth[pairs][scores >= iou], table.predicted[pairs][scores >= iou])
    return Matches(tp, _objects(table.predicted) - tp, _objects(table.truth) - tp)


def only(table: Overlaps, keep: npt.NDArray[np.bool_]) -> Overlaps:
    """The table as if of the predicted objects only those with True in `keep` (ids,) were there, the rest background.

    The area of the background stays as it was, as no figure of objects asks for it.
    """
    return table._replace(predicted=np.where(keep[table.predicted], table.predicted, 0))


def average_precision(tp: int, fp: int, fn: int) -> float:
    """AP = TP / (TP + FP + FN), as in the Data Science Bowl 2018; nan when there is no object on either side."""
    return tp / (tp + fp + fn) if tp + fp + fn else float("nan")


def seg(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> tuple[float, int]:
    """Return what SEG is made of: the sum of the true objects' Jaccard indices, and the number of true objects.

    An object scores with the prediction that covers more than half of it, else 0 (Cell Tracking Challenge). SEG is
    the sum over all images by the number over all images; it has no value where there is no true object.
    """
    table = overlaps(truth, predicted)
    pairs, scores = _object_pairs(table)
    covered = 2 * table.pixels[pairs] > table.truth_area[pairs]
    return math.fsum(scores[covered]), _objects(table.truth)


def panoptic(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> Panoptic:
    """Return the sum of IoU over the pairs with IoU > 0.5, and the counts of matched and unmatched objects."""
    table = overlaps(truth, predicted)
    _, scores = _object_pairs(table)
    matched = scores[scores > 0.5]
    tp = matched.size
    return Panoptic(math.fsum(matched), tp, _objects(table.predicted) - tp, _objects(table.truth) - tp)


def panoptic_quality(iou_sum: float, tp: int, fp: int, fn: int) -> float:
    """PQ of one class (Kirillov et al. 2019, eq. 1); nan when there is no object on either side."""
    return iou_sum / (tp + fp / 2 + fn / 2) if tp + fp + fn else float("nan")


def _object_pairs(table: Overlaps) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Rows of the table that pair two objects, and their IoU."""
    pairs = np.flatnonzero((table.truth > 0) & (table.predicted > 0))
    shared = table.pixels[pairs]
    return pairs, shared / (table.truth_area[pairs] + table.predicted_area[pairs] - shared)


def _objects(ids: Integers) -> int:
    return int(np.unique(ids[ids > 0]).size)


def _areas(ids: Integers, pixels: Integers) -> Integers:
    """Pixels of the id of each row."""
    _, place = np.unique(ids, return_inverse=True)
    # bincount adds weights as float64, which is exact below 2**53 pixels.
    return np.bincount(place, weights=pixels).astype(np.int64)[place]


def _largest_matching(truth: Integers, predicted: Integers) -> int:
    """How many of the pairs can stand at once when each id is used at most once."""
    rows, columns = np.unique(truth, return_inverse=True)[1], np.unique(predicted, return_inverse=True)[1]
    if np.bincount(rows).max(initial=0) <= 1 and np.bincount(columns).max(initial=0) <= 1:
        return int(truth.size)
    # Only reached at or below IoU 0.5; scipy would cost every other caller its import.
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    partners = maximum_bipartite_matching(csr_array((np.ones(truth.size), (rows, columns))))
    return int((partners >= 0).sum())


def _check_ids(name: str, ids: npt.NDArray[Any]) -> None:
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{name} holds {ids.dtype}, not integer ids")
    for worst in (ids.min(), ids.max()) if ids.size else ():
        if not 0 <= worst <= LARGEST_ID:
            raise ValueError(f"{name} holds id {worst}; objects are numbered 1 to {LARGEST_ID}, 0 is background")
