"""Connected components of an image larger than memory, numbered band by band and joined where bands meet."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from .headers import ImageError

BAND = 2**22  # pixels that are looked at together
LARGEST_NUMBER = np.iinfo(np.int32).max

Ids = npt.NDArray[np.int32]
Kinds = npt.NDArray[np.uint8]


class Numbered(NamedTuple):
    """What the numbers in the file mean."""

    part: Ids
    """By number, the lowest number of its component; 0 is background."""
    boxes: npt.NDArray[np.int64]
    """By that lowest number, top, left, bottom and right of the component."""


def bands(height: int, width: int) -> Iterator[slice]:
    """The rows of an image, some at a time, from the top."""
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def numbered(kinds: Callable[[slice], Kinds], height: int, width: int, write: Callable[[slice, Ids], None]) -> Numbered:
    """Number the pixels of an image (`height`, `width`) so that those of different components differ.

    Parameters
    ----------
    kinds : gives kinds (h, W) of some rows; neighbours of one kind, sides touching, are one component, 0 is background.
    write : is given the numbers of some rows.
    """
    count, boxes, joined = 0, [np.zeros((1, 4), np.int64)], dict[int, int]()
    above: tuple[Kinds, Ids] | None = None
    for rows in bands(height, width):
        kind = kinds(rows)
        ids, found = _components(kind, count)
        count += len(found)
        if count > LARGEST_NUMBER:
            raise ImageError(f"more than {LARGEST_NUMBER} separate parts; cut the image")
        boxes.append(found + np.array([rows.start, 0, rows.start, 0]))
        if above is not None:
            same = (above[0] == kind[0]) & (kind[0] > 0)
            for pair in np.unique(np.stack([above[1][same], ids[0][same]]), axis=1).T.tolist():
                _join(joined, *pair)
        above = kind[-1].copy(), ids[-1].copy()
        write(rows, ids)
    part = np.arange(count + 1, dtype=np.int32)
    for each in sorted(joined):
        part[each] = part[joined[each]]
    return Numbered(part, _merged(np.concatenate(boxes), part))


def _components(kind: Kinds, count: int) -> tuple[Ids, npt.NDArray[np.int64]]:
    """Numbers above `count` of the components of one band, and their boxes, in its rows."""
    ids, boxes = np.zeros(kind.shape, np.int32), [np.zeros((0, 4), np.int64)]
    for each in range(1, int(kind.max(initial=0)) + 1):
        mask = (kind == each).view(np.uint8)
        _, pieces, found, _ = cv2.connectedComponentsWithStats(mask, connectivity=4, ltype=cv2.CV_32S)
        np.add(pieces, count, out=ids, where=pieces > 0)
        left, top, width, height = found[1:, :4].astype(np.int64).T
        boxes.append(np.stack([top, left, top + height, left + width], axis=1))
        count += len(found) - 1
    return ids, np.concatenate(boxes)


def _join(joined: dict[int, int], one: int, other: int) -> None:
    """Two numbers are of one component; each that is not its lowest points to a lower one."""
    lowest = sorted((_lowest(joined, one), _lowest(joined, other)))
    if lowest[0] < lowest[1]:
        joined[lowest[1]] = lowest[0]


def _lowest(joined: dict[int, int], number: int) -> int:
    while (lower := joined.get(number)) is not None:
        joined[number] = joined.get(lower, lower)
        number = lower
    return number


def _merged(boxes: npt.NDArray[Any], part: Ids) -> npt.NDArray[np.int64]:
    """The boxes of whole components; those of other numbers keep theirs."""
    merged: npt.NDArray[np.int64] = boxes.copy()
    others = np.flatnonzero(part != np.arange(len(part)))
    np.minimum.at(merged[:, :2], part[others], boxes[others, :2])
    np.maximum.at(merged[:, 2:], part[others], boxes[others, 2:])
    return merged
