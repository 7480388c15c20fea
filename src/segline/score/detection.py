"""Whether an image holds anything at all: one score an image from the foreground's probability, and its ROC AUC."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

BOX = 5  # px, side of the mean: one noisy pixel is no object, and an object of 25 px scores as high as a large one


def score(foreground: npt.NDArray[Any]) -> float:
    """Largest mean of `foreground` (H, W), the probability of not being background, in a box of 5 x 5 px; 0 to 1.

    Beyond the rim the image is mirrored.
    """
    return float(cv2.blur(foreground.astype(np.float32), (BOX, BOX)).max())


def auc(scores: Sequence[float], found: Sequence[bool]) -> float:
    """Area under the ROC curve: the chance that an image with foreground scores above one without, a tie being half.

    Parameters
    ----------
    scores : of each image, finite; only their order counts.
    found : whether the image's truth holds foreground.

    Returns
    -------
    0.5 is guessing, 1 is perfect; nan where all images hold foreground, or none.
    """
    values, positive = np.asarray(scores, np.float64), np.asarray(found, np.bool_)
    with_object, without = values[positive], np.sort(values[~positive])
    if not with_object.size or not without.size:
        return float("nan")
    below, not_above = (np.searchsorted(without, with_object, side) for side in ("left", "right"))
    # Whole numbers up to this one division.
    return int(below.sum() + not_above.sum()) / (2 * with_object.size * without.size)
