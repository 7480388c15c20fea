"""Outlines of objects, as a person with a good hand would draw them: what polygon layouts are tested with."""

from collections.abc import Callable

import numpy as np
import pytest
from skimage import measure

Outlines = list[list[np.ndarray]]


def _outer(contour: np.ndarray) -> bool:
    y, x = contour[:-1].T
    return bool(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) > 0)


@pytest.fixture
def outlines() -> Callable[[np.ndarray], Outlines]:
    """The outlines (N, 2) of each object of a label image, x and y in pixels from the corner; one a piece."""

    def around(instances: np.ndarray) -> Outlines:
        found = []
        for region in measure.regionprops(instances):
            top, left = region.bbox[:2]
            contours = measure.find_contours(np.pad(region.image, 1).astype(float), 0.5)
            # Two contours of one object differ in direction where one is a hole. Indices count pixel centres.
            found.append([one[:-1, ::-1] + (left - 0.5, top - 0.5) for one in contours if _outer(one)])
        return found

    return around


@pytest.fixture
def alike() -> Callable[[np.ndarray, np.ndarray], float]:
    """The lowest IoU of an object of the second label image with the object of the same number in the first."""

    def lowest(found: np.ndarray, expected: np.ndarray) -> float:
        return min(
            np.count_nonzero((found == number) & (expected == number))
            / np.count_nonzero((found == number) | (expected == number))
            for number in np.setdiff1d(expected, 0)
        )

    return lowest
