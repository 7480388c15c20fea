"""Compute V^Rand and V^Info: measures of how well true and predicted segments (areas between borders) agree.

Definitions: Arganda-Carreras et al. 2015 (the ISBI 2012 challenge), foreground-restricted and after thinning.
Segments are (H, W) integer ids, 0 = border. Only the n pixels that lie in a true segment are counted. A counted pixel
on a predicted border is a predicted segment of one pixel.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segline.score.instances import overlaps


def v_rand(truth_segments: npt.NDArray[Any], predicted_segments: npt.NDArray[Any]) -> float:
    """Return V^Rand, the foreground-restricted Rand F-score; nan if there is no true segment.

    The score is 2 sum_AB / (sum_A + sum_B).
    sum_A, sum_B and sum_AB are the probabilities that two pixels share a true segment, a predicted segment, and both.
    """
    return _rand(_sizes(truth_segments, predicted_segments))


def v_info(truth_segments: npt.NDArray[Any], predicted_segments: npt.NDArray[Any]) -> float:
    """Return V^Info, the foreground-restricted information F-score; nan if there is no true segment.

    The score is 2 I(T; S) / (H(T) + H(S)): T are the true segments, S the predicted segments.
    The score is 1 if truth and prediction are a single segment each, because both entropies are then 0.
    """
    return _info(_sizes(truth_segments, predicted_segments))


class _Sizes(NamedTuple):
    """Sizes, in px, of the segments within the true foreground. Pixels on predicted borders are counted separately."""

    together: npt.NDArray[np.int64]
    """Number of pixels shared by a true and a predicted segment, one entry per pair."""
    truth: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    lines: int
    """Number of pixels on a predicted border; each such pixel is a segment of its own."""


def _sizes(truth_segments: npt.NDArray[Any], predicted_segments: npt.NDArray[Any]) -> _Sizes:
    table = overlaps(truth_segments, predicted_segments)
    counted, segment = table.truth > 0, table.predicted > 0
    both = counted & segment
    return _Sizes(
        table.pixels[both],
        _sum_by(table.truth[counted], table.pixels[counted]),
        _sum_by(table.predicted[both], table.pixels[both]),
        int(table.pixels[counted & ~segment].sum()),
    )


def _sum_by(ids: npt.NDArray[np.int64], pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Add up the pixel counts `pixels` by id; return the total number of pixels of each distinct id in `ids`."""
    sums = np.bincount(np.unique(ids, return_inverse=True)[1], weights=pixels)
    return sums.astype(np.int64)


def _rand(sizes: _Sizes) -> float:
    if not sizes.truth.size:
        return float("nan")
    # Use sums of squared sizes instead of probabilities. The sums are integers, so only the division below rounds.
    together = _squares(sizes.together) + sizes.lines
    return 2 * together / (_squares(sizes.truth) + _squares(sizes.predicted) + sizes.lines)


def _info(sizes: _Sizes) -> float:
    if not sizes.truth.size:
        return float("nan")
    n = int(sizes.truth.sum())
    truth, predicted = _entropy(sizes.truth, n), _entropy(sizes.predicted, n)
    if truth + predicted == 0:
        return 1.0
    return max(0.0, 2 * (truth + predicted - _entropy(sizes.together, n)) / (truth + predicted))


def _squares(sizes: npt.NDArray[np.int64]) -> int:
    return int(np.dot(sizes, sizes))


def _entropy(sizes: npt.NDArray[np.int64], n: int) -> float:
    """Return the entropy of the segments in nats, multiplied by the number of pixels `n`.

    `sizes` may omit segments of one pixel, because 1 log 1 = 0. fsum rounds once, so the result does not depend on the
    order of the ids.
    """
    return n * math.log(n) - math.fsum(size * math.log(size) for size in sizes.tolist())
