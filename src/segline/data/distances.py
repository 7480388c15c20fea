"""How far each pixel is from the nearest and the second nearest instance."""

from itertools import combinations, islice
from math import comb

import cv2
import numpy as np
import numpy.typing as npt

from segline.data.labels import Labels, renumber

Distances = npt.NDArray[np.float32]  # (H, W), px


def two_nearest(instances: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the distances to the nearest and the second nearest instance.

    Every instance gets a codeword of t bits, h = t // 2 of them set, no two alike (t is about log2 n: 12 for 600). For
    each bit, one distance transform measures to all instances that have it set. Of these t distances exactly h belong
    to the nearest instance, and one at least of the others to the second nearest, so that, in ascending order, number 0
    is d1 and number h is d2. The cost does not depend on the shape of the instances, and little on how many there are.

    Parameters
    ----------
    instances : (H, W) ids, 0 = background, in any numbering.

    Returns
    -------
    Two (H, W) float64 in px, 0 inside an instance, infinite where there is no (second) instance.
    """
    numbers, count = renumber(instances)
    if count < 2:
        nothing = np.full(numbers.shape, np.inf)
        return (_exact(_distance(numbers == 0)) if count else nothing), nothing
    bits = next(t for t in range(2, 64) if comb(t, t // 2) >= count)
    words = [sum(1 << bit for bit in word) for word in islice(combinations(range(bits), bits // 2), count)]
    codes: Labels = np.array([0, *words], np.int32 if bits < 32 else np.int64)[numbers]

    smallest: list[Distances] = []  # ascending, of the distances so far
    spare = np.empty(numbers.shape, np.float32)
    for bit in range(bits):
        distance = _distance((codes & (1 << bit)) == 0)
        for place, known in enumerate(smallest):
            np.minimum(known, distance, out=spare)
            np.maximum(known, distance, out=distance)
            smallest[place], spare = spare, known
        if len(smallest) <= bits // 2:
            smallest.append(distance)
    return _exact(smallest[0]), _exact(smallest[-1])


def _distance(outside: npt.NDArray[np.bool_]) -> Distances:
    """Euclidean distance of each pixel to the nearest that is not outside."""
    return np.asarray(
        cv2.distanceTransform(outside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), dtype=np.float32
    )


def _exact(distances: Distances) -> npt.NDArray[np.float64]:
    """The distances without the rounding of float32 (up to 2,000 px): their squares are whole numbers."""
    squares = np.square(distances, dtype=np.float64)
    return np.sqrt(np.rint(squares, out=squares), out=squares)
