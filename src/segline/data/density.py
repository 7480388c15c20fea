"""Where training tiles are drawn: a density over the pixels, kept as sums over coarse cells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segline.data.dataset import IGNORE

CELL = 16  # side of a cell, px; cells at the lower and right edge may be smaller

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]


class Density:
    """How likely each pixel of the training images is the middle of a tile.

    The density of a pixel is that of its class plus, where the class has any, the border term's mean over the cell.
    Of an image only its cells' sums and one cell of its classes are read for a draw, so it may be larger than memory.

    Falk 2019 draws tiles by a density that is 1 on objects, 0.1 on background and 0 where ignored; the border in it is
    segline's own.

    Parameters
    ----------
    of_class : (K,) density of class 0..K-1; an ignored pixel has none.
    classes : (H, W) uint8 class ids, one array an image.
    sums : what `cells` gave for each image.

    Raises
    ------
    ValueError
        There are not as many sums as images.
    """

    def __init__(self, of_class: Sequence[float] | Float, classes: Sequence[Array], sums: Sequence[Float]) -> None:
        if len(classes) != len(sums):
            raise ValueError(f"{len(classes)} images, but densities of {len(sums)}; run stage weights again")
        self.table = _table(of_class)
        self.classes = classes
        self.sums = sums
        self._ends = np.cumsum([float(image[0, -1, -1]) for image in sums])

    def __len__(self) -> int:
        """Images."""
        return len(self.classes)

    def draw(self, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
        """An image and one of its pixels, row and column."""
        image = _pick(rng, self._ends)
        ends, border = self.sums[image]
        row, column = divmod(_pick(rng, ends.ravel()), ends.shape[1])
        top, left = row * CELL, column * CELL
        density = self.table[self.classes[image][top : top + CELL, left : left + CELL]]
        density[density > 0] += border[row, column]
        down, right = divmod(_pick(rng, np.cumsum(density)), density.shape[1])
        return image, (top + down, left + right)


def cells(classes: Array, border: Array | float, of_class: Sequence[float] | Float) -> Float:
    """Return what `Density` needs of one image.

    Parameters
    ----------
    classes : (H, W) uint8 class ids.
    border : (H, W) or one for all, added to the density of each pixel whose class has any, but averaged over the cell.
    of_class : (K,) density of class 0..K-1.

    Returns
    -------
    (2, rows, columns) float64, an entry a cell: the sum of the density over all cells up to this one, row by row; and
    what the border adds to each pixel of the cell.
    """
    table, borders = _table(of_class), np.broadcast_to(border, classes.shape)
    bands = [slice(top, top + CELL) for top in range(0, len(classes), CELL)]
    # Band by band: a density of the whole image would be eight times as large as its classes.
    sums, added = np.stack([_band(table[classes[band]], borders[band]) for band in bands], axis=1)
    return np.stack([np.cumsum(sums).reshape(sums.shape), added])


def _band(density: Float, border: Array) -> Float:
    """(2, columns): sum of the density, border included, of each cell in a band of rows, and the border's mean."""
    starts = np.arange(0, density.shape[1], CELL)
    drawn = density > 0
    columns = [part.sum(axis=0, dtype=np.float64) for part in (density, drawn, np.where(drawn, border, 0))]
    classes, pixels, extra = (np.add.reduceat(part, starts) for part in columns)
    return np.stack([classes + extra, extra / np.maximum(pixels, 1)])


def _table(of_class: Sequence[float] | Float) -> Float:
    """(256,): the density of each class id; 0 for those that are no class."""
    table = np.zeros(IGNORE + 1)
    table[: len(of_class)] = of_class
    return table


def _pick(rng: np.random.Generator, ends: Float) -> int:
    """An index, as likely as `ends`, the running sums, rise there."""
    return int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))
