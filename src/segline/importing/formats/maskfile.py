"""Mask files as they were drawn: numbers, a palette, or colours, of which grey is one."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segline.data import imagefiles
from segline.data.imagefiles import LOSSY, Labels
from segline.files import FileError
from segline.importing.formats import LayoutError, census
from segline.importing.formats.census import counted

GREY = 0x010101  # times 0 ... 255: a grey, packed
TO_SAVE = "save the masks as PNG or TIFF, one number a pixel"

Packed = int  # a colour as 0xRRGGBB
Pixels = npt.NDArray[Any]  # (H, W) numbers or (H, W, 3) uint8 colours


@dataclass(frozen=True)
class Look:
    """How one mask was drawn; of numbers neither field says anything."""

    file: Path
    palette: Mapping[int, Packed] | None = None  # by index, of those in use
    pixels: Mapping[Packed, int] = field(default_factory=dict)
    # Pixels by colour that lie in an area, in a line (see texture).
    solid: Mapping[Packed, int] = field(default_factory=dict, compare=False)
    linked: Mapping[Packed, int] = field(default_factory=dict, compare=False)

    @property
    def coloured(self) -> bool:
        """Whether each pixel has a colour of its own, and some are no grey."""
        return self.palette is None and any(colour % GREY for colour in self.pixels)


def look(file: Path) -> Look:
    """How `file` was drawn; of numbers only the head is read.

    Raises
    ------
    LayoutError, FileError
        It is no such image, or compressed with losses.
    """
    if file.suffix.lower() in LOSSY or not imagefiles.is_exact(file):
        raise LayoutError(
            f"{file}: JPEG changes values, so ids cannot be trusted; {TO_SAVE}, or, where they show foreground on "
            "black only, say --threshold 127"
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
    return Look(file, {index: int(palette[index]) for index in counted(pixels)}, *_by_colour(palette, pixels))


def _by_colour(shown: npt.NDArray[np.int32], places: npt.NDArray[Any]) -> list[Counter[Packed]]:
    """Pixels by colour: all, those in an area, and those in a line; `places` (H, W) are indices into `shown`."""
    found = census.of(places)
    counts = [Counter[Packed]() for _ in range(3)]
    for total, chosen in zip(counts, (places.ravel(), places[found.solid], places[found.linked]), strict=True):
        for place, count in counted(chosen).items():
            total[int(shown[place])] += count
    return counts


def numbers(file: Path) -> Labels:
    """The number of each pixel (H, W): what the file holds, a palette's index, or a grey."""
    if imagefiles.image_size(file).channels == 1:
        return imagefiles.read_labels(file)
    return _grey(file, _drawn(file)[0])


def greys(file: Path) -> Labels:
    """The grey of each pixel (H, W): numbers as they are, fractions among them; of a palette what it shows."""
    pixels, palette = _drawn(file)
    return _grey(file, pixels if palette is None else _unpacked(palette[pixels]))


def colours(file: Path) -> npt.NDArray[np.int32]:
    """The packed colour of each pixel (H, W); of numbers the grey."""
    pixels, palette = _drawn(file)
    if palette is not None:
        return palette[pixels]
    if pixels.ndim == 3:
        return _packed(pixels)
    if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 255:
        raise LayoutError(f"{file} holds numbers up to {pixels.max()}, but other masks hold colours; make them alike")
    return pixels.astype(np.int32) * GREY


def _drawn(file: Path) -> tuple[Pixels, npt.NDArray[np.int32] | None]:
    """The pixels, and the packed colours of a palette whose indices they are."""
    pixels, palette = imagefiles.read_mask(file)
    if palette is not None:
        shown = np.zeros((256, 3), np.uint8)
        shown[: len(palette)] = palette
        return pixels, _packed(shown)
    if pixels.ndim == 3 and (pixels.dtype != np.uint8 or pixels.shape[2] != 3):
        raise FileError(f"{file}: {pixels.dtype} with {pixels.shape[2]} channels is no mask; {TO_SAVE}, or 8-bit RGB")
    return pixels, None


def _grey(file: Path, pixels: Pixels) -> Labels:
    if pixels.ndim == 2:
        return pixels
    strange = (pixels != pixels[..., :1]).any(axis=2)
    if strange.any():
        raise LayoutError(
            f"{file}: {np.count_nonzero(strange)} pixels are in colour, such as #{_packed(pixels[strange])[0]:06x}, "
            "but a threshold needs masks in grey; leave it out, or save them in grey"
        )
    return pixels[..., 0]


def _packed(pixels: Pixels) -> npt.NDArray[np.int32]:
    wide = pixels.astype(np.int32)
    packed: npt.NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed


def _unpacked(packed: npt.NDArray[np.int32]) -> Pixels:
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)
