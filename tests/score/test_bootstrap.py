"""Judges: the bootstrap of scipy, judge.total on explicit draws, and laws of a paired bootstrap."""

from typing import get_args

import numpy as np
import pytest
from scipy import stats

from segline.params import Gate
from segline.score import bootstrap, judge
from segline.score.instances import Matches, Panoptic
from segline.score.judge import Score

CLASSES = {0: "background", 1: "cell", 2: "debris"}
SETTINGS = {"resamples": 2000, "confidence": 0.9, "seed": 3}


def random_scores(images: int, seed: int) -> list[Score]:
    """Make scores of images with three classes, some without objects and cells."""
    rng = np.random.default_rng(seed)
    scores = []
    for index in range(images):
        matched = Matches(*rng.integers(0, 9, 3).tolist()) if index % 4 else Matches(0, 0, 0)
        scores.append(
            Score(
                rng.integers(0, 1000, (3, 3)),
                matched,
                (float(rng.random() * 5), 5) if index % 4 else (0.0, 0),
                Panoptic(matched.tp * 0.8, *matched),
                float(rng.random()) if index % 5 else float("nan"),
                float(rng.random()),
            )
        )
    return scores


def pixels(right: int, wrong: int) -> Score:
    """Make the score of an image with `right` found and `wrong` missed foreground pixels."""
    return Score(np.array([[0, 0], [wrong, right]]))


@pytest.mark.parametrize("metric", bootstrap.METRICS)
def test_values_agree_with_judge(metric: bootstrap.Metric) -> None:
    first, second = random_scores(20, 0), random_scores(20, 1)
    result = bootstrap.compare(first, second, metric, **SETTINGS)
    assert result.first.value == pytest.approx(judge.total(first, CLASSES)[metric])
    assert result.second.value == pytest.approx(judge.total(second, CLASSES)[metric])
    sign = -1 if metric == "pixel_error" else 1
    assert result.gain.value == pytest.approx(sign * (result.second.value - result.first.value))
    assert result.gain.value == bootstrap.gain(first, second, metric)


@pytest.mark.parametrize("metric", bootstrap.METRICS)
def test_ends_are_percentiles_of_explicit_draws(metric: bootstrap.Metric) -> None:
    first, second = random_scores(7, 0), random_scores(7, 1)
    drawn = np.random.default_rng(3).integers(0, 7, (50, 7))
    gains = []
    for draw in drawn:
        first_value, second_value = (
            judge.total([scores[index] for index in draw], CLASSES)[metric] for scores in (first, second)
        )
        gain = second_value - first_value
        gains.append(-gain if metric == "pixel_error" else gain)
    result = bootstrap.compare(first, second, metric, resamples=50, confidence=0.8, seed=3)
    assert result.gain[1:] == pytest.approx(np.percentile(gains, [10, 90]))


def test_ends_agree_with_scipy() -> None:
    """scipy supports means over the images, such as V^Rand."""
    rng = np.random.default_rng(0)
    first, second = rng.random(60), rng.random(60)
    scores = [[Score(np.eye(2, dtype=np.int64), v_rand=value) for value in values] for values in (first, second)]
    ours = bootstrap.compare(*scores, "v_rand", resamples=20_000, confidence=0.95, seed=1)
    settings = {"n_resamples": 20_000, "method": "percentile", "rng": 2}
    for values, interval in ((first, ours.first), (second, ours.second), (second - first, ours.gain)):
        theirs = stats.bootstrap((values,), np.mean, **settings).confidence_interval
        assert interval.low == pytest.approx(theirs.low, abs=0.004)
        assert interval.high == pytest.approx(theirs.high, abs=0.004)


@pytest.mark.parametrize("metric", bootstrap.METRICS)
def test_a_model_has_no_gain_over_itself(metric: bootstrap.Metric) -> None:
    scores = random_scores(9, 0)
    result = bootstrap.compare(scores, scores, metric, **SETTINGS)
    assert result.gain == (0, 0, 0)
    assert result.first == result.second
    assert result.first.low < result.first.value < result.first.high


@pytest.mark.parametrize("metric", bootstrap.METRICS)
def test_the_gain_changes_its_sign_when_the_models_are_swapped(metric: bootstrap.Metric) -> None:
    first, second = random_scores(9, 0), random_scores(9, 1)
    forth, back = (
        bootstrap.compare(first, second, metric, **SETTINGS),
        bootstrap.compare(second, first, metric, **SETTINGS),
    )
    assert (forth.first, forth.second) == (back.second, back.first)
    assert forth.gain == pytest.approx((-back.gain.value, -back.gain.high, -back.gain.low))


def test_pairs_are_kept_together() -> None:
    """A gain that is equal on all images is certain, however much the images differ."""
    first = [pixels(10 * n, 1000 - 10 * n) for n in range(1, 50)]
    second = [pixels(10 * n + 5, 995 - 10 * n) for n in range(1, 50)]
    result = bootstrap.compare(first, second, "mean_iou", **SETTINGS)
    assert result.gain == pytest.approx((0.005, 0.005, 0.005))
    assert result.first.high - result.first.low > 0.05


def test_large_images_count_more() -> None:
    large, small = pixels(900, 100), pixels(0, 10)
    result = bootstrap.compare([large, small], [large, large], "mean_iou", **SETTINGS)
    assert result.first == pytest.approx((900 / 1010, 0, 0.9))


def test_the_gain_of_models_without_a_value() -> None:
    nothing, seen, missed = (Score(np.array(table)) for table in ([[9, 0], [0, 0]], [[8, 1], [0, 0]], [[5, 0], [4, 0]]))
    assert np.isnan(bootstrap.compare([nothing], [nothing], "mean_iou", **SETTINGS)).all()
    assert bootstrap.gain([nothing], [seen], "mean_iou") == -1  # the second predicts an object that does not exist
    assert bootstrap.gain([seen], [nothing], "mean_iou") == 1
    assert bootstrap.gain([nothing, missed], [nothing, missed], "mean_iou") == 0


def test_many_images_are_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = random_scores(9, 0), random_scores(9, 1)
    whole = bootstrap.compare(first, second, "ap_50", **SETTINGS)
    monkeypatch.setattr(bootstrap, "CHUNK", 100)
    parts = bootstrap.compare(first, second, "ap_50", **SETTINGS)
    assert parts.gain == whole.gain


def test_a_metric_without_counts_is_not_known() -> None:
    scores = random_scores(3, 0)
    plain = [Score(score.confusion) for score in scores]
    assert [metric for metric in bootstrap.METRICS if bootstrap.known(plain, metric)] == ["mean_iou", "pixel_error"]
    assert all(bootstrap.known(scores, metric) for metric in bootstrap.METRICS)
    assert not bootstrap.known([], "mean_iou")
    with pytest.raises(ValueError, match="scores for 3 images, the second model for 2; score both"):
        bootstrap.compare(scores, scores[:2], "mean_iou", **SETTINGS)


def test_the_metrics_are_those_of_the_gate_and_judge() -> None:
    assert get_args(Gate.model_fields["metric"].annotation) == bootstrap.METRICS
    # Without detection_auc: a registered model does not return probabilities.
    assert set(bootstrap.METRICS) == set(judge.METRICS) - {"detection_auc"}
