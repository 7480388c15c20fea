"""Cells that are told apart by the line between them: segments, and borders thinned to one pixel.

Segments are (H, W) int32 ids, numbered from 1; 0 is the border.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


def segments(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Number the 4-connected components of `cells` (H, W) from 1; 0 elsewhere."""
    numbered = cv2.connectedComponents(np.ascontiguousarray(cells).view(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1]
    return numbered.astype(np.int32, copy=False)


def thin(foreground_probability: npt.NDArray[Any], threshold: float) -> npt.NDArray[np.int32]:
    """Segments above the threshold, grown into the border until a line one pixel wide is left between them.

    The growth sees only what is above the threshold, as in the challenge, and goes at the same pace in all directions:
    no pixel changes its segment, and a border that does not part two segments vanishes.

    Parameters
    ----------
    foreground_probability
        (H, W) float, probability of not being border.
    threshold
        A pixel belongs to a segment when its probability is larger.

    Returns
    -------
    (H, W) int32
        Segments numbered from 1; 0 is the line. Nothing above the threshold: 0 everywhere.
    """
    return _grown(segments(foreground_probability > float(threshold)))


def _grown(seeds: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Watershed of a flat landscape: all segments grow by a pixel at a time, and where two would meet is the line.

    In each step the white, then the black squares of a chessboard are decided. None of them touch, so the order of the
    pixels does not matter, and no pixel is passed on before it is known whether it is line: every segment stays
    4-connected, and every pixel of the line touches two (scikit-image's watershed_line keeps neither).
    """
    if seeds.max(initial=0) <= 1:
        return np.full_like(seeds, seeds.max(initial=0))
    ids, settled = np.pad(seeds, 1).ravel(), np.pad(seeds > 0, 1, constant_values=True).ravel()
    width = seeds.shape[1] + 2
    neighbours = np.array([-width, -1, 1, width])
    black = np.add(*np.divmod(np.arange(ids.size), width)) % 2 == 1
    fresh = np.flatnonzero(ids)
    while fresh.size:
        around = (fresh[:, np.newaxis] + neighbours).ravel()
        reached = np.unique(around[~settled[around]])
        for squares in (reached[~black[reached]], reached[black[reached]]):
            ids[squares] = _shared(ids[squares[:, np.newaxis] + neighbours])
        settled[reached] = True
        fresh = reached[ids[reached] > 0]
    return ids.reshape(-1, width)[1:-1, 1:-1].copy()


def _shared(ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The one id in each row (N, 4) beside 0, or 0 where there are several."""
    highest = ids.max(axis=1)
    lowest = np.where(ids > 0, ids, highest[:, np.newaxis]).min(axis=1)
    return np.where(lowest == highest, highest, 0).astype(np.int32)
