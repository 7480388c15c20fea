"""Decide what a note of an image file means for its pixels: it is honoured, warned of, or the file is refused.

This is the only place of such decisions, for images and masks, in training and use. docs/import.md has the same table.

| note | decision |
|---|---|
| orientation: EXIF (JPEG, PNG), TIFF tag 274, else XMP | honoured: pixels are turned upright; not 1 to 8: warned of |
| orientation of a TIFF with a georeference | refused: the georeference would no longer fit |
| orientation of a JPEG 2000 | refused: viewers differ in whether they turn it |
| WhiteIsZero (TIFF photometric 0) | honoured: values become `most - value` |
| WhiteIsZero of signed or real numbers, or of several channels | refused: there is no `most`, or no grey |
| WhiteIsZero of a mask of ids, or of a mask of bits that tifffile wrote | refused: most writers mean 0 as 0 |
| missing values (GDAL_NODATA) | warned of where they occur; `check` refuses those far from all other values |
| scale and offset of values (GDAL_METADATA) | warned of: numbers are taken as they are stored |
| a mask of valid pixels (TIFF page of kind 4) | warned of: every pixel is taken |
| pixels that are not square (resolution, PhysicalSize, pixel scale) | warned of: they are taken as squares |
| colours that are called transparent (PNG tRNS, GIF), in a mask | warned of: the number is what counts |
| further pictures in a JPEG (MPF) | warned of: the first is read |
| animations (PNG, GIF) | refused |
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .headers import ImageError

Pixels = npt.NDArray[Any]

# By orientation: whether the stored rows and columns go backwards, and whether both are then exchanged.
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
FIRST_EXCHANGED = 5  # orientations from here on exchange height and width
SQUARE = 0.01  # by which the sides of a pixel may differ
TO_STRIP = "if labels were made on its unturned pixels, remove the note (exiftool -Orientation= FILE)"


class Note(NamedTuple):
    """One thing that a file says and that a person should know: what it is about, and what is made of it."""

    kind: str
    message: str


class Facts(NamedTuple):
    """What a file says of the geometry and meaning of its pixels."""

    orientation: int | None = None
    density: tuple[float, float] | None = None  # pixels per unit of length, in x and y
    frames: int = 1
    several: bool = False
    clear: bool = False
    white_is_zero: bool = False
    georeferenced: bool = False
    nodata: str = ""
    scaled: str = ""
    validity: bool = False  # whether a page says which pixels are valid
    rarely_turned: bool = False  # whether viewers differ in whether they turn the image


class Metadata(NamedTuple):
    """What is made of `Facts`: an orientation 1 to 8, the number of missing values, and what to say."""

    orientation: int = 1
    nodata: float | None = None
    notes: tuple[Note, ...] = ()


def decide(facts: Facts) -> Metadata:
    """Decide about what a file says of itself, by the table above.

    Raises
    ------
    ImageError
        It is an animation, or has an orientation that is refused.
    """
    if facts.frames > 1:
        raise ImageError(f"an animation of {facts.frames} frames; save each as an image of its own")
    orientation, notes = _orientation(facts)
    nodata = number(facts.nodata)
    if facts.white_is_zero:
        notes.append(Note("WhiteIsZero", "0 is white (WhiteIsZero): values are inverted, so that 0 is black"))
    if nodata is not None:
        notes.append(
            Note(
                "nodata",
                f"{facts.nodata.strip()} is declared as missing (nodata): where it occurs, it is taken for a value",
            )
        )
    if facts.scaled:
        message = f"numbers have a {facts.scaled} (GDAL); they are taken as they are stored"
        notes.append(Note("scale and offset", message))
    if facts.validity:
        notes.append(Note("validity mask", "a mask in the file says which pixels are valid; every pixel is taken"))
    if facts.density and abs(facts.density[0] / facts.density[1] - 1) > SQUARE:
        ratio = facts.density[1] / facts.density[0]
        message = f"pixels are {ratio:.3g} times as wide as high; they are taken as squares"
        notes.append(Note("pixels that are not square", message))
    if facts.clear:
        notes.append(Note("transparency", "a colour is called transparent; in a mask, its number counts all the same"))
    if facts.several:
        notes.append(Note("further pictures", "further pictures in the file (MPF) are not read"))
    return Metadata(orientation, nodata, tuple(notes))


def _orientation(facts: Facts) -> tuple[int, list[Note]]:
    value = facts.orientation
    if value is None or value == 1:
        return 1, []
    if value not in TURNS:
        return 1, [Note("orientation", f"orientation note {value} is not 1 to 8: taken as it is stored")]
    if facts.georeferenced:
        raise ImageError(
            f"its orientation note is {value}, but its georeference is of the pixels as stored; write it with "
            "orientation 1, or without georeference"
        )
    if facts.rarely_turned:
        raise ImageError(
            f"its orientation note is {value}, which some viewers of JPEG 2000 heed and others do not; turn the "
            "pixels, or remove the note"
        )
    return value, [Note("orientation", f"turned upright, as orientation note {value} says")]


def number(text: str) -> float | None:
    """The number of missing values; None where none is declared."""
    try:
        return float(text.strip("\0 \t\r\n").replace(",", "."))
    except ValueError:
        return None


def holds(dtype: npt.DTypeLike, nodata: float) -> bool:
    """Whether an image of that type can hold the number of missing values."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    limits = np.iinfo(kind) if kind.kind in "iu" else None
    low, high = (limits.min, limits.max) if limits else (0, 1)
    return bool(low <= nodata <= high and nodata == int(nodata))


def missing(pixels: Pixels, nodata: float) -> npt.NDArray[np.bool_]:
    """Where `pixels` hold the number of missing values, which may be NaN."""
    if np.isnan(nodata):
        return np.isnan(pixels)
    if not holds(pixels.dtype, nodata):
        return np.zeros(pixels.shape, bool)
    with np.errstate(over="ignore"):
        found: npt.NDArray[np.bool_] = pixels == pixels.dtype.type(nodata)
    return found


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """`pixels` (H, W, ...) turned as viewers show them; (W, H, ...) where `orientation` is 5 to 8."""
    backward, mirrored, exchanged = TURNS[orientation]
    turned = pixels[:: -1 if backward else 1, :: -1 if mirrored else 1]
    return np.ascontiguousarray(np.swapaxes(turned, 0, 1) if exchanged else turned)


def size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Height and width upright of an image stored as `height` x `width`; or the other way round."""
    return (width, height) if TURNS[orientation][2] else (height, width)


def stored_window(rows: slice, columns: slice, height: int, width: int, orientation: int) -> tuple[slice, slice]:
    """The stored rows and columns, of `height` x `width` px, of a window of the upright image."""
    backward, mirrored, exchanged = TURNS[orientation]
    down, along = (columns, rows) if exchanged else (rows, columns)
    return (_backward(down, height) if backward else down), (_backward(along, width) if mirrored else along)


def _backward(part: slice, length: int) -> slice:
    return slice(length - part.stop, length - part.start)


def inverted(pixels: Pixels, bits: int, alpha: tuple[int, ...] = ()) -> Pixels:
    """`pixels` (H, W, C) of `bits` bits whose 0 is white, with 0 for black; channels `alpha` stay.

    Raises
    ------
    ImageError
        The numbers have no largest one, or there are several channels.
    """
    if pixels.dtype.kind not in "bu" or pixels.shape[2] - len(alpha) != 1:
        raise ImageError(
            f"its 0 is white (WhiteIsZero), which cannot be said of {pixels.shape[2]} channel(s) of type "
            f"{pixels.dtype}; write it as MinIsBlack"
        )
    black: Pixels = ~pixels if pixels.dtype.kind == "b" else pixels.dtype.type(2**bits - 1) - pixels
    for channel in alpha:
        black[..., channel] = pixels[..., channel]
    return black


def refuse_unclear_mask(stored: Pixels, bits: int, writer: str) -> None:
    """Refuse a mask of `bits` bits whose 0 is white, where its writer may have meant 0 as 0.

    tifffile (and scikit-image by it) calls every array of bool WhiteIsZero and inverts nothing.
    """
    most, highest = 2**bits - 1, int(stored.max(initial=0))
    if bits == 1 and writer.startswith("tifffile"):
        raise ImageError(
            "its 0 is white (WhiteIsZero), as tifffile says of every array of bool, whatever is meant; write it with "
            "photometric='minisblack', or as uint8"
        )
    if 0 < highest <= most // 2:
        raise ImageError(
            f"its 0 is white (WhiteIsZero), but its values 0 to {highest} look like ids, which would become "
            f"{most} to {most - highest}; write it as MinIsBlack"
        )
