"""Read mask files as numbers, palette indices, greys or colours, and translate these values to class ids."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segline.data import imagefiles
from segline.data.imagefiles import LOSSY, Labels
from segline.data.labels import strips
from segline.files import FileError
from segline.importing.formats.census import MOST_VALUES, pixel_counts, texture_of
from segline.importing.layout import LayoutError

GREY = 0x010101  # a packed grey is this number times the grey level (0 to 255)
TO_SAVE = "save the masks as PNG or TIFF, one number per pixel"

Packed = int  # a colour as 0xRRGGBB
Pixels = npt.NDArray[Any]  # (H, W) numbers or (H, W, 3) uint8 colours


@dataclass(frozen=True)
class Look:
    """Palette and colours of one mask; both are empty for a mask of plain numbers."""

    file: Path
    palette: Mapping[int, Packed] | None = None  # packed colour of each index that occurs
    pixels: Mapping[Packed, int] = field(default_factory=dict)
    # For each colour: the number of its pixels in areas, and the number of its pixels in lines (see Texture).
    solid: Mapping[Packed, int] = field(default_factory=dict, compare=False)
    linked: Mapping[Packed, int] = field(default_factory=dict, compare=False)

    @property
    def coloured(self) -> bool:
        """True if the mask has no palette and some of its colours are not grey."""
        return self.palette is None and any(colour % GREY for colour in self.pixels)


def look(file: Path) -> Look:
    """Return the palette and colours of the mask in `file`; for a mask of plain numbers, read only the header.

    Raises
    ------
    LayoutError, FileError
        The file is not an image, or its compression is lossy.
    """
    if file.suffix.lower() in LOSSY or not imagefiles.is_exact(file):
        raise LayoutError(
            f"{file}: JPEG changes values, so ids are unreliable; {TO_SAVE}; or, if the masks show only foreground on "
            "black, add --threshold 127"
        )
    if imagefiles.image_size(file).channels == 1 and not imagefiles.has_grey_palettes(file):
        return Look(file)
    pixels, palette = _drawn(file)
    if palette is None and pixels.ndim == 2:
        return Look(file)
    if palette is None:
        shown, places = np.unique(_packed(pixels), return_inverse=True)
        places = places.reshape(pixels.shape[:2])
        return Look(file, None, *_by_colour(shown, places))
    return Look(file, {index: int(palette[index]) for index in pixel_counts(pixels)}, *_by_colour(palette, pixels))


def _by_colour(shown: npt.NDArray[np.int32], places: npt.NDArray[Any]) -> list[Counter[Packed]]:
    """Count pixels by colour; return three counts: all pixels, pixels in areas, pixels in lines (see class Texture).

    `places` (H, W) holds, for each pixel, the index of its colour in the array `shown`.
    """
    texture = texture_of(places)
    counts = [Counter[Packed]() for _ in range(3)]
    for total, chosen in zip(counts, (places.ravel(), places[texture.solid], places[texture.linked]), strict=True):
        for place, count in pixel_counts(chosen).items():
            total[int(shown[place])] += count
    return counts


def numbers(file: Path) -> Labels:
    """Return the mask as numbers (H, W): its stored numbers, palette indices or greys."""
    if imagefiles.image_size(file).channels == 1:
        return imagefiles.read_labels(file)
    return _grey(file, _drawn(file)[0])


def greys(file: Path) -> Labels:
    """Return the mask as greys (H, W): its stored numbers, or the greys that its palette shows."""
    pixels, palette = _drawn(file)
    return _grey(file, pixels if palette is None else _unpacked(palette[pixels]))


def colours(file: Path) -> npt.NDArray[np.int32]:
    """Return the mask as packed colours (H, W), one integer per pixel; plain numbers become greys."""
    pixels, palette = _drawn(file)
    if palette is not None:
        return palette[pixels]
    if pixels.ndim == 3:
        return _packed(pixels)
    if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 255:
        raise LayoutError(
            f"{file} holds numbers up to {pixels.max()}, but other masks hold colours; use one type for all masks"
        )
    return pixels.astype(np.int32) * GREY


def _drawn(file: Path) -> tuple[Pixels, npt.NDArray[np.int32] | None]:
    """Read a mask; return its pixels, and the packed colours of its palette (None without a palette)."""
    pixels, palette = imagefiles.read_mask(file)
    if palette is not None:
        shown = np.zeros((256, 3), np.uint8)
        shown[: len(palette)] = palette
        return pixels, _packed(shown)
    if pixels.ndim == 3 and (pixels.dtype != np.uint8 or pixels.shape[2] != 3):
        raise FileError(
            f"{file}: an image of type {pixels.dtype} with {pixels.shape[2]} channels is not a mask; {TO_SAVE}, or as "
            "8-bit RGB"
        )
    return pixels, None


def _grey(file: Path, pixels: Pixels) -> Labels:
    if pixels.ndim == 2:
        return pixels
    coloured = (pixels != pixels[..., :1]).any(axis=2)
    if coloured.any():
        raise LayoutError(
            f"{file}: {np.count_nonzero(coloured)} pixels are in colour, such as #{_packed(pixels[coloured])[0]:06x}, "
            "but --threshold needs grey masks; leave the option out, or save the masks in grey"
        )
    return pixels[..., 0]


def _packed(pixels: Pixels) -> npt.NDArray[np.int32]:
    wide = pixels.astype(np.int32)
    packed: npt.NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed


def _unpacked(packed: npt.NDArray[np.int32]) -> Pixels:
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)


def translated(values: Labels, table: Mapping[int, int]) -> tuple[Labels, npt.NDArray[np.bool_]]:
    """Translate `values` (H, W) to uint8 by the mapping `table`; values that are not in `table` become 0.

    Return two arrays (H, W): the translated values, and a boolean mask of the pixels with a value in `table`.
    """
    keys = np.array(sorted(table))
    classes = np.array([table[key] for key in keys.tolist()], np.uint8)
    place_of = np.zeros(keys[-1] + 1 if keys[-1] < MOST_VALUES else 0, np.intp)  # ten times faster than searchsorted
    if place_of.size:
        place_of[keys] = np.arange(len(keys))
    translation, known = np.empty(values.shape, np.uint8), np.empty(values.shape, np.bool_)
    for rows in strips(values.shape):
        part = np.clip(values[rows].astype(np.int64), 0, keys[-1])
        places = place_of[part] if place_of.size else np.searchsorted(keys, part)
        known[rows] = keys[places] == values[rows]
        translation[rows] = classes[places] * known[rows]
    return translation, known
