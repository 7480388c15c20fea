"""Compute the object map: the target of a network's second output, by which touching objects are told apart."""

import cv2
import numpy as np
import numpy.typing as npt

from segline.data.labels import Labels, renumber

FULL = 255  # value of the deepest pixel of an object


def object_map(instances: Labels) -> npt.NDArray[np.uint8]:
    """Return the object map (H, W): `FULL` at the deepest pixel of each object, near 0 at its border, 0 outside.

    The value of a pixel is its distance to the nearest pixel outside its object, divided by the largest such distance
    in the object. So all objects have the same height, whatever their size. The border of the image is no border of an
    object.

    Parameters
    ----------
    instances : (H, W) instance ids, 0 = background, in any numbering.
    """
    from scipy.ndimage import find_objects  # late, because the import takes long

    numbers, _ = renumber(instances)
    result = np.zeros(numbers.shape, np.uint8)
    for number, box in enumerate(find_objects(numbers), 1):
        assert box is not None  # `renumber` leaves no number out
        around = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
        inside = numbers[around] == number
        if inside.all():
            result[around] = FULL
            continue
        distance = cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        result[around][inside] = np.rint(distance[inside] * (FULL / distance.max())).astype(np.uint8)
    return result
