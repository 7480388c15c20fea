"""Turn an image into eight views, cover a view with overlapping windows, and map window outputs to the image.

The predictions themselves are made in module `inference`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from .geometry import Geometry, SizeError
from .images import Raw
from .normalisation import Statistics, to_network

VIEWS = {1: (0,), 4: (0, 2, 4, 6), 8: tuple(range(8))}
"""Arguments `view` of `make_view` for each number of views to average. None of the 4 views swaps rows and columns."""


def make_view(image: npt.NDArray[np.float32], view: int) -> npt.NDArray[np.float32]:
    """Return view `view` of `image` (C, H, W), one of eight rotations and mirror images; view 0 is the image itself."""
    turned = np.rot90(image, view % 4, axes=(1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if view >= 4 else turned)


def undo_view(output: npt.NDArray[np.float32], view: int) -> npt.NDArray[np.float32]:
    """Rotate and mirror the network output (K, h, w) of a view back to the orientation of the image."""
    return np.rot90(output[:, :, ::-1] if view >= 4 else output, -(view % 4), axes=(1, 2))


def view_size(view: int, height: int, width: int) -> tuple[int, int]:
    """Return the height and width of view `view` of an image of `height` x `width` px."""
    return (height, width) if view % 2 == 0 else (width, height)


def to_image(view: int, rows: slice, columns: slice, height: int, width: int) -> tuple[slice, slice]:
    """Convert `rows` and `columns` of a view to rows and columns of the image of `height` x `width` px."""
    if view >= 4:
        columns = _mirrored(columns, view_size(view, height, width)[1])
    for side in (width, height, width)[: view % 4][::-1]:
        # A quarter turn makes the last column of the image the first row of the view.
        rows, columns = columns, _mirrored(rows, side)
    return rows, columns


def _mirrored(span: slice, length: int) -> slice:
    return slice(length - span.stop, length - span.start)


@dataclass(frozen=True)
class Span:
    """Extent of a window along one axis.

    The network's input is ``start`` to ``stop``, in pixels of the view; outside the view, the view is mirrored. The
    output of this window is kept for the pixels ``keep`` to ``end`` of the view. ``offset`` is the position of pixel
    ``keep`` in the network's output.
    """

    start: int
    stop: int
    keep: int
    end: int
    offset: int

    @property
    def kept(self) -> slice:
        """Slice of the network's output that contains the kept pixels."""
        return slice(self.offset, self.offset + self.end - self.keep)


def plan(length: int, size: int | None, geometry: Geometry) -> list[Span]:
    """Plan windows of equal size that cover an axis of `length` px; each output pixel is taken from exactly one window.

    Windows advance by multiples of the stride, and the fringe of a window is never kept. So the kept pixels equal those
    of one window over the whole axis. If `size` is None, the plan is that one window.

    Raises
    ------
    SizeError
        `size` is not legal, or so small that windows cannot advance by one stride.
    """
    if size is not None:
        geometry.check(size, "tile")
    if geometry.margin == 0:
        return _plan_same(length, size, geometry)
    return _plan_valid(length, size, geometry)


def _plan_valid(length: int, size: int | None, geometry: Geometry) -> list[Span]:
    """Plan windows for unpadded convolutions: divide the axis into steps, and plan one window around each step."""
    context = geometry.margin + geometry.fringe
    whole = geometry.at_least(length + 2 * context)
    size = min(size or whole, whole)
    step = (size - 2 * context) // geometry.stride * geometry.stride
    if size == whole:
        step = length
    elif step < geometry.stride:
        _refuse(size, geometry)
    return [
        Span(keep - context, keep - context + size, keep, min(keep + step, length), geometry.fringe)
        for keep in range(0, length, step)
    ]


def _plan_same(length: int, size: int | None, geometry: Geometry) -> list[Span]:
    """Plan windows for padded convolutions.

    All windows lie inside the axis after it is extended to a multiple of the stride.
    """
    # Extend the axis to at least twice the stride: instance norm cannot normalise a single pixel at the lowest level.
    whole = geometry.at_least(max(length, 2 * geometry.stride))
    size = min(size or whole, whole)
    context = geometry.at_least(geometry.fringe)
    if size < whole and size < smallest(geometry):
        _refuse(size, geometry)
    spans = []
    keep = 0
    while keep < length:
        start = min(max(0, keep - context), whole - size)
        end = length if start + size == whole else start + size - context
        spans.append(Span(start, start + size, keep, min(end, length), keep - start))
        keep = end
    return spans


def smallest(geometry: Geometry) -> int:
    """Return the smallest window size, px: the context on both sides plus one stride."""
    if geometry.margin == 0:
        return 2 * geometry.at_least(geometry.fringe) + geometry.stride
    return geometry.at_least(2 * (geometry.margin + geometry.fringe) + geometry.stride)


def fitted(length: int, size: int, geometry: Geometry) -> int:
    """Reduce the window size `size` (in px) as far as possible without needing more windows to cover `length` px."""
    windows = len(plan(length, size, geometry))
    for smaller in range(size - geometry.stride, smallest(geometry) - 1, -geometry.stride):
        if len(plan(length, smaller, geometry)) > windows:
            break
        size = smaller
    return size


def _refuse(size: int, geometry: Geometry) -> None:
    raise SizeError(
        f"a tile of {size} px is too small for the context that the network needs; use a tile of at least "
        f"{smallest(geometry)} px"
    )


def fold(indices: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Map `indices` into 0 ... length - 1: mirror at the edges, and do not repeat the edge pixels."""
    if length == 1:
        return np.zeros_like(indices)
    folded = np.abs(indices) % (2 * length - 2)
    mirrored: npt.NDArray[np.int64] = np.minimum(folded, 2 * length - 2 - folded)
    return mirrored


def reach(span: Span, length: int) -> tuple[slice, npt.NDArray[np.int64]]:
    """Return the slice of one axis that a window reads, and for each position in the window its index in this slice."""
    indices = fold(np.arange(span.start, span.stop), length)
    first = int(indices.min())
    return slice(first, int(indices.max()) + 1), indices - first


class Source(NamedTuple):
    """An image whose rows and columns are read on demand."""

    height: int
    width: int
    read: Callable[[slice, slice], Raw]
    """Function that returns the pixels (h, w, C) of given rows and columns."""

    @classmethod
    def of(cls, image: Raw) -> Self:
        """Return the source of an image (H, W, C) in memory."""
        return cls(image.shape[0], image.shape[1], lambda rows, columns: image[rows, columns])


class Part(NamedTuple):
    """Outputs of the network, one channel (C, h, w) each, for some rows and columns of an image."""

    rows: slice
    columns: slice
    outputs: npt.NDArray[np.float32]


class Window(NamedTuple):
    """A window of view `view`, with its extent along each axis of the view."""

    view: int
    row: Span
    column: Span

    def inputs(self, source: Source, statistics: Statistics) -> npt.NDArray[np.float32]:
        """Read the network's input (C, h, w) for the window; mirror the image at its edges to fill the window."""
        height, width = source.height, source.width
        tall, wide = view_size(self.view, height, width)
        rows, row_indices = reach(self.row, tall)
        columns, column_indices = reach(self.column, wide)
        raw = source.read(*to_image(self.view, rows, columns, height, width))
        image = make_view(to_network(raw, statistics), self.view)
        return image[:, row_indices[:, None], column_indices]

    def decided(self, output: npt.NDArray[np.float32], source: Source) -> Part:
        """Return the used part of the network output (C, h, w), and the rows and columns of this part in the image."""
        kept = output[:, self.row.kept, self.column.kept]
        rows, columns = slice(self.row.keep, self.row.end), slice(self.column.keep, self.column.end)
        return Part(*to_image(self.view, rows, columns, source.height, source.width), undo_view(kept, self.view))
