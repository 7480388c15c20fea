"""Augment a training tile: sample random parameters first, then apply them with pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from segline.params import Augment

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Interpolation = Literal["linear", "nearest"]

FLAGS = {"linear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST}
TYPES = {
    "linear": ("uint8", "uint16", "float32"),
    "nearest": ("bool", "uint8", "uint16", "int16", "int32", "float32"),
}
# OpenCV 5 uses exact coordinates only for 1, 3 or 4 channels; for other images it rounds coordinates to 1/32 px.
EXACT_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class Parameters:
    """Parameters that determine how one tile is augmented.

    Attributes
    ----------
    tile : side of the square tile, px.
    centre : row and column of the image pixel at [tile // 2, tile // 2] of the unchanged tile.
    rotation : degrees, counter-clockwise as seen.
    mirror : whether left and right are exchanged, after the rotation.
    scale : zoom; 2 shows every object twice as large.
    displacements : (2, grid, grid) float32, px of the image; rows, then columns.
    contrast : factor of the grey values.
    brightness : value that is added to the grey values, in units of the type's range.
    noise : standard deviation of the added normal noise, in units of the type's range.
    noise_seed : seed of the added noise.
    """

    tile: int
    centre: tuple[int, int]
    rotation: float
    mirror: bool
    scale: float
    displacements: Float
    contrast: float
    brightness: float
    noise: float
    noise_seed: int


@dataclass(frozen=True, eq=False)
class Grid:
    """Image coordinates at which `warp` samples the pixels of a tile; `grid` and `window` compute these coordinates.

    ``part`` : rows and columns of the image that the tile needs.
    ``rows`` and ``columns`` : (n, n) float32, px, inside the image, relative to the first pixel of ``part``. Relative
    coordinates keep float32 exact to 1e-4 px, even far from the corner of a large image.
    """

    part: tuple[slice, slice]
    rows: Float
    columns: Float

    def inner(self, side: int) -> "Grid":
        """Return the central square of this grid, with sides of `side` px.

        Unpadded convolutions keep only this square."""
        margin = (self.rows.shape[0] - side) // 2
        inside = slice(margin, margin + side)
        return Grid(self.part, self.rows[inside, inside], self.columns[inside, inside])


def draw(rng: np.random.Generator, settings: Augment, tile: int, centre: tuple[int, int]) -> Parameters:
    """Sample random parameters for a tile whose sides are `tile` px long and whose centre is the pixel `centre`.

    Every setting uses its own random numbers. So with the same seed, a new value of the noise setting does not change
    the geometry. The logarithm of the zoom is uniform, so that enlarging by a factor is as likely as reducing by this
    factor.
    """
    noise_seed = int(rng.integers(2**63))
    mirrored = bool(rng.random() < 0.5)
    rotation, brightness, contrast = rng.uniform(-1, 1, 3) * (settings.rotation, settings.brightness, settings.contrast)
    zoom = rng.uniform(math.log(settings.min_scale), math.log(settings.max_scale))
    noise = rng.uniform(0, settings.noise)
    shape = (2, settings.elastic_grid, settings.elastic_grid)
    return Parameters(
        tile=tile,
        centre=centre,
        rotation=float(rotation),
        mirror=mirrored and settings.mirror,
        scale=math.exp(zoom),
        displacements=rng.standard_normal(shape, np.float32) * np.float32(settings.elastic_sigma),
        contrast=1 + float(contrast),
        brightness=float(brightness),
        noise=float(noise),
        noise_seed=noise_seed,
    )


def grid(parameters: Parameters, height: int, width: int) -> Grid:
    """Return the grid of the augmented tile: coordinates in an image of `height` x `width` px.

    Coordinates beyond the border of the image are mirrored at the border.
    """
    rows, columns = coordinates(parameters)
    return _mirrored(rows, columns, parameters.centre, height, width)


def window(centre: tuple[int, int], tile: int, height: int, width: int) -> Grid:
    """Return the grid of a tile without augmentation. The tile has sides of `tile` px, and its centre is `centre`.

    With this grid, `warp` copies the pixels exactly.
    """
    rows, columns = np.indices((tile, tile), np.float32)
    return _mirrored(rows, columns, centre, height, width)


def coordinates(parameters: Parameters) -> tuple[Float, Float]:
    """Return the source coordinates of a deformed tile, relative to the top left pixel of the undeformed tile.

    The formula source = middle + R (mirrored offset) / scale + d composes crop, mirror, rotation R, zoom and
    displacement d. d is the smooth deformation of the paper (Ronneberger 2015, 3.1): random displacements on a coarse
    grid, bicubically up-sampled. The cells of this grid divide the tile. The edge is repeated beyond the outermost
    control points.

    Returns
    -------
    Rows and columns (tile, tile), px, relative to the top left pixel of the undeformed tile.
    """
    side = parameters.tile
    turn = math.radians(parameters.rotation)
    along, across = np.float32(math.cos(turn) / parameters.scale), np.float32(math.sin(turn) / parameters.scale)
    middle = np.float32((side - 1) / 2)
    down = np.arange(side, dtype=np.float32) - middle
    right = -down if parameters.mirror else down
    rows, columns = (_upsample(control, side) for control in parameters.displacements)
    rows += (along * down + middle)[:, None]
    rows += across * right
    columns += (-across * down + middle)[:, None]
    columns += along * right
    return rows, columns


def _upsample(control: Float, side: int) -> Float:
    """Up-sample `control` (grid, grid) bicubically to (side, side)."""
    if not control.any():
        return np.zeros((side, side), np.float32)
    return cv2.resize(control, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)


def _mirrored(rows: Float, columns: Float, centre: tuple[int, int], height: int, width: int) -> Grid:
    """Mirror the coordinates that lie outside the image into the image, and return all coordinates as a grid.

    The given coordinates are relative to the top left pixel of the undeformed tile. The arrays `rows` and `columns` are
    changed in place.
    """
    origin = [middle - rows.shape[0] // 2 for middle in centre]
    return Grid((_mirror(rows, origin[0], height), _mirror(columns, origin[1], width)), rows, columns)


def _mirror(places: Float, origin: int, length: int) -> slice:
    """Mirror coordinates at the ends of an axis, so that all lie in 0 ... length - 1; store the results in `places`.

    The coordinates are `places` + `origin`. The edge is not repeated.

    Returns
    -------
    The slice of the axis that is needed. Afterwards, `places` are relative to the start of the slice.
    """
    low, high = -origin, length - 1 - origin
    first, last = places.min(), places.max()
    if first < low - (length - 1) or last > high + (length - 1):
        _mirror_often(places, low, length)
    else:
        if first < low:
            places -= low
            np.abs(places, out=places)
            places += low
        if last > high:
            places -= high
            np.abs(places, out=places)
            np.subtract(high, places, out=places)
    start, end = math.floor(places.min()), min(math.floor(places.max()) + 2, high + 1)
    places -= start
    return slice(origin + start, origin + end)


def _mirror_often(places: Float, low: int, length: int) -> None:
    period = 2 * length - 2
    if period == 0:
        places.fill(low)
        return
    places -= low
    np.mod(places, period, out=places)
    np.minimum(places, period - places, out=places)
    places += low


def warp(place: Grid, array: Array, interpolation: Interpolation) -> Array:
    """Sample `array` (H, W) or (H, W, C) at the coordinates of a grid; return an array (n, n) or (n, n, C).

    The result has the type of `array`. Only the part under the grid is read from a memory-mapped array. Interpolated
    integers are rounded.

    Raises
    ------
    TypeError
        The type does not support the interpolation. Both interpolations support uint8, uint16 and float32; nearest also
        supports bool, int16 and int32.
    """
    if array.dtype.name not in TYPES[interpolation]:
        known = ", ".join(TYPES[interpolation])
        raise TypeError(
            f"an array of type {array.dtype} does not support {interpolation} interpolation; "
            f"convert the array to one of these types: {known}"
        )
    part = np.asarray(array[place.part])
    if part.dtype == np.bool_:
        return _remap(part.view(np.uint8), place, interpolation).view(np.bool_)
    return _remap(part, place, interpolation)


def _remap(part: Array, place: Grid, interpolation: Interpolation) -> Array:
    def remap(pixels: Array) -> Array:
        # OpenCV's border mode has no effect here, because neighbours beyond the last pixel have weight 0.
        return cv2.remap(pixels, place.columns, place.rows, FLAGS[interpolation], borderMode=cv2.BORDER_REPLICATE)

    if part.ndim == 2:
        return remap(part)
    if part.shape[2] in EXACT_CHANNELS:
        return remap(part).reshape(*place.rows.shape, part.shape[2])
    return np.stack([remap(np.ascontiguousarray(part[..., channel])) for channel in range(part.shape[2])], axis=-1)


def apply(parameters: Parameters, array: Array, interpolation: Interpolation) -> Array:
    """Cut the augmented tile from `array`; the result has shape (tile, tile) or (tile, tile, C).

    To cut the same tile from several arrays, call `grid` once and `warp` for each array.
    """
    return warp(grid(parameters, *array.shape[:2]), array, interpolation)


def grey(parameters: Parameters, scaled: Float, pivot: Sequence[float], unit: Sequence[float] | None = None) -> Float:
    """Change the contrast of the image `scaled` (H, W, C) about `pivot` (C), change the brightness, and add noise.

    Brightness and noise are multiplied by `unit` (C), if given.
    All values are in units of the type's range. They are not clipped, because network inputs do not saturate and float
    images have no range. The transforms of albumentations would round integers, clip float32 to 0...1, fail on noise
    for uint16, and take 18 ms for an RGB tile of 572 px.
    """
    height, width, channels = scaled.shape
    factors = np.ones(channels, np.float32) if unit is None else np.asarray(unit, np.float32)
    shift = np.asarray(pivot, np.float32) * np.float32(1 - parameters.contrast)
    shift = shift + np.float32(parameters.brightness) * factors
    changed = np.multiply(scaled, np.float32(parameters.contrast), order="C")
    # Add the shift to whole rows: numpy is four times slower if the innermost loop runs over only the three channels.
    changed.reshape(height, width * channels)[:] += np.tile(shift, width)
    if parameters.noise > 0:
        # Let 16 random bits select one of 65,536 normal quantiles: five times faster than `standard_normal`.
        # No quantile is farther than 4.3 sigma from 0.
        bits = np.random.default_rng(parameters.noise_seed).integers(2**16, size=scaled.shape, dtype=np.uint16)
        noise = (_normal_quantiles() * np.float32(parameters.noise)).take(bits)
        changed += noise if unit is None else noise * factors
    return changed


@cache
def _normal_quantiles() -> Float:
    """Split the standard normal distribution into 65,536 equally likely intervals; return the median of each."""
    return np.fromiter(map(NormalDist().inv_cdf, (np.arange(2**16) + 0.5) / 2**16), np.float32)
