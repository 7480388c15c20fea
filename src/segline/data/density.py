"""Sample the centres of training tiles from a density. The density is stored as sums over the cells of a grid."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segline.data.dataset import IGNORE

CELL = 16  # px, side of a grid cell; cells at the lower and right edge may be smaller

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]


class Density:
    """Density that gives each pixel of the training images a probability to become the centre of a training tile.

    The density of a pixel is the density of its class. If the density of the class is above 0, the mean border term of
    the grid cell is added. To sample a pixel, only the sums of one image and the classes in one of its grid cells are
    read. So images may be larger than memory.

    Falk 2019 uses a density of 1 on objects, 0.1 on background and 0 on ignored pixels. The border term is an addition
    of segline.

    Parameters
    ----------
    of_class : (K,) density of class 0..K-1; ignored pixels have density 0.
    classes : (H, W) uint8 class ids, one array for each image.
    sums : result of `cells` for each image.

    Raises
    ------
    ValueError
        The numbers of sums and images differ.
    """

    def __init__(self, of_class: Sequence[float] | Float, classes: Sequence[Array], sums: Sequence[Float]) -> None:
        if len(classes) != len(sums):
            raise ValueError(
                f"there are {len(classes)} images, but the tile density in data/weights covers {len(sums)} images; "
                "run the DVC stage `weights` again"
            )
        self.table = _table(of_class)
        self.classes = classes
        self.sums = sums
        self._ends = np.cumsum([float(image[0, -1, -1]) for image in sums])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.classes)

    def draw(self, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
        """Sample an image and one of its pixels at random; return the image's index and the pixel's row and column."""
        image = _pick(rng, self._ends)
        ends, border = self.sums[image]
        row, column = divmod(_pick(rng, ends.ravel()), ends.shape[1])
        top, left = row * CELL, column * CELL
        density = self.table[self.classes[image][top : top + CELL, left : left + CELL]]
        density[density > 0] += border[row, column]
        down, right = divmod(_pick(rng, np.cumsum(density)), density.shape[1])
        return image, (top + down, left + right)


def cells(classes: Array, border: Array | float, of_class: Sequence[float] | Float) -> Float:
    """Return two values for each grid cell of an image: a cumulative density of tile centres and a mean border term.

    The density of tile centres and the border term are explained in `Density`.

    Parameters
    ----------
    classes : (H, W) uint8 class ids.
    border : (H, W) border terms, or one term for all pixels. In each cell, only pixels whose class has a density above
        0 are used. The mean of their border terms is added to the density of each of these pixels.
    of_class : (K,) density of class 0..K-1.

    Returns
    -------
    (2, rows, columns) float64, for each cell: the cumulative density of all cells up to this cell, row by row; and the
    border term that is added to each pixel of the cell.
    """
    table, borders = _table(of_class), np.broadcast_to(border, classes.shape)
    bands = [slice(top, top + CELL) for top in range(0, len(classes), CELL)]
    # Process the rows in bands, because the density of a pixel needs eight times the memory of its class id.
    sums, added = np.stack([_band(table[classes[band]], borders[band]) for band in bands], axis=1)
    return np.stack([np.cumsum(sums).reshape(sums.shape), added])


def _band(density: Float, border: Array) -> Float:
    """For each grid cell in a band of pixel rows, return the summed density and the mean border term of its pixels.

    The density includes the border term.

    Returns
    -------
    (2, columns).
    """
    starts = np.arange(0, density.shape[1], CELL)
    drawn = density > 0
    columns = [part.sum(axis=0, dtype=np.float64) for part in (density, drawn, np.where(drawn, border, 0))]
    classes, pixels, extra = (np.add.reduceat(part, starts) for part in columns)
    return np.stack([classes + extra, extra / np.maximum(pixels, 1)])


def _table(of_class: Sequence[float] | Float) -> Float:
    """Return the densities of tile centres as a table (256,), indexed by class id; numbers without a class have 0."""
    table = np.zeros(IGNORE + 1)
    table[: len(of_class)] = of_class
    return table


def _pick(rng: np.random.Generator, ends: Float) -> int:
    """Choose an index at random, with probabilities proportional to weights; `ends` holds the cumulative weights."""
    return int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))
