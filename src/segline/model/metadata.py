"""Decide how to treat the metadata of an image file: honour the metadata, warn the user, or refuse the file.

These rules hold for images and masks, in training and prediction. docs/import.md contains the same table.

| metadata | decision |
|---|---|
| orientation: EXIF (JPEG, PNG), TIFF tag 274, else XMP | honoured: pixels are turned upright; not 1 to 8: warning |
| orientation of a TIFF with a georeference | refused: the georeference would no longer match the pixels |
| orientation of a JPEG 2000 | refused: viewers differ in whether they turn the image |
| WhiteIsZero (TIFF photometric 0) | honoured: values become `maximum - value` |
| WhiteIsZero of signed or real numbers, or of several channels | refused: no `maximum`, or no grey values |
| WhiteIsZero of a mask of ids, or of a mask of bits written by tifffile | refused: most writers invert nothing |
| missing values (GDAL_NODATA) | warning where they occur; `check` refuses values far from all other values |
| scale and offset of values (GDAL_METADATA) | warning: stored numbers are used unchanged |
| a mask of valid pixels (TIFF page of kind 4) | warning: every pixel is used |
| pixels that are not square (resolution, PhysicalSize, pixel scale) | warning: they are treated as square |
| transparent colours (PNG tRNS, GIF) in a mask | warning: the stored number is used |
| further pictures in a JPEG (MPF) | warning: only the first picture is read |
| animations (PNG, GIF) | refused |
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .headers import ImageError

Pixels = npt.NDArray[Any]

# Three flags for each orientation: reverse the stored rows, reverse the stored columns, then swap rows and columns.
TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}
FIRST_EXCHANGED = 5  # this orientation and all higher ones exchange height and width
SQUARE = 0.01  # largest relative difference between the sides of a square pixel
TO_STRIP = "if the labels were made on the unturned pixels, remove the orientation (exiftool -Orientation= FILE)"


class Note(NamedTuple):
    """Message to the user; `kind` names the metadata, such as "orientation", and `message` says what segline does."""

    kind: str
    message: str


class Facts(NamedTuple):
    """Metadata that a file declares about the geometry and the meaning of its pixels."""

    orientation: int | None = None
    density: tuple[float, float] | None = None  # pixels per unit of length, in x and y
    frames: int = 1
    several: bool = False
    clear: bool = False
    white_is_zero: bool = False
    georeferenced: bool = False
    nodata: str = ""
    scaled: str = ""
    validity: bool = False  # whether a page of the file is a mask of valid pixels
    rarely_turned: bool = False  # whether only some viewers apply the orientation


class Metadata(NamedTuple):
    """Result of `decide`: orientation to apply (1 to 8), number that marks missing values, and messages to the user."""

    orientation: int = 1
    nodata: float | None = None
    notes: tuple[Note, ...] = ()


def decide(facts: Facts) -> Metadata:
    """Decide how to treat the metadata `facts` of a file; the table in the module docstring gives the rules.

    Raises
    ------
    ImageError
        The file is an animation, or its orientation is refused.
    """
    if facts.frames > 1:
        raise ImageError(f"the file is an animation of {facts.frames} frames; save each frame as a separate image")
    orientation, notes = _orientation(facts)
    nodata = number(facts.nodata)
    if facts.white_is_zero:
        notes.append(Note("WhiteIsZero", "0 is declared as white (WhiteIsZero); values are inverted, so 0 is black"))
    if nodata is not None:
        notes.append(
            Note(
                "nodata",
                f"{facts.nodata.strip()} is declared as missing (nodata); where it occurs, it is used as a value",
            )
        )
    if facts.scaled:
        message = f"the declared {facts.scaled} (GDAL) is not applied; the stored values are used unchanged"
        notes.append(Note("scale and offset", message))
    if facts.validity:
        notes.append(
            Note("validity mask", "the file contains a mask of valid pixels, which is ignored; every pixel is used")
        )
    if facts.density and abs(facts.density[0] / facts.density[1] - 1) > SQUARE:
        ratio = facts.density[1] / facts.density[0]
        message = f"pixels are {ratio:.3g} times as wide as high; they are treated as square"
        notes.append(Note("pixels that are not square", message))
    if facts.clear:
        notes.append(
            Note(
                "transparency", "a colour is declared transparent; in a mask, the stored number of this colour is used"
            )
        )
    if facts.several:
        notes.append(Note("further pictures", "further pictures in the file (MPF) are not read"))
    return Metadata(orientation, nodata, tuple(notes))


def _orientation(facts: Facts) -> tuple[int, list[Note]]:
    value = facts.orientation
    if value is None or value == 1:
        return 1, []
    if value not in TURNS:
        return 1, [Note("orientation", f"orientation {value} is not between 1 and 8; the pixels are used as stored")]
    if facts.georeferenced:
        raise ImageError(
            f"the orientation is {value}, but the georeference refers to the stored pixels; write the file "
            "with orientation 1, or without georeference"
        )
    if facts.rarely_turned:
        raise ImageError(
            f"the orientation is {value}, which only some viewers of JPEG 2000 apply; rotate the image itself, or "
            "remove the orientation"
        )
    return value, [Note("orientation", f"the pixels are turned upright, because the orientation is {value}")]


def number(text: str) -> float | None:
    """Parse `text` as the number that marks missing values; return None if `text` is not a number."""
    try:
        return float(text.strip("\0 \t\r\n").replace(",", "."))
    except ValueError:
        return None


def holds(dtype: npt.DTypeLike, nodata: float) -> bool:
    """Return whether an image of type `dtype` can contain `nodata`, the number that marks missing values."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    limits = np.iinfo(kind) if kind.kind in "iu" else None
    low, high = (limits.min, limits.max) if limits else (0, 1)
    return bool(low <= nodata <= high and nodata == int(nodata))


def missing(pixels: Pixels, nodata: float) -> npt.NDArray[np.bool_]:
    """Return a mask of the pixels that equal `nodata`, which marks missing values; `nodata` may be NaN."""
    if np.isnan(nodata):
        return np.isnan(pixels)
    if not holds(pixels.dtype, nodata):
        return np.zeros(pixels.shape, bool)
    with np.errstate(over="ignore"):
        is_missing: npt.NDArray[np.bool_] = pixels == pixels.dtype.type(nodata)
    return is_missing


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn stored `pixels` (H, W, ...) upright; for `orientation` 5 to 8, the result has shape (W, H, ...)."""
    backward, mirrored, exchanged = TURNS[orientation]
    turned = pixels[:: -1 if backward else 1, :: -1 if mirrored else 1]
    return np.ascontiguousarray(np.swapaxes(turned, 0, 1) if exchanged else turned)


def size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Convert the height and width of a stored image to the upright height and width, or the reverse."""
    return (width, height) if TURNS[orientation][2] else (height, width)


def stored_window(rows: slice, columns: slice, height: int, width: int, orientation: int) -> tuple[slice, slice]:
    """Convert a window of the upright image to rows and columns of the stored image of `height` x `width` px."""
    backward, mirrored, exchanged = TURNS[orientation]
    down, along = (columns, rows) if exchanged else (rows, columns)
    return (_backward(down, height) if backward else down), (_backward(along, width) if mirrored else along)


def _backward(part: slice, length: int) -> slice:
    return slice(length - part.stop, length - part.start)


def inverted(pixels: Pixels, bits: int, alpha: tuple[int, ...] = ()) -> Pixels:
    """Invert `pixels` (H, W, C) of `bits` bits, in which 0 is white; do not invert alpha channels (`alpha`).

    Raises
    ------
    ImageError
        The type has no maximum, or there are several channels besides alpha.
    """
    if pixels.dtype.kind not in "bu" or pixels.shape[2] - len(alpha) != 1:
        raise ImageError(
            f"the file declares 0 as white (WhiteIsZero), which is not defined for {pixels.shape[2]} channel(s) of "
            f"type {pixels.dtype}; write the file with 0 as black (BlackIsZero, also called MinIsBlack)"
        )
    black: Pixels = ~pixels if pixels.dtype.kind == "b" else pixels.dtype.type(2**bits - 1) - pixels
    for channel in alpha:
        black[..., channel] = pixels[..., channel]
    return black


def refuse_unclear_mask(stored: Pixels, bits: int, writer: str) -> None:
    """Refuse a mask that declares 0 as white, but was perhaps written with 0 as black.

    `bits` is the number of bits per value. `writer` is the name of the program that wrote the file. tifffile declares
    every bool array as WhiteIsZero, but does not invert the values. scikit-image uses tifffile.
    """
    most, highest = 2**bits - 1, int(stored.max(initial=0))
    if bits == 1 and writer.startswith("tifffile"):
        raise ImageError(
            "the file declares 0 as white (WhiteIsZero), as tifffile does for every array of bool; write the mask with "
            "photometric='minisblack', or as uint8"
        )
    if 0 < highest <= most // 2:
        raise ImageError(
            f"the file declares 0 as white (WhiteIsZero), but the values 0 to {highest} look like ids, and segline "
            f"would turn 0 into {most} and {highest} into {most - highest}; save the mask with 0 as black "
            "(BlackIsZero, also called MinIsBlack)"
        )
