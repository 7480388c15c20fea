"""One image against its truth, and many images together: everything is counted first and divided last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segline.score import boundaries, counts, instances

AP_IOU = 0.5
FIGURES = ("mean_iou", "pixel_error", "ap_50", "v_rand", "v_info")  # of a whole; the last three where labels allow


@dataclass(frozen=True)
class Score:
    """What was counted on one image.

    ``matched`` is there where the objects are labelled, ``v_rand`` and ``v_info`` where the borders between cells are.
    """

    confusion: npt.NDArray[np.int64]
    matched: instances.Matches | None = None
    v_rand: float | None = None
    v_info: float | None = None


def score(
    classes: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    number: int,
    ignore: int | None = None,
    *,
    objects: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None,
    segments: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None,
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
    """
    confusion = counts.confusion(classes, predicted, number, ignore)
    counted = np.ones(classes.shape, np.bool_) if ignore is None else classes != ignore
    matched = None
    if objects is not None:
        true, found = (np.where(counted, ids, 0) for ids in objects)
        matched = instances.matches(true, found, AP_IOU)
    if segments is None:
        return Score(confusion, matched)
    cells, parts = np.where(counted, segments[0], 0), segments[1]
    return Score(confusion, matched, boundaries.v_rand(cells, parts), boundaries.v_info(cells, parts))


def total(scores: Sequence[Score], classes: Mapping[int, str]) -> dict[str, Any]:
    """All images together; nan (nothing there to be scored) is None.

    Counts of pixels and objects are added over the images; V^Rand and V^Info are means over the images, as in the
    ISBI 2012 challenge.
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
    matched = [one.matched for one in scores if one.matched is not None]
    if matched:
        result["ap_50"] = instances.average_precision(*(sum(parts) for parts in zip(*matched, strict=True)))
    for name in ("v_rand", "v_info"):
        values = [value for one in scores if (value := getattr(one, name)) is not None and not np.isnan(value)]
        if values:
            result[name] = float(np.mean(values))
    return {name: _without_nan(value) for name, value in result.items()}


def row(one: Score, classes: Mapping[int, str]) -> dict[str, Any]:
    """The figures of one image, flat, for a table."""
    whole = total([one], classes)
    flat = {name: whole[name] for name in FIGURES if name in whole}
    flat |= {f"iou_{name}": value for name, value in whole["iou"].items()}
    if one.matched is not None:
        flat |= one.matched._asdict()
    return flat


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, float) and np.isnan(value):
        return None
    return value
