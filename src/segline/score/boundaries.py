"""Segments between borders, and how well they agree: V^Rand, V^Info and their sweep over thresholds.

Definitions: Arganda-Carreras et al. 2015 (the ISBI 2012 challenge), foreground-restricted and after thinning.
Segments are (H, W) integer ids, 0 = border. Only pixels with a true segment count, n in number; each of those that
lies on a predicted border is a predicted segment of its own.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segline.score.instances import overlaps

THRESHOLDS = tuple(step / 20 for step in range(1, 20))


def segments(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Number the 4-connected components of `cells` (H, W) from 1; 0 elsewhere."""
    numbered: npt.NDArray[np.int32] = ndimage.label(cells, output=np.int32)[0]
    return numbered


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


def v_rand(truth_segments: npt.NDArray[Any], predicted_segments: npt.NDArray[Any]) -> float:
    """Foreground-restricted Rand F-score, 2 sum_AB / (sum_A + sum_B); nan when truth holds no segment.

    sum_A, sum_B and sum_AB are the chances that two pixels share a true segment, a predicted one, and both.
    """
    return _rand(_sizes(truth_segments, predicted_segments))


def v_info(truth_segments: npt.NDArray[Any], predicted_segments: npt.NDArray[Any]) -> float:
    """Foreground-restricted information F-score, 2 I(T; S) / (H(T) + H(S)); nan when truth holds no segment.

    When both sides are one single segment, there is no information to share and they agree: 1.
    """
    return _info(_sizes(truth_segments, predicted_segments))


def sweep(
    probabilities: Sequence[npt.NDArray[Any]],
    truth_segments: Sequence[npt.NDArray[Any]],
    thresholds: Sequence[float],
    ignored: Sequence[npt.NDArray[np.bool_]] | None = None,
) -> list[dict[str, float]]:
    """Score the slices at each threshold.

    Parameters
    ----------
    probabilities
        For each slice (H, W) float, the probability of not being border. Sizes may differ.
    truth_segments
        For each slice (H, W) integer, not thinned.
    thresholds
        Each is used for all slices.
    ignored
        For each slice (H, W) bool: pixels that do not count.

    Returns
    -------
    One dict a threshold: threshold; v_rand and v_info, means over the slices that hold a true segment (nan if none
    does); pixel_error, the wrong pixels of all slices by their counted pixels (before thinning).
    """
    if len(probabilities) != len(truth_segments):
        raise ValueError(f"{len(probabilities)} probabilities, but {len(truth_segments)} true slices; they go in pairs")
    for probability, truth in zip(probabilities, truth_segments, strict=True):
        if probability.shape != truth.shape:
            raise ValueError(
                f"probabilities have shape {probability.shape}, truth {truth.shape}; give one class, (H, W)"
            )
    if ignored is None:
        ignored = [np.zeros(truth.shape, np.bool_) for truth in truth_segments]
    truth_segments = [np.where(mask, 0, truth) for truth, mask in zip(truth_segments, ignored, strict=True)]
    return [_at(float(threshold), probabilities, truth_segments, ignored) for threshold in thresholds]


def best_thresholds(scored: Sequence[dict[str, float]]) -> tuple[float, float]:
    """The thresholds, of those in a `sweep`, with the least pixel error and with the best V^Rand.

    They lie apart: pixels are right most often near 0.5, but a segment leaks through the one faintest pixel of its
    border. The challenge, too, takes the best threshold for each figure. Of equals, the one nearest to 0.5.
    """

    def best(goodness: Callable[[dict[str, float]], float]) -> float:
        first = max(scored, key=lambda at: (np.nan_to_num(goodness(at), nan=-np.inf), -abs(at["threshold"] - 0.5)))
        return first["threshold"]

    return best(lambda at: -at["pixel_error"]), best(lambda at: at["v_rand"])


def _at(
    threshold: float,
    probabilities: Sequence[npt.NDArray[Any]],
    truth_segments: Sequence[npt.NDArray[Any]],
    ignored: Sequence[npt.NDArray[np.bool_]],
) -> dict[str, float]:
    rand, info, wrong, counted = [], [], 0, 0
    for probability, truth, mask in zip(probabilities, truth_segments, ignored, strict=True):
        wrong += int(np.count_nonzero(((probability > threshold) != (truth > 0)) & ~mask))
        counted += mask.size - int(np.count_nonzero(mask))
        if truth.any():
            sizes = _sizes(truth, thin(probability, threshold))
            rand.append(_rand(sizes))
            info.append(_info(sizes))
    return {
        "threshold": threshold,
        "v_rand": _mean(rand),
        "v_info": _mean(info),
        "pixel_error": wrong / counted if counted else float("nan"),
    }


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else float("nan")


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


class _Sizes(NamedTuple):
    """Pixels of the segments within the true foreground; predicted lines apart, as they are segments of one pixel."""

    together: npt.NDArray[np.int64]
    """Shared by a true and a predicted segment, one a pair."""
    truth: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    lines: int
    """Pixels on a predicted line."""


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
    """Pixels of each distinct id."""
    sums = np.bincount(np.unique(ids, return_inverse=True)[1], weights=pixels)
    return sums.astype(np.int64)


def _rand(sizes: _Sizes) -> float:
    if not sizes.truth.size:
        return float("nan")
    # All three sums, times n * n, are integers: exact up to this one division.
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
    """n times the entropy of the segments, in nats; a segment of one pixel may be left out of `sizes`: 1 log 1 = 0.

    fsum rounds once, so that the order of the ids changes nothing.
    """
    return n * math.log(n) - math.fsum(size * math.log(size) for size in sizes.tolist())
