"""Decode images to raw pixels, and encode labels as PNG.

Types. Every image is decoded to (H, W, C), uint8, uint16 or float32. bool becomes 0 and 255; every other type becomes
float32 with the same values (whole numbers beyond 2**24 are rounded). Palettes become RGB. An alpha channel is
dropped if it is opaque everywhere; otherwise the image is refused. Module `metadata` decides about all other metadata.
For example, pixels are turned upright, and 0 is black.

Bounds. The size in a header is validated before memory is allocated. P is the size of the pixels in bytes, stored or
decoded, whichever is larger. P is at most 4 GiB (`headers.LARGEST`). P is also at most k x g x the file size. k is
the largest expansion of the compression: 1 for BMP and uncompressed TIFF, 1,400 for JPEG, 1,032 for PNG and deflate,
2,560 for LZW and GIF, 64 for PackBits, and 32,768 for zstd and JPEG 2000. g is the growth by bits, palettes and
conversion to float32, at most 32. Decoding needs at most 64 MiB + 64 x the file size + 4 P bytes of memory. The
directories of a TIFF may list data of up to 64 x the file size.
"""

import io
import logging
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt

from . import exif, gif, headers, jpeg2000, metadata
from .headers import Header
from .metadata import Facts, Metadata

if TYPE_CHECKING:
    from . import tiff

# Damaged files raise ImageError, so the log messages of imagecodecs are not needed.
logging.getLogger("imagecodecs").addHandler(logging.NullHandler())

ImageError = headers.ImageError
Raw = npt.NDArray[Any]  # (H, W, C), uint8, uint16 or float32

RANGES = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
MAGIC = (
    {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8": "JPEG", b"BM": "BMP", b"GIF87a": "GIF", b"GIF89a": "GIF"}
    | dict.fromkeys(jpeg2000.MAGIC, "JPEG 2000")
    | dict.fromkeys(TIFF_MAGIC, "TIFF")
)
FORMATS = "PNG, JPEG, BMP, GIF, JPEG 2000 or TIFF"
START = 1200  # a PNG or BMP declares the size and type of the image in its first START bytes


def decode(data: bytes) -> Raw:
    """Decode an image file to pixels (H, W, C); the module docstring says when the type is uint8, uint16 or float32.

    Colour channels are in the order red, green, blue.

    Raises
    ------
    ImageError
        `data` is not a supported image, is damaged or truncated, declares more pixels than it can hold, or has
        several pages. Or the type, the colours or the alpha channel are not supported.
    """
    form = form_of(data)
    if form == "TIFF":
        return decode_page(io.BytesIO(data))
    with headers.reading(form):
        orientation = describe(io.BytesIO(data)).orientation
        size = _stored(io.BytesIO(data), form)
        pixels, alpha = _decoded(data, form, size)
    return metadata.upright(usual(pixels, alpha), orientation)


def decode_page(stream: BinaryIO, page: int | None = None) -> Raw:
    """Decode a TIFF page (the only page if `page` is None) to pixels (H, W, C); raise the same errors as `decode`."""
    from . import tiff

    return pixels_of(tiff.read(stream, page))


def pixels_of(stored: "tiff.Stored") -> Raw:
    """Convert stored values from a TIFF to pixels (H, W, C); raise ImageError if this is not possible."""
    if stored.palette is not None:
        pixels: Raw = stored.palette[stored.numbers[..., 0]]
    else:
        pixels = usual(stored.black_is_zero, stored.alpha)
    return metadata.upright(pixels, stored.orientation)


def header(stream: BinaryIO) -> Header:
    """Return the shape and data type of the array that `decode` would return, without decoding the file.

    The function raises the same errors as `decode`.
    """
    form = form_of(stream.read(START))
    if form != "TIFF":
        with headers.reading(form):
            stored, orientation = _stored(stream, form), describe(stream).orientation
            height, width = metadata.size(stored.height, stored.width, orientation)
            return stored._replace(height=height, width=width)
    from . import tiff

    stream.seek(0)
    height, width, channels, dtype = tiff.header(stream)
    return Header(height, width, channels, usual(np.empty((0, 0, 1), dtype)).dtype.name)


def describe(stream: BinaryIO, page: int | None = None) -> Metadata:
    """Decide how to treat the metadata of an image file, without decoding any pixels.

    Raises
    ------
    ImageError
        Module `metadata` refuses the image, or the file is not an image.
    """
    stream.seek(0)
    start = stream.read(START)
    stream.seek(0)
    form = form_of(start)
    with headers.reading(form):
        if form == "PNG":
            return metadata.decide(Facts(*exif.of_png(stream)))
        if form == "JPEG":
            return metadata.decide(Facts(*exif.of_jpeg(stream.read())))
        if form == "TIFF":
            from . import tiff

            return tiff.describe(stream, page)
        if form == "GIF":
            return metadata.decide(Facts(density=gif.density(start), clear=gif.clear(stream.read())))
        if form == "JPEG 2000":
            orientation, _ = exif.of_tiff(jpeg2000.note(stream.read(), jpeg2000.EXIF).removeprefix(exif.EXIF))
            return metadata.decide(Facts(orientation, rarely_turned=True))
        return metadata.decide(Facts(density=headers.bmp_density(start)))


def form_of(start: bytes) -> str:
    """Return the image format from the first bytes of a file; raise ImageError if the format is not supported."""
    for magic, form in MAGIC.items():
        if start.startswith(magic):
            return form
    raise ImageError(f"not a readable {FORMATS} image; convert the file to one of these formats")


def _stored(stream: BinaryIO, form: str) -> Header:
    """Return the size and type of the stored pixels, before they are turned upright."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if form == "PNG":
        return headers.png(stream.read(START), size)
    if form == "BMP":
        return headers.bmp(stream.read(START), size)
    if form == "GIF":
        return gif.header(stream.read())
    return headers.jpeg(stream.read()) if form == "JPEG" else jpeg2000.header(stream.read()).size


def _decoded(data: bytes, form: str, size: Header) -> tuple[Raw, tuple[int, ...]]:
    """Decode pixels in the stored orientation; return two values: pixels (H, W, C) and alpha channel indices."""
    if form == "GIF":
        shown, opaque = gif.shown(data)
        return (shown, ()) if opaque is None else (np.dstack([shown, opaque]), (shown.shape[2],))
    if form == "JPEG 2000":
        return jpeg2000.decode(data)
    if form == "PNG":
        pixels = imagecodecs.png_decode(headers.png_pixels(data))
    else:
        pixels = (imagecodecs.jpeg8_decode if form == "JPEG" else imagecodecs.bmp_decode)(data)
    pixels = pixels.reshape(size.height, size.width, -1)
    if form == "BMP" and size.channels == 1:
        pixels = pixels[..., :1]
    return pixels, (pixels.shape[2] - 1,) if pixels.shape[2] in (2, 4) else ()


def usual(pixels: Raw, alpha: tuple[int, ...] = ()) -> Raw:
    """Convert `pixels` (H, W, C) to uint8, uint16 or float32, and remove the alpha channels (indices `alpha`)."""
    for channel in alpha:
        opaque = 1 if pixels.dtype.kind in "bf" else np.iinfo(pixels.dtype).max
        transparent = int(np.count_nonzero(pixels[..., channel] != opaque))
        if transparent:
            raise ImageError(
                f"the alpha channel makes {transparent} pixels transparent; flatten the image onto a background. "
                f"If channel {channel + 1} contains data, save the file without declaring this channel as alpha"
            )
    if alpha:
        last = alpha == (pixels.shape[2] - 1,)
        pixels = pixels[..., :-1] if last else np.delete(pixels, alpha, axis=2)
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    dtype = np.dtype(pixels.dtype.name if pixels.dtype.name in RANGES else np.float32)
    with np.errstate(over="ignore"):  # values beyond float32 become infinite; `segline check` refuses infinite values
        return np.ascontiguousarray(pixels, dtype)


def encode_png(labels: npt.NDArray[Any]) -> bytes:
    """Encode a label image (H, W) or a picture (H, W, 3), uint8 or uint16, as PNG."""
    array = labels[..., ::-1] if labels.ndim == 3 else labels
    done, encoded = cv2.imencode(".png", array)
    assert done
    return encoded.tobytes()
