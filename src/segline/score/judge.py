"""Score images against their ground truth: compute the counts of each image, then the metrics over all images."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from segline.score import boundaries, counts, instances

AP_IOU = 0.5
DETECTION_BOX = 5  # px per side; one noisy pixel scores low, and an object of 25 px scores as high as a larger object
BY_IMAGE = "ap_50_by_image"
# Metrics over a set of images. mean_iou and pixel_error always exist; the others depend on the kind of labels.
METRICS = ("mean_iou", "pixel_error", "ap_50", BY_IMAGE, "seg", "pq", "v_rand", "v_info", "detection_auc")


Values = dict[str, float | None]  # by class name


class Result(BaseModel):
    """Content of test.json; a metric without a value is None."""

    model_config = ConfigDict(extra="allow")

    images: int
    iou: Values
    dice: Values

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        for name in METRICS:
            if not isinstance(getattr(self, name, None), float | int | None):
                raise ValueError(f"{name} is not a number")
        if self.iou.keys() != self.dice.keys():
            raise ValueError("the fields iou and dice must list the same classes")
        return self


@dataclass(frozen=True)
class Score:
    """Counts of one image, from which all metrics are computed.

    ``matched``, ``seg`` (see `instances.seg`) and ``panoptic`` are set if objects are labelled, ``v_rand`` and
    ``v_info`` if borders between cells are labelled, ``detection_score`` if classes are labelled.
    """

    confusion: npt.NDArray[np.int64]
    matched: instances.Matches | None = None
    seg: tuple[float, int] | None = None
    panoptic: instances.Panoptic | None = None
    v_rand: float | None = None
    v_info: float | None = None
    detection_score: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all counts as plain Python values; some may be nan."""
        return asdict(self) | {"confusion": self.confusion.tolist()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Make a Score from the values returned by `as_dict`."""
        kinds: dict[str, Callable[..., Any]] = {"matched": instances.Matches, "panoptic": instances.Panoptic}
        kinds["seg"] = lambda *parts: parts
        named = {name: kind(*content[name]) for name, kind in kinds.items() if content[name] is not None}
        return cls(**{**content, **named, "confusion": np.array(content["confusion"], np.int64)})


def score(
    classes: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    number: int,
    ignore: int | None = None,
    *,
    objects: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None,
    segments: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None,
    foreground: npt.NDArray[Any] | None = None,
) -> Score:
    """Compare the prediction for one image with its ground truth.

    Parameters
    ----------
    classes, predicted
        (H, W) class ids, true and predicted.
    number
        Number of classes, background included.
    ignore
        Pixels with this true class are ignored.
    objects
        (H, W) instance ids, true and predicted, if objects are labelled.
    segments
        (H, W) segment ids, true and (thinned) predicted, if class 0 is the border between cells.
    foreground
        (H, W) predicted probability of the foreground, to score whether the image contains any.
    """
    confusion = counts.confusion(classes, predicted, number, ignore)
    counted = np.ones(classes.shape, np.bool_) if ignore is None else classes != ignore
    score = Score(confusion)
    if objects is not None:
        truth, found = (np.where(counted, ids, 0) for ids in objects)
        matched = instances.matches(truth, found, AP_IOU)
        seg, panoptic = instances.seg(truth, found), instances.panoptic(truth, found)
        score = replace(score, matched=matched, seg=seg, panoptic=panoptic)
    if segments is not None:
        cells, parts = np.where(counted, segments[0], 0), segments[1]
        score = replace(score, v_rand=boundaries.v_rand(cells, parts), v_info=boundaries.v_info(cells, parts))
    if foreground is not None:
        score = replace(score, detection_score=detection_score(np.where(counted, foreground, 0)))
    return score


def detection_score(foreground: npt.NDArray[Any]) -> float:
    """Return the highest mean foreground probability (0 to 1) of any box of 5 x 5 px. `foreground` has shape (H, W).

    The score rates whether the image contains any foreground. The image is mirrored at its borders.
    """
    return float(cv2.blur(foreground.astype(np.float32), (DETECTION_BOX, DETECTION_BOX)).max())


def detection_auc(scores: Sequence[float], present: Sequence[bool]) -> float:
    """Return the ROC AUC: the probability that an image with foreground scores higher than an image without foreground.

    A pair of images with equal scores counts one half.

    Parameters
    ----------
    scores : finite score of each image; only their order matters.
    present : whether the image truly contains foreground.

    Returns
    -------
    0.5 for random scores, 1 for a perfect order; nan if all images contain foreground, or none.
    """
    values, positive = np.asarray(scores, np.float64), np.asarray(present, np.bool_)
    with_object, without = values[positive], np.sort(values[~positive])
    if not with_object.size or not without.size:
        return float("nan")
    below, not_above = (np.searchsorted(without, with_object, side) for side in ("left", "right"))
    # The counts are integers, so only the division below rounds.
    return int(below.sum() + not_above.sum()) / (2 * with_object.size * without.size)


def total(scores: Sequence[Score], classes: Mapping[int, str]) -> dict[str, Any]:
    """Return the metrics over all images together; a metric without a value (nan) is None.

    Counts of pixels and objects are summed over the images, so an image with many objects weighs more in ap_50. Three
    metrics are means over the images instead: ap_50_by_image, as in the Data Science Bowl 2018, and V^Rand and V^Info,
    as in the ISBI 2012 challenge. ap_50_by_image leaves out images that have neither true nor predicted objects.
    detection_auc is the ROC AUC of the detection scores, for images with foreground against images without.
    """
    confusion = np.sum([score.confusion for score in scores], axis=0)
    result: dict[str, Any] = {
        "mean_iou": counts.mean_iou(confusion),
        "pixel_error": counts.pixel_error(confusion),
        "images": len(scores),
        "iou": dict(zip(classes.values(), counts.iou(confusion).tolist(), strict=True)),
        "dice": dict(zip(classes.values(), counts.dice(confusion).tolist(), strict=True)),
        "confusion": confusion.tolist(),
    }
    matched, jaccard, panoptic = (_sums(scores, name) for name in ("matched", "seg", "panoptic"))
    if matched:
        result["ap_50"] = instances.average_precision(*matched)
        result[BY_IMAGE] = _mean([instances.average_precision(*score.matched) for score in scores if score.matched])
        result["seg"] = jaccard[0] / jaccard[1] if jaccard[1] else math.nan
        result["pq"] = instances.panoptic_quality(*panoptic)
    for name in ("v_rand", "v_info"):
        values = [value for score in scores if (value := getattr(score, name)) is not None]
        if values:
            result[name] = _mean(values)
    detections = [(s.detection_score, bool(s.confusion[1:].any())) for s in scores if s.detection_score is not None]
    if detections:
        result["detection_auc"] = detection_auc(*zip(*detections, strict=True))
    return {name: _without_nan(value) for name, value in result.items()}


def row(score: Score, classes: Mapping[int, str]) -> dict[str, Any]:
    """Return the metrics of one image as a table row: a flat dict from column name to value."""
    # Omit two metrics: the AUC needs several images, and ap_50_by_image equals ap_50 for a single image.
    whole = total([replace(score, detection_score=None)], classes)
    flat = {name: whole[name] for name in METRICS if name in whole and name != BY_IMAGE}
    flat |= {f"iou_{name}": value for name, value in whole["iou"].items()}
    if score.matched is not None:
        flat |= score.matched._asdict()
    if score.detection_score is not None:
        flat["detection_score"] = score.detection_score
    return flat


def _sums(scores: Sequence[Score], name: str) -> list[Any]:
    """Add up the tuples in the field `name` of all images, element by element; return [] if no image has the field."""
    counted = [value for score in scores if (value := getattr(score, name)) is not None]
    return [sum(parts) for parts in zip(*counted, strict=True)]


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not nan; nan if all values are nan."""
    numbers = [value for value in values if not math.isnan(value)]
    return float(np.mean(numbers)) if numbers else math.nan


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, float) and np.isnan(value):
        return None
    return value
