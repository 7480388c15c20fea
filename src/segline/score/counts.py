"""Count pixels in confusion matrices, and compute metrics from the matrices.

Confusion matrices of tiles, images and workers are added with ``+``; only the sum is divided.
The score of a class that is absent from truth and prediction is nan. Means over classes skip this class.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def confusion(
    truth: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int, ignore: int | None = None
) -> npt.NDArray[np.int64]:
    """Count the pixels for each pair of true class (row) and predicted class (column).

    Parameters
    ----------
    truth, predicted
        Integer class ids, arrays of the same shape.
    classes
        Number of classes K; ids run from 0 to K - 1.
    ignore
        Pixels with this true id are not counted.

    Returns
    -------
    (K, K) int64

    Raises
    ------
    ValueError
        The shapes differ, or a counted id lies outside 0 ... K - 1.
    """
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth has shape {truth.shape}, but predicted has shape {predicted.shape}; the shapes must be equal"
        )
    if ignore is not None:
        counted = truth != ignore
        truth, predicted = truth[counted], predicted[counted]
    _check_ids("truth", truth, classes, ignore)
    _check_ids("predicted", predicted, classes, ignore)
    # Convert to intp first, because `truth * classes` would overflow uint8.
    cells = truth.astype(np.intp).ravel() * classes + predicted.ravel()
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def iou(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the intersection over union of each class, (K,); nan if the class is in neither truth nor prediction."""
    both, either = _both(confusion), _sizes(confusion) - _both(confusion)
    return _divide(both, either)


def dice(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the Dice score (F1) of each class, (K,); nan if the class is in neither truth nor prediction."""
    return _divide(2 * _both(confusion), _sizes(confusion))


def mean_iou(confusion: npt.NDArray[np.int64]) -> float:
    """Return the mean IoU of those foreground classes that occur in truth or prediction; nan if there are none."""
    scores = iou(confusion)[1:]
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")


def pixel_error(confusion: npt.NDArray[np.int64]) -> float:
    """Return the fraction of counted pixels whose predicted class is wrong; nan if no pixel was counted."""
    total = int(confusion.sum())
    return (total - int(np.trace(confusion))) / total if total else float("nan")


def _both(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return, for each class, the number of pixels that have this class both in the truth and in the prediction."""
    return np.diagonal(confusion)


def _sizes(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return, for each class, the number of its pixels in the truth plus the number of its pixels in the prediction."""
    sizes: npt.NDArray[np.int64] = confusion.sum(axis=0) + confusion.sum(axis=1)
    return sizes


def _divide(above: npt.NDArray[np.int64], below: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    quotient = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def _check_ids(name: str, ids: npt.NDArray[Any], classes: int, ignore: int | None) -> None:
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{name} has type {ids.dtype}; class ids must be integers")
    for worst in (ids.min(), ids.max()) if ids.size else ():
        if not 0 <= worst < classes:
            hint = "" if ignore is not None else "; if it is the ignore id, pass it as `ignore`"
            raise ValueError(
                f"{name} contains class id {worst}; the {classes} classes have ids 0 to {classes - 1}{hint}"
            )
