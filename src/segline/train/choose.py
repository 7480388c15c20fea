"""Choose inference settings on the validation split: thresholds, and how to separate touching objects."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from segline.data.dataset import IGNORE
from segline.model.inference import Inference, Outputs, Probabilities, to_labels
from segline.model.objects import NECK_DEPTH, REACH, Separation, find, measured, segments, thin
from segline.score import boundaries, counts, instances
from segline.score.judge import AP_IOU

Truth = npt.NDArray[np.uint8] | npt.NDArray[np.int32]  # (H, W)

SEGMENT_THRESHOLDS = (None, *(step / 20 for step in range(1, 20)))
# If cells are cut at necks, with fewer thresholds: on few images, an extreme one would be best by chance.
CUT_THRESHOLDS = (0.7, 0.65, 0.75, 0.6, 0.8)
SEGMENT_NECK = 0.4
CUT_MARGIN = 0.03
THRESHOLDS = tuple(step / 20 for step in range(1, 10))  # above 0.5, whole objects of low probability would vanish
# Of equally good settings, the first is chosen. So each tuple starts with the value that changes a prediction least.
DEPTHS: tuple[float | None, ...] = (None, 6.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.75)  # px
NECKS = (0.0, 0.1, 0.15, 0.2, 0.3, 0.4)
MIN_AREAS = (0, 10, 20, 30, 40, 60)  # px
MIN_PROBABILITIES = (0.0, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


def threshold(images: Iterable[tuple[Probabilities, Truth]], thresholds: Sequence[float] = THRESHOLDS) -> float | None:
    """Return the threshold with the best mean IoU of the foreground classes; None if the likeliest class is best.

    With the default, objects can only grow.

    Parameters
    ----------
    images:
        For each image: probabilities (K, H, W), and true classes (H, W), where IGNORE marks ignored pixels.
    """
    levels = np.array(thresholds, np.float32)  # compared in float32, as in `to_labels`
    likeliest, passing = [], []
    for probabilities, classes in images:
        counted = classes != IGNORE
        truth, p = classes[counted].astype(np.intp), probabilities[:, counted]
        kinds = len(p)
        likeliest.append(np.bincount(truth * kinds + p.argmax(axis=0), minlength=kinds**2).reshape(kinds, kinds))
        # A pixel passes the first `passed` thresholds, so one table of counts holds the confusion matrices of all.
        passed = np.searchsorted(levels, 1 - p[0], side="left")
        cells = (truth * kinds + p[1:].argmax(axis=0) + 1) * (levels.size + 1) + passed
        size = kinds**2 * (levels.size + 1)
        passing.append(np.bincount(cells, minlength=size).reshape(kinds, kinds, -1))
    above = np.stack(passing).sum(axis=0)
    best, score = None, counts.mean_iou(np.stack(likeliest).sum(axis=0))
    for number, level in enumerate(thresholds):
        matrix = above[..., number + 1 :].sum(axis=-1)
        matrix[:, 0] = above[..., : number + 1].sum(axis=(1, 2))
        if (value := counts.mean_iou(matrix)) > score:
            best, score = level, value
    return best


def depths(threshold: float | None, classes: int) -> tuple[float | None, ...]:
    """Return the depths to try with this threshold.

    Below a threshold of 0.5, connected components would join what only the fringe connects. A watershed with the
    greatest depth does not. But it joins objects of several classes that touch in the core, and components do not.
    `classes` includes the background.
    """
    if threshold is None or threshold >= 0.5:
        return DEPTHS
    return (float(REACH), *DEPTHS[1:], *([None] if classes > 2 else []))


def cuts(depths: Sequence[float | None], necks: Sequence[float]) -> list[tuple[float | None, float]]:
    """Return the pairs of depth and neck to try: all depths with the first neck, and one depth with all necks."""
    several = depths[0] if len(depths) == 1 else NECK_DEPTH
    return [
        (depth, neck) for depth in depths for neck in (necks if depth is not None and depth == several else necks[:1])
    ]


def segment_threshold(images: Iterable[tuple[Probabilities, Truth]], plain: Inference) -> float | None:
    """Return the segment threshold with the best mean V^Rand; None if the mean is best without a threshold.

    Parameters
    ----------
    images:
        For each image: probabilities (K, H, W), and true classes (H, W), where IGNORE marks ignored pixels.
    plain:
        The other inference settings.
    """
    scores = _v_rand(images, [replace(plain, segment_threshold=threshold) for threshold in SEGMENT_THRESHOLDS])
    return max(scores, key=lambda choice: scores[choice]).segment_threshold


def segmentation(
    images: Iterable[tuple[Probabilities, Truth]],
    plain: Inference,
    thresholds: Sequence[float | None],
    neck: float | None,
) -> Inference:
    """Return `plain` with a segment threshold and a segment neck.

    Two cells that a gap joins cost more than many cells that a neck divides, but a few validation images may happen to
    have no such gap. So cells are cut at necks, unless the mean V^Rand is better by more than `CUT_MARGIN` without.

    Parameters
    ----------
    images, plain:
        As in `segment_threshold`.
    thresholds:
        The segment thresholds to choose from; None: no segment threshold.
    neck:
        The segment neck to try; None: cells are not cut at necks.
    """
    without = [replace(plain, segment_threshold=threshold) for threshold in thresholds]
    cutting = CUT_THRESHOLDS if len(thresholds) > 1 else thresholds
    cuts = [replace(plain, segment_threshold=threshold, segment_neck=neck) for threshold in cutting]
    scores = _v_rand(images, without if neck is None else [*without, *cuts])
    best = max(without, key=lambda choice: scores[choice])
    if neck is None:
        return best
    best_cut = max(cuts, key=lambda choice: scores[choice])
    return best if scores[best] > scores[best_cut] + CUT_MARGIN else best_cut


def _v_rand(images: Iterable[tuple[Probabilities, Truth]], choices: Sequence[Inference]) -> dict[Inference, float]:
    """Return the mean V^Rand of the images for each of the inference settings `choices`."""
    scores: dict[Inference, list[float]] = {choice: [] for choice in choices}
    for probabilities, classes in images:
        cells = segments((classes > 0) & (classes != IGNORE))
        for choice, values in scores.items():
            values.append(boundaries.v_rand(cells, thin(to_labels(probabilities, choice), 0)))
    return {choice: _mean(values) for choice, values in scores.items()}


def separation(
    images: Iterable[tuple[Outputs, Truth, Truth]],
    plain: Inference,
    choices: Sequence[Separation],
) -> Separation:
    """Return the choice with the best object AP at IoU 0.5, computed from the summed counts of all images.

    Parameters
    ----------
    images:
        For each image: output of the network, true classes (H, W), where IGNORE marks ignored pixels, and true instance
        ids (H, W).
    plain:
        The other inference settings.
    """
    match_counts = {choice: np.zeros(3, np.int64) for choice in choices}
    groups: dict[Separation, list[Separation]] = {}  # choices that differ only in what they remove
    for choice in choices:
        groups.setdefault(replace(choice, min_area=0, min_probability=0.0), []).append(choice)
    for outputs, classes, instance_ids in images:
        labels = to_labels(outputs.probabilities, plain)
        counted = classes != IGNORE
        truth = np.where(counted, instance_ids, 0)
        for parting, its_choices in groups.items():
            objects = find(outputs, labels, parting)
            area, probability = measured(objects, outputs.probabilities)
            table = instances.overlaps(truth, np.where(counted, objects, 0))
            for choice in its_choices:
                keep = (area >= choice.min_area) & (probability >= choice.min_probability)
                match_counts[choice] += instances.matches_of(instances.only(table, keep), AP_IOU)
    return max(
        match_counts,
        key=lambda choice: np.nan_to_num(instances.average_precision(*match_counts[choice].tolist())),
    )


def _mean(values: list[float]) -> float:
    """Return the mean of the values that are not nan; 0 if all values are nan."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else 0.0
