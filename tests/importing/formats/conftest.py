"""Exact outlines of objects, as test data for polygon layouts."""

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
    """Return the outlines (N, 2) of each object of a label image, x and y in pixels; one per component."""

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
    """Return the lowest IoU between objects of the same number in two label images."""

    def lowest(found: np.ndarray, expected: np.ndarray) -> float:
        return min(
            np.count_nonzero((found == number) & (expected == number))
            / np.count_nonzero((found == number) | (expected == number))
            for number in np.setdiff1d(expected, 0)
        )

    return lowest
