"""Read the pictures in a TIFF: group TIFF directories (IFDs) into pictures, validate headers, decode pixels."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile

from . import headers, metadata, tifftags
from .headers import ImageError
from .metadata import Metadata

# For each accepted compression, the largest number of decoded bytes per compressed byte.
# Rare compressions are refused.
# JPEG 2000, WebP, JPEG XL and LERC are refused, too, because their data declare an image size of their own.
RATIOS = {1: 1, 5: 2560, 7: headers.JPEG, 8: headers.DEFLATE, 32773: 64, 32946: headers.DEFLATE, 50000: 32768}
JPEG, PALETTE, PLANAR, YCBCR = 7, 3, 2, 6
PHOTOMETRICS = (tifftags.WHITE_IS_ZERO, 1, 2, PALETTE, YCBCR)  # 1 is grey with 0 as black, 2 is RGB
PREDICTORS = (1, 2, 3)  # none, horizontal, floating point
ALPHAS = (1, 2)  # values of tag ExtraSamples that mean alpha
# Turn off tifffile's support for forty TIFF dialects, because their metadata can make tifffile load any amount of data.
PLAIN: dict[str, Any] = {f"is_{flag}": False for flag in tifffile.TIFF.FILE_FLAGS}

Pixels = npt.NDArray[Any]

# Damaged files raise ImageError, so the log messages of tifffile are not needed.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class Stored(NamedTuple):
    """Pixel values (H, W, C) as stored in a TIFF, and how to interpret them."""

    numbers: Pixels
    alpha: tuple[int, ...]
    """Indices of the alpha channels."""
    palette: npt.NDArray[np.uint8] | None
    """Colours (N, 3) of the palette; None if there is no palette."""
    white_is_zero: int = 0
    """Number of bits per value if the value 0 is white; otherwise 0."""
    orientation: int = 1
    """Orientation as in the TIFF standard, 1 to 8."""
    writer: str = ""
    """Name of the program that wrote the file."""

    @property
    def black_is_zero(self) -> Pixels:
        """Pixel values, inverted if needed so that 0 is black; raises ImageError if inversion is not possible."""
        bits = self.white_is_zero
        return metadata.inverted(self.numbers, bits, self.alpha) if bits else self.numbers


@contextmanager
def opened(stream: BinaryIO) -> Iterator[tuple[tifffile.TiffFile, list[int]]]:
    """Open a TIFF; yield two values: the file, and the offsets of the TIFF directories that hold full images."""
    with headers.reading("TIFF"):
        offsets = tifftags.full_images(stream)
        stream.seek(0)
        with tifffile.TiffFile(stream, **PLAIN) as file:
            yield file, offsets


def count(stream: BinaryIO) -> int:
    """Count the pictures in a TIFF: all planes of a picture count as one; smaller copies and masks do not count.

    Raises
    ------
    ImageError
        The stream is not a TIFF, or the metadata contradict the number or order of the planes.
    """
    with opened(stream) as (file, offsets):
        return len(_pictures(file, offsets))


def header(stream: BinaryIO, picture: int | None = None) -> tuple[int, int, int, np.dtype[Any]]:
    """Return height and width of the upright picture, number of channels without alpha, and stored data type."""
    with opened(stream) as (file, offsets):
        pages = page_planes(file, offsets, picture)
        first = pages[0]
        channels = 3 if first.photometric == PALETTE else sum(page.samplesperpixel for page in pages)
        dtype = np.dtype(np.uint8) if first.photometric == PALETTE else first.dtype
        assert dtype is not None
        return *tifftags.size_of(first), channels - len(alpha_of(pages)), dtype


def read(stream: BinaryIO, picture: int | None = None) -> Stored:
    """Read the stored pixel values of the picture with index `picture`, or of the only picture if `picture` is None.

    Raises
    ------
    ImageError
        The stream is not a TIFF, is damaged, incomplete or not supported. Or `picture` is None, and the stream has
        several pictures.
    """
    with opened(stream) as (file, offsets):
        pages = page_planes(file, offsets, picture)
        planes = [numbers_of(page) for page in pages]
        return meaning_of(pages)._replace(numbers=planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2))


def meaning_of(pages: list[tifffile.TiffPage]) -> Stored:
    """Return a `Stored` that says how to interpret the pixel values of `pages`; the field `numbers` is empty."""
    first = pages[0]
    white = first.bitspersample if tifftags.white_is_zero(first) else 0
    return Stored(
        np.empty((0, 0, 1)),
        alpha_of(pages),
        palette_of(first),
        white,
        tifftags.metadata_of(first).orientation,
        first.software,
    )


def is_exact(stream: BinaryIO, picture: int | None = None) -> bool:
    """Return whether a picture is stored without lossy (JPEG) compression; raise the same errors as `read`."""
    with opened(stream) as (file, offsets):
        return all(page.compression != JPEG for page in page_planes(file, offsets, picture, whole=False))


def describe(stream: BinaryIO, picture: int | None = None) -> Metadata:
    """Without decoding pixels, decide how to treat the metadata of a picture; raise the same errors as `read`."""
    with opened(stream) as (file, offsets):
        page = page_planes(file, offsets, picture, whole=False)[0]
        stream.seek(0)
        return tifftags.metadata_of(page, validity=tifftags.has_validity_mask(stream))


def _pictures(file: tifffile.TiffFile, offsets: list[int]) -> list[list[int]]:
    """Return, for each picture, the offsets of its TIFF directories; each directory holds one plane of the picture."""
    first = _page(file, offsets[0])
    axes, sizes = tifftags.order(first.description, first.samplesperpixel, len(offsets))
    if math.prod(sizes) != len(offsets):
        raise ImageError(
            f"the metadata declare {' x '.join(map(str, sizes))} planes ({axes}), but the file has "
            f"{len(offsets)} planes"
        )
    if "C" not in axes:
        return [[offset] for offset in offsets]
    planes = np.moveaxis(np.arange(len(offsets)).reshape(sizes), axes.index("C"), -1)
    return [[offsets[plane] for plane in row] for row in planes.reshape(-1, planes.shape[-1])]


def page_planes(
    file: tifffile.TiffFile, offsets: list[int], picture: int | None, whole: bool = True
) -> list[tifffile.TiffPage]:
    """Validate and return the TIFF directories of a picture, one for each plane, in channel order.

    Parameters
    ----------
    whole : whether to refuse pictures that are too large to decode at once. Use False to read windows.

    Raises
    ------
    ImageError
        As in `read`.
    """
    pictures = _pictures(file, offsets)
    if picture is None and len(pictures) > 1:
        raise ImageError(
            f"the file is a stack of {len(pictures)} pages instead of one image; save each page as a separate file. "
            "(segline import also reads stacks, if each label stack has as many pages as its image stack.)"
        )
    if not 0 <= (picture or 0) < len(pictures):
        raise ImageError(f"the file has no page {picture}; the {len(pictures)} pages are numbered from 0")
    pages = [_page(file, offset) for offset in pictures[picture or 0]]
    for page in pages:
        _doubt(page, file, len(pages), whole)
        if page.shape != pages[0].shape or page.dtype != pages[0].dtype:
            raise ImageError(f"the channels differ in size or type: {pages[0].shape} and {page.shape}")
        if (
            page.photometric != pages[0].photometric
            or tifftags.metadata_of(page).orientation != tifftags.metadata_of(pages[0]).orientation
        ):
            raise ImageError("the channels differ in photometric interpretation or orientation")
    return pages


def _page(file: tifffile.TiffFile, offset: int) -> tifffile.TiffPage:
    file.filehandle.seek(offset)
    return tifffile.TiffPage(file, 0)


def _doubt(page: tifffile.TiffPage, file: tifffile.TiffFile, planes: int, whole: bool) -> None:
    """Refuse a page that is not supported, lacks strips or tiles, or declares more pixels than the file can hold."""
    if page.compression not in RATIOS or page.predictor not in PREDICTORS or page.jpegheader is not None:
        kind = f"compression {_name(page.compression)} with predictor {_name(page.predictor)}"
        raise ImageError(f"this kind of TIFF ({kind}) is not supported; save the file with deflate or LZW compression")
    if page.photometric not in PHOTOMETRICS:
        raise ImageError(f"the colours are {_name(page.photometric)}; convert the image to grey or RGB")
    if page.photometric == YCBCR and page.compression != JPEG:
        raise ImageError("the colours are YCbCr without JPEG compression; convert the image to RGB")
    if page.dtype is None or page.dtype.kind not in "buif":
        raise ImageError(
            f"values of {page.bitspersample} bits and type {_name(page.sampleformat)} are not supported; "
            "convert them to 8 or 16 bits, or to float"
        )
    parts, rows, columns = _parts(page)
    stored = _doubt_parts(page, file.filehandle.size, parts)
    planar = page.planarconfig == PLANAR
    lines = parts * rows if page.is_tiled else page.imagelength * (page.samplesperpixel if planar else 1)
    numbers = columns * (1 if planar else page.samplesperpixel)
    decoded = planes * lines * numbers * (3 if page.photometric == PALETTE else _bytes(page.dtype))
    raw = lines * -(-numbers * page.bitspersample // 8)
    headers.doubt(page.imagelength, page.imagewidth, raw, decoded if whole else 0, RATIOS[page.compression] * stored)
    if page.compression == JPEG:
        _doubt_jpegs(page, file, rows, columns)


def _parts(page: tifffile.TiffPage) -> tuple[int, int, int]:
    """Return how many strips or tiles a page must have, and the height and width, px, of one strip or tile."""
    height, width, depth = page.imagelength, page.imagewidth, page.imagedepth
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    sizes = (height, width, rows, columns, page.samplesperpixel)
    if not all(isinstance(size, int) and size > 0 for size in sizes) or (depth, page.tiledepth or 1) != (1, 1):
        raise ImageError(
            f"the file declares {width} x {height} x {depth} px (width x height x depth), stored in strips or tiles of "
            f"{columns} x {rows} px; the depth must be 1, and all sizes and the number of channels must be above 0; "
            "save the image as a 2D TIFF"
        )
    planes = page.samplesperpixel if page.planarconfig == PLANAR else 1
    return -(-height // rows) * -(-width // columns) * planes, rows, columns


def _doubt_parts(page: tifffile.TiffPage, size: int, parts: int) -> int:
    """Return the total size of all strips or tiles; refuse a page if any of them ends beyond `size`, the file size."""
    offsets, lengths = page.dataoffsets, page.databytecounts
    if len(lengths) != parts or len(offsets) != parts:
        raise ImageError(f"the file is damaged: it lists {len(offsets)} of {parts} strips or tiles")
    missing = sum(not offset or not length for offset, length in zip(offsets, lengths, strict=True))
    if missing:
        raise ImageError(f"{missing} of {parts} strips or tiles are missing; save the file again, not as a sparse file")
    if any(min(part) < 0 or sum(part) > size for part in zip(offsets, lengths, strict=True)) or sum(lengths) > size:
        raise ImageError(f"the file is truncated: strips or tiles lie beyond the end of the file (byte {size})")
    return sum(lengths)


def _doubt_jpegs(page: tifffile.TiffPage, file: tifffile.TiffFile, rows: int, columns: int) -> None:
    """Refuse a page if a JPEG strip or tile is truncated, or has more rows or columns than the page declares."""
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.filehandle.seek(offset)
        part = headers.jpeg(file.filehandle.read(length))
        if part.height > rows or part.width > columns:
            raise ImageError(
                f"the file is damaged: a JPEG strip or tile has {part.width} x {part.height} px, but the file declares "
                f"{columns} x {rows} px"
            )


def _bytes(dtype: np.dtype[Any]) -> int:
    """Return the size of one pixel value in bytes, stored or decoded, whichever is larger."""
    return dtype.itemsize if dtype.name in ("bool", "uint8", "uint16") else max(4, dtype.itemsize)


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))


def numbers_of(page: tifffile.TiffPage) -> Pixels:
    """Decode the stored pixel values (H, W, C) of a page; the page must have been validated."""
    numbers = page.asarray(squeeze=False, maxworkers=1)  # shape (planes, 1, H, W, channels per plane)
    if page.photometric == PALETTE:
        numbers = numbers.astype(np.uint8 if numbers.dtype.kind == "b" else numbers.dtype, copy=False)
    return np.moveaxis(numbers[:, 0], 0, -2).reshape(page.imagelength, page.imagewidth, page.samplesperpixel)


def alpha_of(pages: list[tifffile.TiffPage]) -> tuple[int, ...]:
    """Return the indices of the alpha channels of a picture; empty if each channel is a separate page."""
    if len(pages) > 1:
        return ()
    extra, samples = pages[0].extrasamples, pages[0].samplesperpixel
    return tuple(samples - len(extra) + place for place, kind in enumerate(extra) if kind in ALPHAS)


def palette_of(page: tifffile.TiffPage) -> npt.NDArray[np.uint8] | None:
    """Return the palette colours (N, 3) of a page, or None if the page has no palette."""
    if page.photometric != PALETTE:
        return None
    colours = np.asarray(page.colormap, np.uint16).T
    if colours.shape != (2**page.bitspersample, 3) or page.samplesperpixel != 1:
        raise ImageError(f"the palette has {len(colours)} colours instead of {2**page.bitspersample}")
    # Accept palettes with 8 bits per value, which some programs write although the TIFF standard requires 16 bits.
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
