"""Match true and predicted objects, and compute AP, PQ and SEG, from a sparse table of overlaps.

All functions take label images: (H, W) integer ids, 0 = background. Ids need not be consecutive. To ignore pixels, set
them to 0 in both images. Counts of several images are summed before anything is divided.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

LARGEST_ID = 2**31 - 1
"""Largest id for which a pair of ids, encoded as one number, fits into an int64."""


class Overlaps(NamedTuple):
    """Sparse contingency table: one row per pair of ids that share pixels. Background (id 0) is included."""

    truth: Integers
    """True id of the pair, (N,), in rising order."""
    predicted: Integers
    """Predicted id of the pair, (N,)."""
    pixels: Integers
    """Number of pixels with both ids, (N,)."""
    truth_area: Integers
    """Number of pixels with the true id, whatever the prediction, (N,)."""
    predicted_area: Integers
    """Number of pixels with the predicted id, whatever the truth, (N,)."""


class Matches(NamedTuple):
    """Numbers of true positive, false positive and false negative objects, to be summed over images."""

    tp: int
    fp: int
    fn: int


class Panoptic(NamedTuple):
    """Terms of the panoptic quality, to be summed over images."""

    iou_sum: float
    tp: int
    fp: int
    fn: int


def overlaps(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> Overlaps:
    """Count the pixels shared by each pair of ids. Memory grows only with the number of pairs that overlap.

    Raises
    ------
    ValueError
        The shapes differ, or an id is not an integer from 0 to LARGEST_ID.
    """
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth has shape {truth.shape}, but predicted has shape {predicted.shape}; the shapes must be equal"
        )
    _check_ids("truth", truth)
    _check_ids("predicted", predicted)
    width = int(predicted.max(initial=0)) + 1
    pairs = (truth.astype(np.int64) * width + predicted.astype(np.int64)).ravel()
    if pairs.max(initial=0) < pairs.size:  # counting takes a tenth of the time of sorting
        counts = np.bincount(pairs)
        cells = np.flatnonzero(counts)
        pixels = counts[cells]
    else:
        cells, pixels = np.unique(pairs, return_counts=True)
    true_ids, predicted_ids = cells // width, cells % width
    return Overlaps(true_ids, predicted_ids, pixels, _areas(true_ids, pixels), _areas(predicted_ids, pixels))


def matches(truth: npt.NDArray[Any], predicted: npt.NDArray[Any], iou: float) -> Matches:
    """Pair true and predicted objects one to one if their IoU is at least `iou`; count pairs and unpaired objects.

    With `iou` above 0.5, an object has at most one partner. With 0.5 exactly (an object cut into equal halves) or less,
    an object may have several partners. Then the largest one-to-one matching is used, so no object is in two pairs.

    Parameters
    ----------
    iou
        Smallest intersection over union, in (0, 1]. Write 0.6; the sum 0.5 + 0.05 + 0.05 is slightly larger than 0.6.
    """
    return matches_of(overlaps(truth, predicted), iou)


def matches_of(table: Overlaps, iou: float) -> Matches:
    """Match objects as `matches` does, but from a table of overlaps."""
    if not 0 < iou <= 1:
        raise ValueError(f"iou = {iou} is not a valid threshold; it must be above 0 and at most 1")
    pairs, scores = _object_pairs(table)
    tp = _largest_matching(table.truth[pairs][scores >= iou], table.predicted[pairs][scores >= iou])
    return Matches(tp, _objects(table.predicted) - tp, _objects(table.truth) - tp)


def only(table: Overlaps, keep: npt.NDArray[np.bool_]) -> Overlaps:
    """Return a copy of the table in which some predicted objects are turned into background.

    An object becomes background if the entry for its id in the array `keep` (ids,) is False. The area of the
    background is not updated, because no metric of objects uses this area.
    """
    return table._replace(predicted=np.where(keep[table.predicted], table.predicted, 0))


def average_precision(tp: int, fp: int, fn: int) -> float:
    """Return AP = TP / (TP + FP + FN), as in the Data Science Bowl 2018; nan if there are no objects."""
    return tp / (tp + fp + fn) if tp + fp + fn else float("nan")


def seg(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> tuple[float, int]:
    """Return two numbers for SEG: the sum of the true objects' Jaccard indices, and the number of true objects.

    A true object is scored against the predicted object that covers more than half of it; without such an object it
    scores 0 (Cell Tracking Challenge). SEG is the quotient of these numbers, each summed over all images.
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
    """Return the panoptic quality PQ of one class (Kirillov et al. 2019, eq. 1); nan if there are no objects."""
    return iou_sum / (tp + fp / 2 + fn / 2) if tp + fp + fn else float("nan")


def _object_pairs(table: Overlaps) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Find the table rows in which both ids are objects; return the indices of these rows and the IoU of each pair."""
    pairs = np.flatnonzero((table.truth > 0) & (table.predicted > 0))
    shared = table.pixels[pairs]
    return pairs, shared / (table.truth_area[pairs] + table.predicted_area[pairs] - shared)


def _objects(ids: Integers) -> int:
    return int(np.unique(ids[ids > 0]).size)


def _areas(ids: Integers, pixels: Integers) -> Integers:
    """For each entry of `ids`, return the sum of `pixels` over all entries with the same id."""
    _, place = np.unique(ids, return_inverse=True)
    # bincount sums the weights as float64, which is exact below 2**53 pixels.
    return np.bincount(place, weights=pixels).astype(np.int64)[place]


def _largest_matching(truth: Integers, predicted: Integers) -> int:
    """Return the size of the largest set of pairs that uses each id at most once."""
    rows, columns = np.unique(truth, return_inverse=True)[1], np.unique(predicted, return_inverse=True)[1]
    if np.bincount(rows).max(initial=0) <= 1 and np.bincount(columns).max(initial=0) <= 1:
        return int(truth.size)
    # Import scipy late, because only IoU thresholds of 0.5 or less need scipy.
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    partners = maximum_bipartite_matching(csr_array((np.ones(truth.size), (rows, columns))))
    return int((partners >= 0).sum())


def _check_ids(name: str, ids: npt.NDArray[Any]) -> None:
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{name} has type {ids.dtype}; object ids must be integers")
    for worst in (ids.min(), ids.max()) if ids.size else ():
        if not 0 <= worst <= LARGEST_ID:
            raise ValueError(f"{name} contains id {worst}; object ids are 1 to {LARGEST_ID}, and 0 is background")
