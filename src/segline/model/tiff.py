"""TIFF files: which directories make which picture, and pixels only after their header has been doubted."""

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

# By compression, the bytes that a byte can stand for at most. Others are refused: their decoders would have to be
# trusted with sizes of their own (JPEG 2000, WebP, JPEG XL, LERC) or are hardly used.
RATIOS = {1: 1, 5: 2560, 7: headers.JPEG, 8: headers.DEFLATE, 32773: 64, 32946: headers.DEFLATE, 50000: 32768}
JPEG, PALETTE, PLANAR, YCBCR = 7, 3, 2, 6
PHOTOMETRICS = (tifftags.WHITE_IS_ZERO, 1, 2, PALETTE, YCBCR)  # 1: grey whose 0 is black, 2: RGB
PREDICTORS = (1, 2, 3)  # none, horizontal, floating point
ALPHAS = (1, 2)  # of ExtraSamples
# tifffile would follow what a file says of itself in one of forty dialects, and load whatever that calls for.
PLAIN: dict[str, Any] = {f"is_{flag}": False for flag in tifffile.TIFF.FILE_FLAGS}

Pixels = npt.NDArray[Any]

# What it tells of damaged files comes as ImageError.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class Stored(NamedTuple):
    """Numbers (H, W, C) as they are stored, and what they mean."""

    numbers: Pixels
    alpha: tuple[int, ...]
    """The channels that are alpha."""
    palette: npt.NDArray[np.uint8] | None
    """The colours (N, 3) that the numbers stand for."""
    white_is_zero: int = 0
    """Bits of the numbers where 0 is white, else 0."""
    orientation: int = 1
    """1 to 8, as TIFF numbers them."""
    writer: str = ""
    """The program that wrote the file."""

    @property
    def black_is_zero(self) -> Pixels:
        """The numbers, inverted where 0 is white; ImageError where that means nothing."""
        bits = self.white_is_zero
        return metadata.inverted(self.numbers, bits, self.alpha) if bits else self.numbers


@contextmanager
def opened(stream: BinaryIO) -> Iterator[tuple[tifffile.TiffFile, list[int]]]:
    """The file, not to be walked through by itself, and the offsets of its directories of full images."""
    with headers.reading("TIFF"):
        offsets = tifftags.full_images(stream)
        stream.seek(0)
        with tifffile.TiffFile(stream, **PLAIN) as file:
            yield file, offsets


def count(stream: BinaryIO) -> int:
    """Number of pictures; channels, smaller copies and masks do not count.

    Raises
    ------
    ImageError
        It is no TIFF, or what it says of its planes contradicts what it holds.
    """
    with opened(stream) as (file, offsets):
        return len(_pictures(file, offsets))


def header(stream: BinaryIO, picture: int | None = None) -> tuple[int, int, int, np.dtype[Any]]:
    """Height and width upright, channels without alpha, and type as stored; errors as in `read`."""
    with opened(stream) as (file, offsets):
        pages = page_planes(file, offsets, picture)
        first = pages[0]
        channels = 3 if first.photometric == PALETTE else sum(page.samplesperpixel for page in pages)
        dtype = np.dtype(np.uint8) if first.photometric == PALETTE else first.dtype
        assert dtype is not None
        return *tifftags.size_of(first), channels - len(alpha_of(pages)), dtype


def read(stream: BinaryIO, picture: int | None = None) -> Stored:
    """The picture of that number; None: the only one.

    Raises
    ------
    ImageError
        It is no TIFF, damaged, incomplete, a stack where one picture is wanted, or of a kind that is not supported.
    """
    with opened(stream) as (file, offsets):
        pages = page_planes(file, offsets, picture)
        planes = [numbers_of(page) for page in pages]
        return meaning_of(pages)._replace(numbers=planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2))


def meaning_of(pages: list[tifffile.TiffPage]) -> Stored:
    """What the numbers of a picture mean, without these; `pages` are its planes."""
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
    """Whether a picture is not compressed by JPEG, which changes numbers; errors as in `read`."""
    with opened(stream) as (file, offsets):
        return all(page.compression != JPEG for page in page_planes(file, offsets, picture, whole=False))


def describe(stream: BinaryIO, picture: int | None = None) -> Metadata:
    """What is made of what a picture says of itself; nothing is decoded. Errors as in `read`."""
    with opened(stream) as (file, offsets):
        page = page_planes(file, offsets, picture, whole=False)[0]
        stream.seek(0)
        return tifftags.metadata_of(page, validity=tifftags.has_validity_mask(stream))


def _pictures(file: tifffile.TiffFile, offsets: list[int]) -> list[list[int]]:
    """For each picture, the offsets of its directories, one a plane."""
    first = _page(file, offsets[0])
    axes, sizes = tifftags.order(first.description, first.samplesperpixel, len(offsets))
    if math.prod(sizes) != len(offsets):
        raise ImageError(f"it tells of {' x '.join(map(str, sizes))} planes ({axes}), but holds {len(offsets)}")
    if "C" not in axes:
        return [[offset] for offset in offsets]
    planes = np.moveaxis(np.arange(len(offsets)).reshape(sizes), axes.index("C"), -1)
    return [[offsets[plane] for plane in row] for row in planes.reshape(-1, planes.shape[-1])]


def page_planes(
    file: tifffile.TiffFile, offsets: list[int], picture: int | None, whole: bool = True
) -> list[tifffile.TiffPage]:
    """The directories of a picture, one a plane, in the order of its channels; of any size where not `whole`.

    Raises
    ------
    ImageError
        As in `read`.
    """
    pictures = _pictures(file, offsets)
    if picture is None and len(pictures) > 1:
        raise ImageError(
            f"a stack of {len(pictures)} pages where one image is wanted; save it page by page (segline import reads "
            "stacks of images that have stacks of labels of as many pages)"
        )
    if not 0 <= (picture or 0) < len(pictures):
        raise ImageError(f"it has no page {picture}; there are {len(pictures)}, the first is 0")
    pages = [_page(file, offset) for offset in pictures[picture or 0]]
    for page in pages:
        _doubt(page, file, len(pages), whole)
        if page.shape != pages[0].shape or page.dtype != pages[0].dtype:
            raise ImageError(f"channels of different size or type: {pages[0].shape} and {page.shape}")
        if (
            page.photometric != pages[0].photometric
            or tifftags.metadata_of(page).orientation != tifftags.metadata_of(pages[0]).orientation
        ):
            raise ImageError("channels of different photometric interpretation or orientation")
    return pages


def _page(file: tifffile.TiffFile, offset: int) -> tifffile.TiffPage:
    file.filehandle.seek(offset)
    return tifffile.TiffPage(file, 0)


def _doubt(page: tifffile.TiffPage, file: tifffile.TiffFile, planes: int, whole: bool) -> None:
    """Refuse a page of a kind that is not supported, with strips or tiles missing, or too large for its bytes."""
    if page.compression not in RATIOS or page.predictor not in PREDICTORS or page.jpegheader is not None:
        kind = f"compression {_name(page.compression)}, predictor {_name(page.predictor)}"
        raise ImageError(f"{kind} is not supported; write it with deflate or LZW")
    if page.photometric not in PHOTOMETRICS:
        raise ImageError(f"its colours are {_name(page.photometric)}; convert it to grey or RGB")
    if page.photometric == YCBCR and page.compression != JPEG:
        raise ImageError("its colours are YCbCr without JPEG compression; convert it to RGB")
    if page.dtype is None or page.dtype.kind not in "buif":
        raise ImageError(f"numbers of {page.bitspersample} bits, {_name(page.sampleformat)}; convert them")
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
    """How many strips or tiles there must be, and the rows and columns of each."""
    height, width, depth = page.imagelength, page.imagewidth, page.imagedepth
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    sizes = (height, width, rows, columns, page.samplesperpixel)
    if not all(isinstance(each, int) and each > 0 for each in sizes) or (depth, page.tiledepth or 1) != (1, 1):
        raise ImageError(f"an image of {width} x {height} x {depth} px in parts of {columns} x {rows} px")
    planes = page.samplesperpixel if page.planarconfig == PLANAR else 1
    return -(-height // rows) * -(-width // columns) * planes, rows, columns


def _doubt_parts(page: tifffile.TiffPage, size: int, parts: int) -> int:
    """Refuse a page whose strips or tiles are not all within the `size` bytes of the file; their bytes."""
    offsets, lengths = page.dataoffsets, page.databytecounts
    if len(lengths) != parts or len(offsets) != parts:
        raise ImageError(f"it is damaged: it lists {len(offsets)} of {parts} strips or tiles")
    missing = sum(not offset or not length for offset, length in zip(offsets, lengths, strict=True))
    if missing:
        raise ImageError(f"{missing} of {parts} strips or tiles are missing; write it in full, not sparse")
    if any(min(part) < 0 or sum(part) > size for part in zip(offsets, lengths, strict=True)) or sum(lengths) > size:
        raise ImageError(f"it is truncated: strips or tiles lie beyond its end at byte {size}")
    return sum(lengths)


def _doubt_jpegs(page: tifffile.TiffPage, file: tifffile.TiffFile, rows: int, columns: int) -> None:
    """Refuse JPEG strips or tiles that are truncated, or larger than the page has room for."""
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.filehandle.seek(offset)
        found = headers.jpeg(file.filehandle.read(length))
        if found.height > rows or found.width > columns:
            raise ImageError(f"a part of {found.width} x {found.height} px, where {columns} x {rows} fit")


def _bytes(dtype: np.dtype[Any]) -> int:
    """Bytes that a number needs at most, as it is stored and as images have it."""
    return dtype.itemsize if dtype.name in ("bool", "uint8", "uint16") else max(4, dtype.itemsize)


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))


def numbers_of(page: tifffile.TiffPage) -> Pixels:
    """Numbers (H, W, C) of a page that has been doubted."""
    numbers = page.asarray(squeeze=False, maxworkers=1)  # (planes, 1, H, W, channels of a plane)
    if page.photometric == PALETTE:
        numbers = numbers.astype(np.uint8 if numbers.dtype.kind == "b" else numbers.dtype, copy=False)
    return np.moveaxis(numbers[:, 0], 0, -2).reshape(page.imagelength, page.imagewidth, page.samplesperpixel)


def alpha_of(pages: list[tifffile.TiffPage]) -> tuple[int, ...]:
    """Which channels are alpha; where channels are pages, none."""
    if len(pages) > 1:
        return ()
    extra, samples = pages[0].extrasamples, pages[0].samplesperpixel
    return tuple(samples - len(extra) + place for place, kind in enumerate(extra) if kind in ALPHAS)


def palette_of(page: tifffile.TiffPage) -> npt.NDArray[np.uint8] | None:
    """Colours (N, 3) of a page that holds their numbers."""
    if page.photometric != PALETTE:
        return None
    colours = np.asarray(page.colormap, np.uint16).T
    if colours.shape != (2**page.bitspersample, 3) or page.samplesperpixel != 1:
        raise ImageError(f"a palette of {len(colours)} colours, where {2**page.bitspersample} belong")
    # 16 bits by the standard; some writers use 8.
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
