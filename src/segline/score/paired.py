"""Two models on the same images: how much better one is, and how sure that is, by a paired bootstrap over images."""

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
CHUNK = 2**22  # numbers drawn at once

Values = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A figure and the ends of its confidence interval; nan where there is nothing to be scored."""

    value: float
    low: float
    high: float


class Paired(NamedTuple):
    """Two models, and by how much the second is better: above 0 it is, whichever way the figure runs."""

    first: Interval
    second: Interval
    gain: Interval


def value(scores: Sequence[Score], metric: Metric) -> float:
    """The figure of all of these images together, as `judge.total` has it; nan where there is nothing to be scored."""
    return float(_FIGURES[metric].divide(_table(scores, metric).sum(axis=0, keepdims=True))[0])


def known(scores: Sequence[Score], metric: Metric) -> bool:
    """Whether `metric` was counted on all of these images, of which there is one at least."""
    return bool(scores) and all(_FIGURES[metric].counts(one) is not None for one in scores)


def compare(
    first: Sequence[Score], second: Sequence[Score], metric: Metric, *, resamples: int, confidence: float, seed: int
) -> Paired:
    """Compare two models by one figure of all images together, as `judge.total` has it.

    Images are drawn with replacement, as many as there are; what was counted on them is added and divided once, for
    both models on the same draw. The ends are percentiles over all draws (Efron and Tibshirani 1993, ch. 13).

    Where there is nothing in truth and nothing in prediction, a model has no figure. Where that is so with one of them
    only, the other saw what is not there: the first then counts as perfect.

    Parameters
    ----------
    first, second
        What was counted with each model on the same images, in the same order.
    metric
        One that is `known`.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} images and {len(second)}; both models must answer the same ones")
    one, other, divide = _table(first, metric), _table(second, metric), _FIGURES[metric].divide
    drawn = [(divide(draw @ one), divide(draw @ other)) for draw in _draws(len(first), resamples, seed)]
    ones, others = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return Paired(
        _interval(value(first, metric), ones, confidence),
        _interval(value(second, metric), others, confidence),
        _interval(gain(first, second, metric), _gain(ones, others, metric), confidence),
    )


def gain(first: Sequence[Score], second: Sequence[Score], metric: Metric) -> float:
    """How much better the second model is on all of these images together; nan where neither has a figure."""
    return float(_gain(np.array(value(first, metric)), np.array(value(second, metric)), metric))


def _draws(images: int, resamples: int, seed: int) -> Iterator[Values]:
    """How often each image is drawn, (some resamples, images) at a time."""
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
    """What is added over the images, a row each."""
    return np.array([_FIGURES[metric].counts(one) for one in scores], np.float64)


def _mean_iou(confusion: Values) -> Values:
    """Of flattened matrices (N, K * K), exact up to 2**53 pixels."""
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
    """One image's part in a mean over the images that have a value."""
    if value is None:
        return None
    return (0.0, 0) if math.isnan(value) else (value, 1)


class _Figure(NamedTuple):
    counts: Callable[[Score], Sequence[float] | None]
    """What is added over the images; None where it was not counted."""
    divide: Callable[[Values], Values]
    """Sums of that, a row a draw, to the figure of each draw."""


def _quotient(sums: Values) -> Values:
    return _divide(sums[:, 0], sums[:, 1])


_FIGURES: dict[Metric, _Figure] = {
    "mean_iou": _Figure(lambda one: one.confusion.ravel().tolist(), _mean_iou),
    "pixel_error": _Figure(
        lambda one: (int(one.confusion.sum() - np.trace(one.confusion)), int(one.confusion.sum())), _quotient
    ),
    "ap_50": _Figure(lambda one: one.matched, lambda sums: _divide(sums[:, 0], sums.sum(axis=1))),
    "ap_50_by_image": _Figure(
        lambda one: _if_any(instances.average_precision(*one.matched)) if one.matched else None, _quotient
    ),
    "seg": _Figure(lambda one: one.seg, _quotient),
    "pq": _Figure(lambda one: one.panoptic, lambda sums: _divide(sums[:, 0], sums @ np.array([0, 1, 0.5, 0.5]))),
    "v_rand": _Figure(lambda one: _if_any(one.v_rand), _quotient),
    "v_info": _Figure(lambda one: _if_any(one.v_info), _quotient),
}
