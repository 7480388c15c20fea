"""Compute the statistics of images, and turn raw pixels into network input with these statistics."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from itertools import product
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .images import RANGES, ImageError, Raw

Number = int | float | Fraction

SIDE = 1 << 10  # side of the blocks of an image that are summed at once, px; limits the memory
FLOOR = 0.02  # smallest deviation of an image, as a fraction of the deviation of the training images


@dataclass(frozen=True)
class Statistics:
    """Pixel type and number of channels of some images; mean and standard deviation of each channel over all pixels.

    Means and deviations are fractions of the largest value of the type.
    """

    dtype: str
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """Read statistics from JSON; raise KeyError, TypeError or ValueError if the object `content` is invalid."""
        read = cls(content["dtype"], content["channels"], tuple(content["mean"]), tuple(content["std"]))
        if read.dtype not in ("uint8", "uint16", "float32") or type(read.channels) is not int or read.channels < 1:
            raise ValueError(
                f"the dtype {read.dtype!r:.80} or the number of channels {read.channels!r:.80} is not valid for images"
            )
        for values in (read.mean, read.std):
            if len(values) != read.channels or not all(type(v) in (int, float) and np.isfinite(v) for v in values):
                raise ValueError("mean and std must each have one finite number for each channel")
        return read


@dataclass(frozen=True)
class Moments:
    """Pixel type and number of pixels of some images; for each channel, sum of values and sum of squared values.

    The sums are whole numbers if the pixel type is an integer type.
    """

    dtype: str
    pixels: int
    sums: tuple[Number, ...]
    squares: tuple[Number, ...]

    def __add__(self, other: Self) -> Self:
        """Return the exact moments of the union of two sets of images. Both sets have the same type and channels."""
        assert self.dtype == other.dtype and len(self.sums) == len(other.sums)
        sums, squares = (
            tuple(Fraction(a) + Fraction(b) for a, b in zip(*pair, strict=True))
            for pair in ((self.sums, other.sums), (self.squares, other.squares))
        )
        return type(self)(self.dtype, self.pixels + other.pixels, sums, squares)


def blocks(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Divide an image of `height` x `width` px into blocks with sides of at most `SIDE` px."""
    for top, left in product(range(0, height, SIDE), range(0, width, SIDE)):
        yield slice(top, min(top + SIDE, height)), slice(left, min(left + SIDE, width))


def moments(image: Raw) -> Moments:
    """Return the moments of an image (H, W, C): for each channel, the sum of values and the sum of squared values.

    In a dataset of grey and RGB images, `as_channels` must first convert grey images to three channels.
    """
    return reduce(Moments.__add__, (_of_block(image[block]) for block in blocks(*image.shape[:2])))


def _of_block(pixels: Raw) -> Moments:
    """Return the moments of a block (h, w, C) of an image; the sums are exact for integers."""
    # The order is fixed, because numpy's sum of floats depends on the order of the values in memory.
    wide = pixels.astype(np.int64 if pixels.dtype.kind == "u" else np.float64, order="C").reshape(-1, pixels.shape[2])
    return Moments(
        pixels.dtype.name, len(wide), tuple(wide.sum(axis=0).tolist()), tuple((wide * wide).sum(axis=0).tolist())
    )


def statistics(parts: Iterable[Moments]) -> Statistics:
    """Compute the mean and standard deviation of each channel over all pixels, from the moments of parts.

    The parts (images, or blocks of an image) have the same type and number of channels.
    A constant channel gets a standard deviation of 1, so that dividing by it leaves zeros.
    """
    # Exact fractions avoid rounding until the last step, so the result does not depend on the order of the parts.
    total = reduce(Moments.__add__, parts)
    mean, std = [], []
    for first, second in zip(total.sums, total.squares, strict=True):
        average, square = Fraction(first) / total.pixels, Fraction(second) / total.pixels
        mean.append(float(average) / RANGES[total.dtype])
        std.append(math.sqrt(max(float(square - average * average), 0.0)) / RANGES[total.dtype] or 1.0)
    return Statistics(total.dtype, len(mean), tuple(mean), tuple(std))


def own_statistics(pixels: Iterable[Raw], trained: Statistics) -> Statistics:
    """Compute an image's own statistics, which normalise it, from all its `blocks` in their order.

    The deviation of a channel is at least `FLOOR` times that of the training images (`trained`), so that the noise of
    an empty image does not look like objects.

    Raises
    ------
    ImageError
        The type or the number of channels differs from the training images, or a value is not finite.
    """
    own = statistics(_of_block(_finite(suited(block, trained))) for block in pixels)
    return replace(own, std=tuple(max(pair[0], FLOOR * pair[1]) for pair in zip(own.std, trained.std, strict=True)))


def _finite(pixels: Raw) -> Raw:
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ImageError(
            "the image has values that are not finite, so it cannot be normalised by its own mean and standard "
            "deviation; replace them by numbers"
        )
    return pixels


def scale(raw: Raw) -> npt.NDArray[np.float32]:
    """Convert `raw` (H, W, C) to float32; divide uint8 by 255 and uint16 by 65,535."""
    return raw.astype(np.float32) / np.float32(RANGES[raw.dtype.name])


def normalise(scaled: npt.NDArray[np.float32], statistics: Statistics) -> npt.NDArray[np.float32]:
    """Turn `scaled` (H, W, C) into network input (C, H, W): subtract the mean and divide by the standard deviation."""
    # The channel axis becomes the first axis, because numpy is slow if the last axis is short.
    planes = np.array(np.moveaxis(scaled, -1, 0), order="C")
    planes -= np.asarray(statistics.mean, np.float32)[:, None, None]
    planes /= np.asarray(statistics.std, np.float32)[:, None, None]
    return planes


def as_channels(raw: Raw, channels: int) -> Raw:
    """Return `raw` (H, W, C) with `channels` channels; a grey image becomes RGB with three equal channels.

    Raises
    ------
    ImageError
        The number of channels differs, and `raw` is not a grey image to convert to RGB.
    """
    if raw.shape[2] == channels:
        return raw
    if raw.shape[2] == 1 and channels == 3:
        return np.repeat(raw, 3, axis=2)
    raise ImageError(f"the number of channels is {raw.shape[2]}, but must be {channels}; convert the image")


def suited(raw: Raw, trained: Statistics) -> Raw:
    """Return `raw` (H, W, C) with the channels that the model needs; for an RGB model, a grey image becomes RGB.

    `trained` are the statistics of the training images.

    Raises
    ------
    ImageError
        The type or the number of channels differs from the training images.
    """
    suits = raw.shape[2] == trained.channels or (raw.shape[2], trained.channels) == (1, 3)
    if raw.dtype.name != trained.dtype or not suits:
        raise ImageError(
            f"the image is {raw.dtype} with {raw.shape[2]} channels, but the model was trained on "
            f"{trained.dtype} with {trained.channels} channels; convert the image"
        )
    return as_channels(raw, trained.channels)


def to_network(raw: Raw, statistics: Statistics) -> npt.NDArray[np.float32]:
    """Turn `raw` (H, W, C) into network input (C, H, W); raise the same errors as `suited`."""
    return normalise(scale(suited(raw, statistics)), statistics)
