"""Compare two models on the same images: gain and confidence interval by a paired bootstrap over images."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from segline.score import instances
from segline.score.judge import Score

Metric = Literal["mean_iou", "pixel_error", "ap_50", "ap_50_by_image", "seg", "pq", "v_rand", "v_info"]
METRICS: tuple[Metric, ...] = get_args(Metric)
LOWER_IS_BETTER = ("pixel_error",)
CHUNK = 2**22  # random numbers generated at a time

Values = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """Value of a metric, and both ends of the confidence interval. All are nan if no image can be scored."""

    value: float
    low: float
    high: float


class Paired(NamedTuple):
    """Values of a metric for two models, and the gain (positive if the second model is better)."""

    first: Interval
    second: Interval
    gain: Interval


def value(scores: Sequence[Score], metric: Metric) -> float:
    """Return the metric over all images together, computed as in `judge.total`; nan if no image can be scored."""
    return float(_DEFINITIONS[metric].divide(_table(scores, metric).sum(axis=0, keepdims=True))[0])


def known(scores: Sequence[Score], metric: Metric) -> bool:
    """Return whether `metric` can be computed: `scores` is not empty, and every score has the counts for the metric."""
    return bool(scores) and all(_DEFINITIONS[metric].counts(score) is not None for score in scores)


def compare(
    first: Sequence[Score], second: Sequence[Score], metric: Metric, *, resamples: int, confidence: float, seed: int
) -> Paired:
    """Compare two models by a metric over all images together, computed as in `judge.total`.

    Each resample picks as many images as there are, with replacement. Both models are scored on the same resamples. The
    ends of the interval are percentiles over all resamples (Efron and Tibshirani 1993, ch. 13).

    A model has no value if truth and prediction are both empty. If only one model has no value, the other model has
    predicted something that is not there. So the model without a value is treated as perfect.

    Parameters
    ----------
    first, second
        Scores of each model on the same images, in the same order.
    metric
        A metric that is `known` for both models.
    """
    if len(first) != len(second):
        raise ValueError(
            f"the first model has scores for {len(first)} images, the second model for {len(second)}; score both "
            "models on the same images"
        )
    counts, other_counts, divide = _table(first, metric), _table(second, metric), _DEFINITIONS[metric].divide
    drawn = [(divide(draw @ counts), divide(draw @ other_counts)) for draw in _draws(len(first), resamples, seed)]
    values, other_values = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return Paired(
        _interval(value(first, metric), values, confidence),
        _interval(value(second, metric), other_values, confidence),
        _interval(gain(first, second, metric), _gain(values, other_values, metric), confidence),
    )


def gain(first: Sequence[Score], second: Sequence[Score], metric: Metric) -> float:
    """Return how much better the second model is on all images together; nan if the metric is nan for both models."""
    return float(_gain(np.array(value(first, metric)), np.array(value(second, metric)), metric))


def _draws(images: int, resamples: int, seed: int) -> Iterator[Values]:
    """Draw resamples; yield them in chunks, as arrays (resamples, images) of how often each image was drawn."""
    generator = np.random.default_rng(seed)
    many = max(1, CHUNK // images)
    for start in range(0, resamples, many):
        rows = min(many, resamples - start)
        drawn = generator.integers(0, images, (rows, images)) + images * np.arange(rows)[:, np.newaxis]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def _interval(value: float, drawn: Values, confidence: float) -> Interval:
    numbers = drawn[~np.isnan(drawn)]
    if not numbers.size:
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(numbers, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def _gain(first: Values, second: Values, metric: Metric) -> Values:
    if metric in LOWER_IS_BETTER:
        first, second = 1 - first, 1 - second
    nothing = np.isnan(first) & np.isnan(second)
    return np.where(nothing, np.nan, np.where(np.isnan(second), 1, second) - np.where(np.isnan(first), 1, first))


def _table(scores: Sequence[Score], metric: Metric) -> Values:
    """Return the counts for `metric` as an array with one row per image."""
    return np.array([_DEFINITIONS[metric].counts(score) for score in scores], np.float64)


def _mean_iou(confusion: Values) -> Values:
    """Return the mean IoUs (N,) of N flattened confusion matrices (N, K * K); counts are exact up to 2**53 pixels."""
    classes = math.isqrt(confusion.shape[1])
    matrices = confusion.reshape(-1, classes, classes)
    both = np.diagonal(matrices, axis1=1, axis2=2)
    iou = _divide(both, matrices.sum(axis=1) + matrices.sum(axis=2) - both)[:, 1:]
    return _divide(np.nansum(iou, axis=1), (~np.isnan(iou)).sum(axis=1))


def _divide(above: Values, below: npt.NDArray[np.number]) -> Values:
    quotient = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def _if_any(value: float | None) -> tuple[float, int] | None:
    """Return what one image adds to the sum and to the number of values: (value, 1), or (0, 0) if the value is nan."""
    if value is None:
        return None
    return (0.0, 0) if math.isnan(value) else (value, 1)


class _Definition(NamedTuple):
    counts: Callable[[Score], Sequence[float] | None]
    """Return the counts that are summed over the images; None if the score lacks them."""
    divide: Callable[[Values], Values]
    """Compute the metric of each resample. The argument holds the summed counts, one row per resample."""


def _quotient(sums: Values) -> Values:
    return _divide(sums[:, 0], sums[:, 1])


def _panoptic_quality(sums: Values) -> Values:
    return _divide(sums[:, 0], sums @ np.array([0, 1, 0.5, 0.5]))


_DEFINITIONS: dict[Metric, _Definition] = {
    "mean_iou": _Definition(lambda score: score.confusion.ravel().tolist(), _mean_iou),
    "pixel_error": _Definition(
        lambda score: (int(score.confusion.sum() - np.trace(score.confusion)), int(score.confusion.sum())), _quotient
    ),
    "ap_50": _Definition(lambda score: score.matched, lambda sums: _divide(sums[:, 0], sums.sum(axis=1))),
    "ap_50_by_image": _Definition(
        lambda score: _if_any(instances.average_precision(*score.matched)) if score.matched else None, _quotient
    ),
    "seg": _Definition(lambda score: score.seg, _quotient),
    "pq": _Definition(
        lambda score: score.panoptic, lambda sums: _divide(sums[:, 0], sums @ np.array([0, 1, 0.5, 0.5]))
    ),
    "v_rand": _Definition(lambda score: _if_any(score.v_rand), _quotient),
    "v_info": _Definition(lambda score: _if_any(score.v_info), _quotient),
}
