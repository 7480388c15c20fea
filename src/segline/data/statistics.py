"""Mean and standard deviation of the training images, exact for integers, in units of the type's range."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from segline.model.images import RANGES, Raw, Statistics

BLOCK = 1 << 20  # pixels summed at once, so that the sums need little memory


@dataclass(frozen=True)
class Moments:
    """Of one image: type, pixels, and for each channel the sum and the sum of squares; whole numbers for integers."""

    dtype: str
    pixels: int
    sums: tuple[int | float, ...]
    squares: tuple[int | float, ...]


def moments(image: Raw) -> Moments:
    """Moments of an image (H, W, C)."""
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
    images = list(parts)
    dtype, channels = images[0].dtype, len(images[0].sums)
    assert all(image.dtype == dtype and len(image.sums) == channels for image in images)
    pixels = sum(image.pixels for image in images)
    mean, std = [], []
    for channel in range(channels):
        # Fractions: nothing is rounded before the last line, so the order of the images cannot matter.
        first = sum((Fraction(image.sums[channel]) for image in images), Fraction(0)) / pixels
        second = sum((Fraction(image.squares[channel]) for image in images), Fraction(0)) / pixels
        mean.append(float(first) / RANGES[dtype])
        std.append(math.sqrt(max(float(second - first * first), 0.0)) / RANGES[dtype] or 1.0)
    return Statistics(dtype, channels, tuple(mean), tuple(std))
