"""Open an image of any size once, and read any rows and columns of the image.

A TIFF is read in strips or tiles, and OME-Zarr in chunks. Every other image, and a TIFF whose strips or tiles are
too large, is decoded as a whole at the first read.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import tifffile

from segline.data import omezarr
from segline.data.georeference import Tag, geotiff, tags, tags_of
from segline.data.imagefiles import form, named
from segline.data.omezarr import Chunks
from segline.files import FileError, md5
from segline.model import headers, metadata, tiff, tifftags
from segline.model.images import Raw, decode, decode_page, header, pixels_of

SEGMENT = 2**27  # bytes; a TIFF with a larger compressed strip or tile is decoded as a whole
KEPT = 2**26  # bytes of decoded strips and tiles that are kept for the next window


class Readable(Protocol):
    """Image from which any range of rows and columns can be read."""

    @property
    def height(self) -> int:
        """Height of the image, px."""

    @property
    def width(self) -> int:
        """Width of the image, px."""

    @property
    def read(self) -> Callable[[slice, slice], Raw]:
        """Function that reads the pixels (h, w, C) in given rows and columns; it raises FileError for damaged data."""


class OpenImage(Readable, Protocol):
    """Opened image file or OME-Zarr image. Its pixels equal those that `imagefiles.read_image` returns."""

    @property
    def frame(self) -> omezarr.Frame | None:
        """Metadata of an OME-Zarr image; None for an image file."""

    @property
    def georeference(self) -> list[Tag]:
        """GeoTIFF tags; an empty list if the image has none."""

    def encoded(self) -> bytes:
        """Return the whole image, encoded as an image file."""

    def md5(self) -> str:
        """Return the MD5 of the content, 32 hexadecimal digits."""


@contextmanager
def open_image(path: Path) -> Iterator[OpenImage]:
    """Open an image file or an OME-Zarr folder without decoding any pixels.

    Raises
    ------
    FileError
        The file is missing, is not an image, or is a stack of several pages.
    """
    if omezarr.is_zarr(path):
        yield ZarrImage(path)
        return
    try:
        stream = path.open("rb")  # `files.opened` would turn every OSError of the caller into a FileError
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    with stream:
        with named(path):
            image = TiffImage(path, stream) if form(stream) == "TIFF" else EncodedImage(path, stream)
        yield image


class EncodedImage:
    """Image file that is decoded as a whole at the first read."""

    frame = None

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        """Read the header; raise ImageError if the file is not an image."""
        self.path, self._stream = path, stream
        self.height, self.width = self._size()

    def _size(self) -> tuple[int, int]:
        return header(self._stream)[:2]

    @cached_property
    def georeference(self) -> list[Tag]:
        """GeoTIFF tags of the file; JPEG 2000 files can have such tags, too."""
        with named(self.path):
            return tags(self.encoded())

    def read(self, rows: slice, columns: slice) -> Raw:
        """Read the pixels (h, w, C) in `rows` and `columns`; raise FileError if the file is damaged."""
        return self._pixels[rows, columns]

    @cached_property
    def _pixels(self) -> Raw:
        with named(self.path):
            return self._decode()

    def _decode(self) -> Raw:
        return decode(self.encoded())

    def encoded(self) -> bytes:
        """Return the bytes of the file."""
        self._stream.seek(0)
        return self._stream.read()

    def md5(self) -> str:
        """Return the MD5 of the file."""
        return md5(self.path)


class ZarrImage:
    """OME-Zarr image that is read chunk by chunk."""

    def __init__(self, path: Path) -> None:
        """Read the metadata; raise FileError as `omezarr.read` and `Chunks` do."""
        self.path, self.frame = path, omezarr.read(path)
        self._chunks = Chunks(self.frame)
        self.height, self.width = self._chunks.height, self._chunks.width
        self.georeference: list[Tag] = []

    def read(self, rows: slice, columns: slice) -> Raw:
        """Read the pixels (h, w, C) in `rows` and `columns`; raise FileError if a chunk is damaged."""
        return self._chunks.read(rows, columns)

    def encoded(self) -> bytes:
        """Encode all pixels as a TIFF; raise ImageError if the image is too large for one TIFF."""
        line = self.read(slice(0, 1), slice(0, self.width))
        size = line.nbytes * self.height
        headers.doubt(self.height, self.width, size, size, size)
        raw = self.read(slice(0, self.height), slice(0, self.width))
        return geotiff(raw[..., 0] if raw.shape[2] == 1 else np.moveaxis(raw, -1, 0), [])

    def md5(self) -> str:
        """Return a single MD5 that covers the metadata, and the names and contents of all files of level 0."""
        return omezarr.md5(self.path)


class TiffImage(EncodedImage):
    """TIFF file whose strips or tiles are decoded when needed; the latest decoded parts are kept in memory."""

    def _size(self) -> tuple[int, int]:
        """Read the metadata that later calls to `read` need; return the height and width of the image."""
        with tiff.opened(self._stream) as (file, offsets):
            self._pages = pages = tiff.page_planes(file, offsets, None, whole=False)
            self.georeference = tags_of(file)
            self._by_segments = all(map(_by_segments, pages))
            if self._by_segments:
                self._order = file.byteorder
                self._meaning = tiff.meaning_of(pages)
                self._decoders = [page.decode for page in pages]
                self._tables = [
                    {"jpegtables": page.jpegtables} if page.compression == tiff.JPEG else {} for page in pages
                ]
                self._kept: OrderedDict[tuple[int, int], Any] = OrderedDict()
            return tifftags.size_of(pages[0])

    def read(self, rows: slice, columns: slice) -> Raw:
        """Read the pixels (h, w, C) in `rows` and `columns`; raise FileError if a strip or tile is damaged."""
        if not self._by_segments:
            return super().read(rows, columns)
        page, orientation = self._pages[0], self._meaning.orientation
        window = metadata.stored_window(rows, columns, page.imagelength, page.imagewidth, orientation)
        with named(self.path):
            with headers.reading("TIFF"):
                planes = [self._plane(number, *window) for number in range(len(self._pages))]
                numbers = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
            return pixels_of(self._meaning._replace(numbers=numbers))

    def _decode(self) -> Raw:
        self._stream.seek(0)
        return decode_page(self._stream)  # reads only the needed bytes of the file

    def _plane(self, number: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Read the stored values (h, w, C) of one TIFF page in `rows` and `columns`."""
        page = self._pages[number]
        if _contiguous(page):
            return self._mapped(page, rows, columns)
        assert page.dtype is not None
        plane = np.empty((rows.stop - rows.start, columns.stop - columns.start, page.samplesperpixel), page.dtype)
        for index in _overlapping(page, rows, columns):
            segment, (sample, _, top, left, _), _ = self._decoded(number, index)
            segment = segment[0, : page.imagelength - top, : page.imagewidth - left]
            window_rows, segment_rows = _common(rows, top, segment.shape[0])
            window_columns, segment_columns = _common(columns, left, segment.shape[1])
            channels = slice(sample, sample + segment.shape[2])
            plane[window_rows, window_columns, channels] = segment[segment_rows, segment_columns]
        return plane

    def _mapped(self, page: tifffile.TiffPage, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Read the stored values of a page that can be memory-mapped.

        Each call maps the file again, because what was read stays in memory until the map is closed.
        """
        assert page.dtype is not None
        planar = page.planarconfig == tiff.PLANAR
        size = (page.imagelength, page.imagewidth)
        shape = (page.samplesperpixel, *size) if planar else (*size, page.samplesperpixel)
        dtype = page.dtype.newbyteorder(self._order)
        mapped: npt.NDArray[Any] = np.memmap(self._stream, dtype, "r", page.dataoffsets[0], shape)
        part = np.moveaxis(mapped[:, rows, columns], 0, -1) if planar else mapped[rows, columns]
        return np.array(part, page.dtype)

    def _decoded(self, number: int, index: int) -> Any:
        """Decode a strip or tile, or take it from memory; return its pixels (1, h, w, C), position and shape."""
        if (number, index) not in self._kept:
            page = self._pages[number]
            self._stream.seek(page.dataoffsets[index])
            data = self._stream.read(page.databytecounts[index])
            self._kept[number, index] = self._decoders[number](data, index, **self._tables[number])
        self._kept.move_to_end((number, index))
        while len(self._kept) > 1 and sum(segment.nbytes for segment, _, _ in self._kept.values()) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[number, index]


def _by_segments(page: tifffile.TiffPage) -> bool:
    """Return whether a TIFF page can be read in parts: the page can be memory-mapped, or has small strips or tiles."""
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    assert page.dtype is not None
    return _contiguous(page) or rows * columns * page.samplesperpixel * page.dtype.itemsize <= SEGMENT


def _contiguous(page: tifffile.TiffPage) -> bool:
    """Return whether a TIFF page can be memory-mapped: its values are uncompressed and contiguous in the file."""
    return bool(page.is_contiguous) and page.bitspersample in (8, 16, 32, 64) and not page.is_tiled


def _overlapping(page: tifffile.TiffPage, rows: slice, columns: slice) -> Iterator[int]:
    """Yield the indices of the strips or tiles that overlap the window of `rows` and `columns`."""
    tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    down, across = -(-page.imagelength // tall), -(-page.imagewidth // wide)
    planes = page.samplesperpixel if page.planarconfig == tiff.PLANAR else 1
    for plane in range(planes):
        for row in range(rows.start // tall, -(-rows.stop // tall)):
            for column in range(columns.start // wide, -(-columns.stop // wide)):
                yield (plane * down + row) * across + column


def _common(window: slice, start: int, length: int) -> tuple[slice, slice]:
    """Return the overlap of a window and a strip or tile along one axis, as two slices.

    The first slice counts from the start of the window, the second slice from the start of the strip or tile.
    """
    first, last = max(window.start, start), min(window.stop, start + length)
    return slice(first - window.start, last - window.start), slice(first - start, last - start)
