"""Pixels counted class against class, and the metrics that divide those counts once.

Confusion matrices of tiles, images and workers are added with ``+``; only the sum is divided.
A class with no pixel on either side has no score: it is nan, and no mean takes it in.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def confusion(
    truth: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int, ignore: int | None = None
) -> npt.NDArray[np.int64]:
    """Count the pixels of each true class (rows) that were given each predicted class (columns).

    Parameters
    ----------
    truth, predicted
        Class ids, integers, of one shape.
    classes
        Number of classes K; ids run from 0 to K - 1.
    ignore
        Where truth holds this id, nothing is counted, whatever was predicted there.

    Returns
    -------
    (K, K) int64

    Raises
    ------
    ValueError
        The shapes differ, or an id outside 0 ... K - 1 would be counted.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth has shape {truth.shape}, predicted {predicted.shape}; they must be one image")
    if ignore is not None:
        counted = truth != ignore
        truth, predicted = truth[counted], predicted[counted]
    _check_ids("truth", truth, classes, ignore)
    _check_ids("predicted", predicted, classes, ignore)
    # intp first: uint8 class ids would wrap around in the product.
    cells = truth.astype(np.intp).ravel() * classes + predicted.ravel()
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def iou(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Intersection over union of each class, (K,); nan where a class is in neither truth nor prediction."""
    both, either = _both(confusion), _sizes(confusion) - _both(confusion)
    return _divide(both, either)


def dice(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Dice (F1) of each class, (K,); nan where a class is in neither truth nor prediction."""
    return _divide(2 * _both(confusion), _sizes(confusion))


def mean_iou(confusion: npt.NDArray[np.int64]) -> float:
    """Mean IoU of the foreground classes (1 ... K - 1) that occur in truth or prediction; nan if none does."""
    scores = iou(confusion)[1:]
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")


def pixel_error(confusion: npt.NDArray[np.int64]) -> float:
    """Share of the counted pixels that were given a wrong class; nan if none was counted."""
    total = int(confusion.sum())
    return (total - int(np.trace(confusion))) / total if total else float("nan")


def _both(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Pixels that truth and prediction agree on, per class."""
    return np.diagonal(confusion)


def _sizes(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Pixels in truth plus pixels in prediction, per class."""
    sizes: npt.NDArray[np.int64] = confusion.sum(axis=0) + confusion.sum(axis=1)
    return sizes


def _divide(above: npt.NDArray[np.int64], below: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    quotient = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def _check_ids(name: str, ids: npt.NDArray[Any], classes: int, ignore: int | None) -> None:
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{name} holds {ids.dtype}, not integer class ids")
    for worst in (ids.min(), ids.max()) if ids.size else ():
        if not 0 <= worst < classes:
            hint = "" if ignore is not None else "; is it the ignore id, which was not given?"
            raise ValueError(f"{name} holds class id {worst}; with {classes} classes ids are 0 to {classes - 1}{hint}")
