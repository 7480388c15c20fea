"""Mean and standard deviation of the training images, exact for integers, in units of the type's range."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Self

import numpy as np

from segline.model.images import RANGES, Raw, Statistics

Number = int | float | Fraction

BLOCK = 1 << 20  # pixels summed at once, so that the sums need little memory


@dataclass(frozen=True)
class Moments:
    """Of images: type, pixels, and for each channel the sum and the sum of squares; whole numbers for integers."""

    dtype: str
    pixels: int
    sums: tuple[Number, ...]
    squares: tuple[Number, ...]

    def __add__(self, other: Self) -> Self:
        """Of the images of both, which are of one type and have the same channels; nothing is rounded."""
        assert self.dtype == other.dtype and len(self.sums) == len(other.sums)
        sums, squares = (
            tuple(Fraction(a) + Fraction(b) for a, b in zip(*pair, strict=True))
            for pair in ((self.sums, other.sums), (self.squares, other.squares))
        )
        return type(self)(self.dtype, self.pixels + other.pixels, sums, squares)


def moments(image: Raw) -> Moments:
    """Moments of an image (H, W, C); of a grey one among RGB ones, as `images.as_channels` makes it."""
    flat = image.reshape(-1, image.shape[2])
    blocks = [_sums(flat[start : start + BLOCK]) for start in range(0, len(flat), BLOCK)]
    total = sum if image.dtype.kind == "u" else math.fsum
    sums, squares = (tuple(total(channel) for channel in zip(*part, strict=True)) for part in zip(*blocks, strict=True))
    return Moments(image.dtype.name, len(flat), sums, squares)


def _sums(pixels: Raw) -> tuple[list[int | float], list[int | float]]:
    """Sums and sums of squares of pixels (N, C), exact for integers."""
    wide = pixels.astype(np.int64 if pixels.dtype.kind == "u" else np.float64)
    return wide.sum(axis=0).tolist(), (wide * wide).sum(axis=0).tolist()


def statistics(parts: Iterable[Moments]) -> Statistics:
    """Statistics of all images together; all are of one type and have the same channels.

    A channel that is the same everywhere gets a standard deviation of 1, so that dividing by it leaves zeros.
    """
    # As fractions nothing is rounded before the last line, so the order of the images cannot matter.
    total = reduce(Moments.__add__, parts)
    mean, std = [], []
    for first, second in zip(total.sums, total.squares, strict=True):
        average, square = Fraction(first) / total.pixels, Fraction(second) / total.pixels
        mean.append(float(average) / RANGES[total.dtype])
        std.append(math.sqrt(max(float(square - average * average), 0.0)) / RANGES[total.dtype] or 1.0)
    return Statistics(total.dtype, len(mean), tuple(mean), tuple(std))
