"""The eight rotations and mirrorings of an image: made, undone, and where a part of one lies in the image."""

import numpy as np
import numpy.typing as npt

VIEWS = {1: (0,), 4: (0, 2, 4, 6), 8: tuple(range(8))}
"""By their number, the views that are averaged, as `make_view` counts them; 4: those that keep rows as rows."""


def make_view(image: npt.NDArray[np.float32], view: int) -> npt.NDArray[np.float32]:
    """One of the eight rotations and mirrorings of `image` (C, H, W); 0 is the image itself."""
    turned = np.rot90(image, view % 4, axes=(1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if view >= 4 else turned)


def undo_view(output: npt.NDArray[np.float32], view: int) -> npt.NDArray[np.float32]:
    """The inverse of `make_view`."""
    return np.rot90(output[:, :, ::-1] if view >= 4 else output, -(view % 4), axes=(1, 2))


def size(view: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a view of an image."""
    return (height, width) if view % 2 == 0 else (width, height)


def located(view: int, rows: slice, columns: slice, height: int, width: int) -> tuple[slice, slice]:
    """Where in an image of that size `rows` and `columns` of its view lie."""
    if view >= 4:
        columns = _mirrored(columns, size(view, height, width)[1])
    for side in (width, height, width)[: view % 4][::-1]:
        # The first row of an image turned by a quarter was its last column.
        rows, columns = columns, _mirrored(rows, side)
    return rows, columns


def _mirrored(span: slice, length: int) -> slice:
    return slice(length - span.stop, length - span.start)
