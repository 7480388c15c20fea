"""Connected components of an image larger than memory, numbered band by band and joined where bands meet."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import numpy.typing as npt

from .headers import ImageError

BAND = 2**22  # pixels that are looked at together
LARGEST_NUMBER = np.iinfo(np.int32).max

Ids = npt.NDArray[np.int32]
Kinds = npt.NDArray[np.uint8]


def bands(stop: int, width: int, start: int = 0) -> Iterator[slice]:
    """The rows of an image from `start` on, some at a time, until `stop`."""
    rows = max(1, BAND // width)
    for top in range(start, stop, rows):
        yield slice(top, min(top + rows, stop))


def counted(count: int) -> int:
    """`count`, where so many can be numbered; else ImageError."""
    if count > LARGEST_NUMBER:
        raise ImageError(f"more than {LARGEST_NUMBER} separate parts; cut the image")
    return count


def numbered(kinds: Callable[[slice], Kinds], height: int, width: int, write: Callable[[slice, Ids], None]) -> Ids:
    """Number the pixels of an image (`height`, `width`) so that those of different components differ.

    Parameters
    ----------
    kinds : gives kinds (h, W) of some rows; neighbours of one kind, sides touching, are one component, 0 is background.
    write : is given the numbers of some rows.

    Returns
    -------
    By number, the lowest number of its component; 0 is background.
    """
    count, joined = 0, dict[int, int]()
    above: tuple[Kinds, Ids] | None = None
    for rows in bands(height, width):
        kind = kinds(rows)
        ids, count = _components(kind, count)
        if above is not None:
            same = (above[0] == kind[0]) & (kind[0] > 0)
            for pair in np.unique(np.stack([above[1][same], ids[0][same]]), axis=1).T.tolist():
                _join(joined, *pair)
        above = kind[-1].copy(), ids[-1].copy()
        write(rows, ids)
    part = np.arange(count + 1, dtype=np.int32)
    for each in sorted(joined):
        part[each] = part[joined[each]]
    return part


def _components(kind: Kinds, count: int) -> tuple[Ids, int]:
    """Numbers above `count` of the components of one band, and the highest of them."""
    ids = np.zeros(kind.shape, np.int32)
    for each in range(1, int(kind.max(initial=0)) + 1):
        mask = (kind == each).view(np.uint8)
        found, pieces = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
        np.add(pieces, count, out=ids, where=pieces > 0)
        count = counted(count + found - 1)
    return ids, count


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
