"""Images of any size opened to be read by rows and columns: TIFF by its tiles, OME-Zarr by its chunks, or whole."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile

from segline.data import omezarr
from segline.data.georeference import Tag, tags_of
from segline.data.imagefiles import form, image_size, named, read_image
from segline.data.omezarr import Chunks
from segline.files import opened
from segline.model import headers, metadata, tiff, tifftags
from segline.model.images import Raw, pixels_of

SEGMENT = 2**27  # bytes; a compressed strip or tile that is larger has the image read as a whole
KEPT = 2**26  # bytes of decoded strips and tiles that are kept for the next window


class Windows(NamedTuple):
    """An open image."""

    height: int
    width: int
    read: Callable[[slice, slice], Raw]
    """Pixels (h, w, C) of these rows and columns, as `imagefiles.read_image` has them."""
    georeference: list[Tag]
    frame: omezarr.Frame | None = None
    """Of an OME-Zarr image."""


@contextmanager
def open_windows(path: Path) -> Iterator[Windows]:
    """An image file, of which what is read is read when it is asked for, where the file allows it.

    Raises
    ------
    FileError
        The file is missing, is no image, or is a stack of several pages; `read`, too, where a part is damaged.
    """
    if omezarr.is_zarr(path):
        frame = omezarr.read(path)
        chunks = Chunks(frame)
        yield Windows(chunks.height, chunks.width, chunks.read, [], frame)
        return
    found, georeference = None, []
    with opened(path) as stream, named(path):
        if form(stream) == "TIFF":
            with tiff.opened(stream) as (file, offsets):
                pages = tiff.page_planes(file, offsets, None, whole=False)
                georeference = tags_of(file)
                found = _Tiff(path, pages) if all(map(_by_segments, pages)) else None
    if found is None:
        raw = read_image(path)
        yield Windows(raw.shape[0], raw.shape[1], lambda rows, columns: raw[rows, columns], georeference)
        return
    with found.stream:
        yield Windows(*found.size, found.read, georeference)


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of an image of any size, px; nothing is decoded. FileError as in `open_windows`."""
    if omezarr.is_zarr(path):
        chunks = Chunks(omezarr.read(path))
        return chunks.height, chunks.width
    with opened(path) as stream, named(path):
        if form(stream) != "TIFF":
            return image_size(path)[:2]
        with tiff.opened(stream) as (file, offsets):
            return tifftags.size_of(tiff.page_planes(file, offsets, None, whole=False)[0])


def _by_segments(page: tifffile.TiffPage) -> bool:
    """Whether parts can be read alone."""
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    assert page.dtype is not None
    return _contiguous(page) or rows * columns * page.samplesperpixel * page.dtype.itemsize <= SEGMENT


def _contiguous(page: tifffile.TiffPage) -> bool:
    """Whether the numbers lie in the file as in memory."""
    return bool(page.is_contiguous) and page.bitspersample in (8, 16, 32, 64) and not page.is_tiled


class _Tiff:
    """A TIFF picture: its strips or tiles, decoded when they are needed, the latest kept."""

    def __init__(self, path: Path, pages: list[tifffile.TiffPage]) -> None:
        """Takes from `pages` what can be had only while their file is open."""
        self.stream = path.open("rb")
        self._path, self._pages = path, pages
        self._order = pages[0].parent.byteorder
        self._meaning, self.size = tiff.meaning_of(pages), tifftags.size_of(pages[0])
        self._decoders = [page.decode for page in pages]
        self._tables = [{"jpegtables": page.jpegtables} if page.compression == tiff.JPEG else {} for page in pages]
        self._kept: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def read(self, rows: slice, columns: slice) -> Raw:
        """Pixels (h, w, C)."""
        page, orientation = self._pages[0], self._meaning.orientation
        window = metadata.stored_window(rows, columns, page.imagelength, page.imagewidth, orientation)
        with named(self._path), headers.reading("TIFF"):
            planes = [self._plane(number, *window) for number in range(len(self._pages))]
            numbers = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
        with named(self._path):
            return pixels_of(self._meaning._replace(numbers=numbers))

    def _plane(self, number: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Numbers (h, w, C) of one directory."""
        page = self._pages[number]
        if _contiguous(page):
            return self._mapped(page, rows, columns)
        assert page.dtype is not None
        found = np.empty((rows.stop - rows.start, columns.stop - columns.start, page.samplesperpixel), page.dtype)
        for index in _overlapping(page, rows, columns):
            segment, (sample, _, top, left, _), _ = self._decoded(number, index)
            segment = segment[0, : page.imagelength - top, : page.imagewidth - left]
            target, source = zip(
                *(_common(*each) for each in ((rows, top, segment.shape[0]), (columns, left, segment.shape[1]))),
                strict=True,
            )
            channels = slice(sample, sample + segment.shape[2])
            found[(*target, channels)] = segment[source]
        return found

    def _mapped(self, page: tifffile.TiffPage, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """The same of numbers that lie in the file one after the other. Mapped anew: pages would stay in memory."""
        assert page.dtype is not None
        planar = page.planarconfig == tiff.PLANAR
        size = (page.imagelength, page.imagewidth)
        shape = (page.samplesperpixel, *size) if planar else (*size, page.samplesperpixel)
        dtype = page.dtype.newbyteorder(self._order)
        offset = page.dataoffsets[0]
        mapped: npt.NDArray[Any] = np.memmap(self._path, dtype, "r", offset, shape)
        part = np.moveaxis(mapped[:, rows, columns], 0, -1) if planar else mapped[rows, columns]
        return np.array(part, page.dtype)

    def _decoded(self, number: int, index: int) -> Any:
        """A strip or tile (1, h, w, C), where it lies, and its shape."""
        if (number, index) not in self._kept:
            page = self._pages[number]
            self.stream.seek(page.dataoffsets[index])
            data = self.stream.read(page.databytecounts[index])
            self._kept[number, index] = self._decoders[number](data, index, **self._tables[number])
        self._kept.move_to_end((number, index))
        while len(self._kept) > 1 and sum(segment.nbytes for segment, _, _ in self._kept.values()) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[number, index]


def _overlapping(page: tifffile.TiffPage, rows: slice, columns: slice) -> Iterator[int]:
    """Numbers of the strips or tiles that hold some of a window."""
    tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    down, across = -(-page.imagelength // tall), -(-page.imagewidth // wide)
    planes = page.samplesperpixel if page.planarconfig == tiff.PLANAR else 1
    for plane in range(planes):
        for row in range(rows.start // tall, -(-rows.stop // tall)):
            for column in range(columns.start // wide, -(-columns.stop // wide)):
                yield (plane * down + row) * across + column


def _common(wanted: slice, start: int, length: int) -> tuple[slice, slice]:
    """The pixels that a window and a segment share, as each counts them."""
    first, last = max(wanted.start, start), min(wanted.stop, start + length)
    return slice(first - wanted.start, last - wanted.start), slice(first - start, last - start)
