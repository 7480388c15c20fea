"""Decode a label image into its stored values: ids, palette indices or colours."""

import io
from typing import Any, BinaryIO, NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt

from segline.model import gif, headers, jpeg2000, metadata
from segline.model.images import START, ImageError, describe, form_of, header

LARGEST_IMAGE = 2**32  # pixels, replaces Pillow's limit; the size in the header was checked before


class Written(NamedTuple):
    """Stored values of a label image: numbers (H, W) or colours (H, W, C).

    If the numbers are palette indices, there is also the palette (N, 3).
    """

    numbers: npt.NDArray[Any]
    palette: npt.NDArray[np.uint8] | None = None


def decode(stream: BinaryIO, page: int | None = None) -> Written:
    """Decode the stored values of an image file, turned upright; a black-and-white image gives 0 and 1.

    Pixels that an alpha channel makes transparent become 0; transparency in metadata (tRNS) is ignored.

    Parameters
    ----------
    page : page of a TIFF stack, counted from 0; None for the only page.

    Raises
    ------
    ImageError
        The bytes are not an image or are damaged, pixels are half transparent, or `metadata` refuses the file.
    """
    form = form_of(stream.read(START))
    stream.seek(0)
    if form == "TIFF":
        return _tiff(stream, page)
    header(stream)
    orientation = describe(stream).orientation
    stream.seek(0)
    data = stream.read()
    with headers.reading(form):
        written = _decoded(data, form)
    return written._replace(numbers=metadata.upright(written.numbers, orientation))


def is_exact(stream: BinaryIO, page: int | None = None) -> bool:
    """Return whether an image file is stored without loss. JPEG compression loses information, also within a TIFF.

    Raises
    ------
    ImageError
        The file is not an image, or is damaged.
    """
    form = form_of(stream.read(START))
    stream.seek(0)
    if form == "TIFF":
        from segline.model import tiff

        exact = tiff.is_exact(stream, page)
    elif form == "JPEG 2000":
        with headers.reading(form):
            exact = jpeg2000.header(stream.read()).reversible
    else:
        exact = form != "JPEG"
    stream.seek(0)
    return exact


def _tiff(stream: BinaryIO, page: int | None) -> Written:
    from segline.model import tiff

    stored = tiff.read(stream, page)
    if stored.white_is_zero:
        metadata.refuse_unclear_mask(stored.numbers, stored.white_is_zero, stored.writer)
    numbers = metadata.upright(_laid_on_black(stored.black_is_zero, stored.alpha), stored.orientation)
    return Written(_flat(numbers), stored.palette)


def _decoded(data: bytes, form: str) -> Written:
    if form == "PNG":
        return _png(headers.png_pixels(data, transparency=False))
    if form == "GIF":
        return Written(*gif.numbers(data))
    if form == "BMP" and data[28] <= 8:
        return _indexed(data)
    if form == "JPEG 2000":
        pixels, alpha = jpeg2000.decode(data)
        return Written(_flat(_laid_on_black(pixels, alpha)))
    return Written(_flat((imagecodecs.jpeg8_decode if form == "JPEG" else imagecodecs.bmp_decode)(data)))


def _png(data: bytes) -> Written:
    bits, colour = data[24:26]
    if colour == 3:
        return _indexed(data)
    pixels = imagecodecs.png_decode(data)
    if colour == 0 and bits < 8:
        return Written(pixels // np.uint8(255 // (2**bits - 1)))  # libpng scales values to 0 ... 255
    if colour in (4, 6):
        pixels = _laid_on_black(pixels, (pixels.shape[2] - 1,))
    return Written(_flat(pixels))


def _indexed(data: bytes) -> Written:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = LARGEST_IMAGE
    with Image.open(io.BytesIO(data)) as image:
        colours = image.getpalette("RGB")
        palette = None if colours is None else np.array(colours, np.uint8).reshape(-1, 3)
        return Written(_flat(np.array(image)), palette)


def _flat(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert `pixels` to native byte order; drop the channel axis if it has length 1, and turn bool into 0 and 1."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return pixels.astype(np.uint8 if pixels.dtype.kind == "b" else pixels.dtype.newbyteorder("="), copy=False)


def _laid_on_black(pixels: npt.NDArray[Any], alpha: tuple[int, ...]) -> npt.NDArray[Any]:
    for channel in alpha:
        level = pixels[..., channel]
        opaque = 1 if pixels.dtype.kind in "bf" else np.iinfo(pixels.dtype).max
        half = int(np.count_nonzero((level != 0) & (level != opaque)))
        if half:
            raise ImageError(
                f"{half} pixels are half transparent, so their label is ambiguous; save the image without transparency"
            )
        pixels = np.where(level[..., None] == 0, pixels.dtype.type(0), pixels)
    return np.delete(pixels, alpha, axis=2) if alpha else pixels
