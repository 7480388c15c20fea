"""One image against its truth, and many images together: everything is counted first and divided last."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from segline.score import boundaries, counts, detection, instances

AP_IOU = 0.5
BY_IMAGE = "ap_50_by_image"
# Of a whole; from ap_50 on where the labels allow.
FIGURES = ("mean_iou", "pixel_error", "ap_50", BY_IMAGE, "seg", "pq", "v_rand", "v_info", "detection_auc")


Figures = dict[str, float | None]


class Result(BaseModel):
    """What test.json has to say; a figure is None where there was nothing to judge."""

    model_config = ConfigDict(extra="allow")

    images: int
    iou: Figures
    dice: Figures

    @model_validator(mode="after")
    def _figures_are_numbers(self) -> Self:
        for name in FIGURES:
            if not isinstance(getattr(self, name, None), float | int | None):
                raise ValueError(f"{name} is no number")
        if self.iou.keys() != self.dice.keys():
            raise ValueError("iou and dice are not of the same classes")
        return self


@dataclass(frozen=True)
class Score:
    """What was counted on one image.

    ``matched``, ``seg`` (see `instances.seg`) and ``panoptic`` are there where the objects are labelled, ``v_rand`` and
    ``v_info`` where the borders between cells are, ``detection_score`` (see `detection.score`) where the classes are.
    """

    confusion: npt.NDArray[np.int64]
    matched: instances.Matches | None = None
    seg: tuple[float, int] | None = None
    panoptic: instances.Panoptic | None = None
    v_rand: float | None = None
    v_info: float | None = None
    detection_score: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON of the kind that knows NaN."""
        return asdict(self) | {"confusion": self.confusion.tolist()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`."""
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
    """Compare one image with its truth.

    Parameters
    ----------
    classes, predicted
        (H, W) class ids, true and predicted.
    number
        Number of classes, background included.
    ignore
        Pixels with this true class do not count.
    objects
        (H, W) instance ids, true and predicted, where objects are labelled.
    segments
        (H, W) segment ids, true and (thinned) predicted, where class 0 is the border between cells.
    foreground
        (H, W) predicted probability of not being background, where "any foreground at all?" is asked of the image.
    """
    confusion = counts.confusion(classes, predicted, number, ignore)
    counted = np.ones(classes.shape, np.bool_) if ignore is None else classes != ignore
    one = Score(confusion)
    if objects is not None:
        true, found = (np.where(counted, ids, 0) for ids in objects)
        matched = instances.matches(true, found, AP_IOU)
        one = replace(one, matched=matched, seg=instances.seg(true, found), panoptic=instances.panoptic(true, found))
    if segments is not None:
        cells, parts = np.where(counted, segments[0], 0), segments[1]
        one = replace(one, v_rand=boundaries.v_rand(cells, parts), v_info=boundaries.v_info(cells, parts))
    if foreground is not None:
        one = replace(one, detection_score=detection.score(np.where(counted, foreground, 0)))
    return one


def total(scores: Sequence[Score], classes: Mapping[int, str]) -> dict[str, Any]:
    """All images together; nan (nothing there to be scored) is None.

    Counts of pixels and objects are added over the images, so in ap_50 an image with many objects counts much. Means
    over the images are ap_50_by_image, as in the Data Science Bowl 2018 (without images that hold no object, true or
    predicted), and V^Rand and V^Info, as in the ISBI 2012 challenge. The ROC AUC of detection compares the images that
    hold foreground with those that hold none.
    """
    confusion = np.sum([one.confusion for one in scores], axis=0)
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
        result[BY_IMAGE] = _mean([instances.average_precision(*one.matched) for one in scores if one.matched])
        result["seg"] = jaccard[0] / jaccard[1] if jaccard[1] else math.nan
        result["pq"] = instances.panoptic_quality(*panoptic)
    for name in ("v_rand", "v_info"):
        values = [value for one in scores if (value := getattr(one, name)) is not None]
        if values:
            result[name] = _mean(values)
    asked = [(one.detection_score, bool(one.confusion[1:].any())) for one in scores if one.detection_score is not None]
    if asked:
        result["detection_auc"] = detection.auc(*zip(*asked, strict=True))
    return {name: _without_nan(value) for name, value in result.items()}


def row(one: Score, classes: Mapping[int, str]) -> dict[str, Any]:
    """The figures of one image, flat, for a table."""
    # An AUC needs more than one image, and of one image the mean over the images is the figure itself.
    whole = total([replace(one, detection_score=None)], classes)
    flat = {name: whole[name] for name in FIGURES if name in whole and name != BY_IMAGE}
    flat |= {f"iou_{name}": value for name, value in whole["iou"].items()}
    if one.matched is not None:
        flat |= one.matched._asdict()
    if one.detection_score is not None:
        flat["detection_score"] = one.detection_score
    return flat


def _sums(scores: Sequence[Score], name: str) -> list[Any]:
    """What was counted under `name`, added over the images; nothing where nothing was."""
    counted = [value for one in scores if (value := getattr(one, name)) is not None]
    return [sum(parts) for parts in zip(*counted, strict=True)]


def _mean(values: Sequence[float]) -> float:
    """Mean of the values that are numbers; nan where none is."""
    numbers = [value for value in values if not math.isnan(value)]
    return float(np.mean(numbers)) if numbers else math.nan


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, float) and np.isnan(value):
        return None
    return value
