"""Mask values to class ids, by a table."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from segline.data.imagefiles import Labels
from segline.data.labels import strips
from segline.importing.formats.census import MOST_VALUES


def translated(values: Labels, table: Mapping[int, int]) -> tuple[Labels, npt.NDArray[np.bool_]]:
    """`values` (H, W) by `table` as uint8, and whether the table has them; where it has not, they are 0."""
    keys = np.array(sorted(table))
    classes = np.array([table[key] for key in keys.tolist()], np.uint8)
    place_of = np.zeros(keys[-1] + 1 if keys[-1] < MOST_VALUES else 0, np.intp)  # a search costs ten times as much
    if place_of.size:
        place_of[keys] = np.arange(len(keys))
    found, known = np.empty(values.shape, np.uint8), np.empty(values.shape, np.bool_)
    for rows in strips(values.shape):
        part = np.clip(values[rows].astype(np.int64), 0, keys[-1])
        places = place_of[part] if place_of.size else np.searchsorted(keys, part)
        known[rows] = keys[places] == values[rows]
        found[rows] = classes[places] * known[rows]
    return found, known
