"""Overlap-tile geometry: which windows of the mirrored image give which part of the output. Pure index arithmetic."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .geometry import Geometry, SizeError
from .images import Raw, Statistics, to_network
from .views import located, make_view, size, undo_view


@dataclass(frozen=True)
class Span:
    """One window along one axis.

    ``start`` to ``stop``: the input, in pixels of the image, beyond which it is mirrored. ``keep`` to ``end``: the
    pixels of the image that this window decides. ``offset``: where those begin in the network's output.
    """

    start: int
    stop: int
    keep: int
    end: int
    offset: int

    @property
    def kept(self) -> slice:
        """Those pixels in the network's output."""
        return slice(self.offset, self.offset + self.end - self.keep)


def plan(length: int, size: int | None, geometry: Geometry) -> list[Span]:
    """Windows of one size that cover an axis of `length` px; every pixel is kept from exactly one of them.

    Steps are multiples of the stride and no window's fringe is kept, so the result equals that of one window
    over the whole axis, which is what `size` None asks for.

    Raises
    ------
    SizeError
        `size` is not legal, or so small that its windows cannot advance by one stride.
    """
    if size is not None:
        geometry.check(size, "tile")
    if geometry.padding == "same":
        return _plan_same(length, size, geometry)
    return _plan_valid(length, size, geometry)


def _plan_valid(length: int, size: int | None, geometry: Geometry) -> list[Span]:
    """Unpadded: the first window's kept pixels begin at 0, each further one a step later."""
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
    """Padded: windows stay inside the image (rounded up to the stride), so that zeros enter only at its true border."""
    # Two strides at least: instance norm has nothing to normalise in a bottom of one pixel.
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
    """The smallest tile whose windows can advance."""
    if geometry.padding == "same":
        return 2 * geometry.at_least(geometry.fringe) + geometry.stride
    return geometry.at_least(2 * (geometry.margin + geometry.fringe) + geometry.stride)


def fitted(length: int, size: int, geometry: Geometry) -> int:
    """The smallest size of which no more windows cover `length` px than of `size`: less is computed twice."""
    many = len(plan(length, size, geometry))
    for smaller in range(size - geometry.stride, smallest(geometry) - 1, -geometry.stride):
        if len(plan(length, smaller, geometry)) > many:
            break
        size = smaller
    return size


def _refuse(size: int, geometry: Geometry) -> None:
    raise SizeError(f"tile {size} px is all margin: its windows cannot advance; set it to {smallest(geometry)} or more")


def fold(indices: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Mirror `indices` into 0 ... length - 1, edge not repeated, as often as needed."""
    if length == 1:
        return np.zeros_like(indices)
    folded = np.abs(indices) % (2 * length - 2)
    mirrored: npt.NDArray[np.int64] = np.minimum(folded, 2 * length - 2 - folded)
    return mirrored


def reach(span: Span, length: int) -> tuple[slice, npt.NDArray[np.int64]]:
    """The pixels of an axis of `length` px that a window sees, and which of these each of its own is, mirrored."""
    indices = fold(np.arange(span.start, span.stop), length)
    first = int(indices.min())
    return slice(first, int(indices.max()) + 1), indices - first


class Source(NamedTuple):
    """An image of which parts can be had."""

    height: int
    width: int
    read: Callable[[slice, slice], Raw]
    """Pixels (h, w, C) of these rows and columns."""


class Part(NamedTuple):
    """Probabilities (K, h, w) of some rows and columns of an image."""

    rows: slice
    columns: slice
    probabilities: npt.NDArray[np.float32]


class Window(NamedTuple):
    """A window over a view."""

    view: int
    row: Span
    column: Span

    def see(self, source: Source, statistics: Statistics) -> npt.NDArray[np.float32]:
        """What the network sees (C, h, w), beyond the rim of the image mirrored."""
        height, width = source.height, source.width
        tall, wide = size(self.view, height, width)
        rows, row_indices = reach(self.row, tall)
        columns, column_indices = reach(self.column, wide)
        raw = source.read(*located(self.view, rows, columns, height, width))
        image = make_view(to_network(raw, statistics), self.view)
        return image[:, row_indices[:, None], column_indices]

    def keep(self, output: npt.NDArray[np.float32], source: Source) -> Part:
        """The part that the window decides, of what the network made of it (K, h, w)."""
        kept = output[:, self.row.kept, self.column.kept]
        rows, columns = slice(self.row.keep, self.row.end), slice(self.column.keep, self.column.end)
        return Part(*located(self.view, rows, columns, source.height, source.width), undo_view(kept, self.view))
