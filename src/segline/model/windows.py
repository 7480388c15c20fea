"""Windows over a view of an image: what the network sees of it, and which part of the image its output is."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import tiles
from .images import Raw, Statistics, to_network
from .views import located, make_view, size, undo_view


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
    row: tiles.Span
    column: tiles.Span

    def see(self, source: Source, statistics: Statistics) -> npt.NDArray[np.float32]:
        """What the network sees (C, h, w), beyond the rim of the image mirrored."""
        height, width = source.height, source.width
        tall, wide = size(self.view, height, width)
        rows, row_indices = tiles.reach(self.row, tall)
        columns, column_indices = tiles.reach(self.column, wide)
        raw = source.read(*located(self.view, rows, columns, height, width))
        image = make_view(to_network(raw, statistics), self.view)
        return image[:, row_indices[:, None], column_indices]

    def keep(self, output: npt.NDArray[np.float32], source: Source) -> Part:
        """The part that the window decides, of what the network made of it (K, h, w)."""
        kept = output[:, self.row.kept, self.column.kept]
        rows, columns = slice(self.row.keep, self.row.end), slice(self.column.keep, self.column.end)
        return Part(*located(self.view, rows, columns, source.height, source.width), undo_view(kept, self.view))
