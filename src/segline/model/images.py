"""Image bytes to raw pixels, raw pixels to network input, labels to PNG: one preprocessing for every use.

Forms. An image is (H, W, C), uint8, uint16 or float32, whatever its file: bool becomes 0 and 255, every other type
float32 with its values kept (whole numbers beyond 2**24 are rounded). Palettes become RGB. An alpha channel that is
opaque everywhere is dropped, any other is refused. What else a file says of its pixels, `metadata` decides: pixels are
upright, and 0 is black.

Bounds. What a file says of its size is doubted before anything is allocated. Its pixels P, in bytes as they are stored
or as they are decoded, whichever are more, are at most 4 GiB (`headers.LARGEST`) and at most k times the file: k is 1
for BMP and uncompressed TIFF, 1,400 for JPEG, 1,032 for PNG and deflate, 2,560 for LZW and GIF, 64 for PackBits, 32,768
for zstd and JPEG 2000; times what bits, palettes and conversion to float32 add (32 at most). Decoding needs at
most 64 MiB + 64 x the file + 4 P; 64 x is for what the directories of a TIFF may list.
"""

import io
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt

from . import exif, gif, headers, jpeg2000, metadata
from .headers import Header
from .metadata import Facts, Metadata

if TYPE_CHECKING:
    from . import tiff

# What it tells of damaged files comes as ImageError.
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
START = 1200  # bytes in which a PNG or BMP has said its size and type


@dataclass(frozen=True)
class Statistics:
    """What is known of the training images; mean and standard deviation are in units of the type's range."""

    dtype: str
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """Return the statistics in `content`, as read from JSON; KeyError, TypeError or ValueError if damaged."""
        found = cls(content["dtype"], content["channels"], tuple(content["mean"]), tuple(content["std"]))
        if found.dtype not in ("uint8", "uint16", "float32") or type(found.channels) is not int or found.channels < 1:
            raise ValueError(f"dtype {found.dtype!r:.80}, channels {found.channels!r:.80} are not those of images")
        for values in (found.mean, found.std):
            if len(values) != found.channels or not all(type(v) in (int, float) and np.isfinite(v) for v in values):
                raise ValueError("mean and std are not one number for each channel")
        return found


def decode(data: bytes) -> Raw:
    """Pixels (H, W, C), uint8, uint16 or float32, of an encoded image; see above for the rules.

    Channels are in the order red, green, blue.

    Raises
    ------
    ImageError
        The bytes are no such image, are damaged or truncated, promise more than they can hold, or hold several pages;
        or its type, its colours or its alpha channel are none of the above.
    """
    form = form_of(data)
    if form == "TIFF":
        return decode_page(io.BytesIO(data))
    with headers.reading(form):
        orientation = describe(io.BytesIO(data)).orientation
        found = _stored(io.BytesIO(data), form)
        pixels, alpha = _decoded(data, form, found)
    return metadata.upright(usual(pixels, alpha), orientation)


def decode_page(stream: BinaryIO, page: int | None = None) -> Raw:
    """Pixels (H, W, C) of one page of a TIFF, of which no other is read; None: the only one. Errors as in `decode`."""
    from . import tiff

    return pixels_of(tiff.read(stream, page))


def pixels_of(stored: "tiff.Stored") -> Raw:
    """Pixels (H, W, C) of the numbers of a TIFF, or of a window of them; ImageError where they mean nothing."""
    if stored.palette is not None:
        pixels: Raw = stored.palette[stored.numbers[..., 0]]
    else:
        pixels = usual(stored.black_is_zero, stored.alpha)
    return metadata.upright(pixels, stored.orientation)


def header(stream: BinaryIO) -> Header:
    """Size and type that `decode` would give; little is read and nothing decoded. Errors as there."""
    form = form_of(stream.read(START))
    if form != "TIFF":
        with headers.reading(form):
            found, orientation = _stored(stream, form), describe(stream).orientation
            height, width = metadata.size(found.height, found.width, orientation)
            return found._replace(height=height, width=width)
    from . import tiff

    stream.seek(0)
    height, width, channels, dtype = tiff.header(stream)
    return Header(height, width, channels, usual(np.empty((0, 0, 1), dtype)).dtype.name)


def describe(stream: BinaryIO, page: int | None = None) -> Metadata:
    """What is made of what an image file says of itself; nothing is decoded.

    Raises
    ------
    ImageError
        `metadata` refuses it, or it is no image.
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
            noted, _ = exif.of_tiff(jpeg2000.note(stream.read(), jpeg2000.EXIF).removeprefix(exif.EXIF))
            return metadata.decide(Facts(noted, rarely_turned=True))
        return metadata.decide(Facts(density=headers.bmp_density(start)))


def form_of(start: bytes) -> str:
    """PNG, JPEG, BMP, GIF, JPEG 2000 or TIFF, as the first bytes of a file say; ImageError when it is none of these."""
    for magic, form in MAGIC.items():
        if start.startswith(magic):
            return form
    raise ImageError(f"not a readable {FORMATS} image; if it is of another kind, convert it")


def _stored(stream: BinaryIO, form: str) -> Header:
    """Size and type of the pixels as they are stored."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if form == "PNG":
        return headers.png(stream.read(START), size)
    if form == "BMP":
        return headers.bmp(stream.read(START), size)
    if form == "GIF":
        return gif.header(stream.read())
    return headers.jpeg(stream.read()) if form == "JPEG" else jpeg2000.header(stream.read()).size


def _decoded(data: bytes, form: str, found: Header) -> tuple[Raw, tuple[int, ...]]:
    """Pixels (H, W, C) as they are stored, with colours for palettes, and which channels are alpha."""
    if form == "GIF":
        shown, opaque = gif.shown(data)
        return (shown, ()) if opaque is None else (np.dstack([shown, opaque]), (shown.shape[2],))
    if form == "JPEG 2000":
        return jpeg2000.decode(data)
    if form == "PNG":
        pixels = imagecodecs.png_decode(headers.png_pixels(data))
    else:
        pixels = (imagecodecs.jpeg8_decode if form == "JPEG" else imagecodecs.bmp_decode)(data)
    pixels = pixels.reshape(found.height, found.width, -1)
    if form == "BMP" and found.channels == 1:
        pixels = pixels[..., :1]
    return pixels, (pixels.shape[2] - 1,) if pixels.shape[2] in (2, 4) else ()


def usual(pixels: Raw, alpha: tuple[int, ...] = ()) -> Raw:
    """`pixels` (H, W, C) in one of the three types, without the channels `alpha`."""
    for channel in alpha:
        opaque = 1 if pixels.dtype.kind in "bf" else np.iinfo(pixels.dtype).max
        clear = int(np.count_nonzero(pixels[..., channel] != opaque))
        if clear:
            raise ImageError(
                f"{clear} pixels are transparent by its alpha channel; flatten it onto a background, or, if channel "
                f"{channel + 1} is data, do not declare it as alpha"
            )
    if alpha:
        last = alpha == (pixels.shape[2] - 1,)
        pixels = pixels[..., :-1] if last else np.delete(pixels, alpha, axis=2)
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    dtype = np.dtype(pixels.dtype.name if pixels.dtype.name in RANGES else np.float32)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which check refuses
        return np.ascontiguousarray(pixels, dtype)


def encode_png(labels: npt.NDArray[Any]) -> bytes:
    """PNG bytes of a label image (H, W) or a picture (H, W, 3), uint8 or uint16."""
    array = labels[..., ::-1] if labels.ndim == 3 else labels
    done, encoded = cv2.imencode(".png", array)
    assert done
    return encoded.tobytes()


def scale(raw: Raw) -> npt.NDArray[np.float32]:
    """`raw` (H, W, C) divided by the range of its type, float32: the same pixel always gives the same value."""
    return raw.astype(np.float32) / np.float32(RANGES[raw.dtype.name])


def normalise(scaled: npt.NDArray[np.float32], statistics: Statistics) -> npt.NDArray[np.float32]:
    """Network input (C, H, W) of `scaled` (H, W, C): minus the training mean, divided by its standard deviation."""
    # The axis is moved first: with the few channels last, numpy's loops are too short to be fast.
    planes = np.array(np.moveaxis(scaled, -1, 0), order="C")
    planes -= np.asarray(statistics.mean, np.float32)[:, None, None]
    planes /= np.asarray(statistics.std, np.float32)[:, None, None]
    return planes


def as_channels(raw: Raw, channels: int) -> Raw:
    """`raw` (H, W, C) with `channels` channels: a grey image among RGB ones is RGB with three equal channels.

    Raises
    ------
    ImageError
        Any other difference.
    """
    if raw.shape[2] == channels:
        return raw
    if raw.shape[2] == 1 and channels == 3:
        return np.repeat(raw, 3, axis=2)
    raise ImageError(f"an image with {raw.shape[2]} channels, where others have {channels}; convert it")


def to_network(raw: Raw, statistics: Statistics) -> npt.NDArray[np.float32]:
    """Network input (C, H, W) of `raw` (H, W, C); three equal channels of a grey image where the model takes RGB.

    Raises
    ------
    ImageError
        Type or channels are not those of the training images.
    """
    suits = raw.shape[2] == statistics.channels or (raw.shape[2], statistics.channels) == (1, 3)
    if raw.dtype.name != statistics.dtype or not suits:
        raise ImageError(
            f"an image of type {raw.dtype} with {raw.shape[2]} channels, but the model was trained on "
            f"{statistics.dtype} with {statistics.channels}; convert the image"
        )
    return normalise(scale(as_channels(raw, statistics.channels)), statistics)
