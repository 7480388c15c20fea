"""Read image and label files: every format, within bounds; write PNG."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from segline.data import labelfile
from segline.files import FileError, opened, write_bytes
from segline.model import metadata
from segline.model.headers import Header
from segline.model.images import ImageError, Raw, decode, decode_page, encode_png, form_of, header
from segline.model.images import describe as describe_image
from segline.model.metadata import Metadata

Labels = npt.NDArray[Any]  # (H, W), any integer type
LARGEST_ID = np.iinfo(np.int32).max
LOSSY = (".jpg", ".jpeg")
JPEG_2000 = (".jp2", ".j2k")  # with losses or without
READABLE = (".png", *LOSSY, ".bmp", ".gif", *JPEG_2000, ".tif", ".tiff")  # other files are no images
MAGIC = 12  # bytes by which formats are told apart


def read_image(path: Path) -> Raw:
    """Pixels (H, W, C), uint8, uint16 or float32, of an image file, upright.

    Raises
    ------
    FileError
        The file is missing, is no such image, or is a stack of several pages.
    """
    with named(path), opened(path) as stream:
        # Of a TIFF only what is needed is read.
        return decode_page(stream) if form(stream) == "TIFF" else decode(stream.read())


def read_page(path: Path, page: int) -> Raw:
    """Pixels (H, W, C) of page 0, 1, ... of a TIFF, of which no other is read; FileError as in `read_image`."""
    with named(path), opened(path) as stream:
        return decode_page(stream, page)


def pages(path: Path) -> int:
    """Number of images in a file: in a TIFF the slices and time points of a stack, of which each has all channels.

    Raises
    ------
    FileError
        The file is missing, or what it says of its pages contradicts what it holds.
    """
    with named(path), opened(path) as stream:
        if form(stream) != "TIFF":
            return 1
        from segline.model import tiff

        return tiff.count(stream)


def image_size(path: Path) -> Header:
    """Height, width, channels and type that `read_image` would give; nothing is decoded. FileError as there."""
    with named(path), opened(path) as stream:
        return header(stream)


def describe(path: Path, page: int | None = None) -> Metadata:
    """What is made of what an image file says of itself; nothing is decoded.

    Raises
    ------
    FileError
        The file is missing or is no such image, or something in it is refused.
    """
    with named(path), opened(path) as stream:
        return describe_image(stream, page)


def turned(path: Path) -> str:
    """A hint for messages about sizes, where an orientation note exchanges height and width; else empty."""
    try:
        orientation = describe(path, 0).orientation
    except FileError:
        return ""
    if orientation < metadata.FIRST_EXCHANGED:
        return ""
    return f"; {path.name} is turned upright by its orientation note {orientation}: {metadata.TO_STRIP}"


def has_grey_palettes(path: Path) -> bool:
    """Whether the format of an image file has no grey but by palettes, whose order may be any; FileError as above."""
    with named(path), opened(path) as stream:
        return form(stream) in ("BMP", "GIF")


def is_exact(path: Path) -> bool:
    """Whether the numbers in an image file are those that were written; FileError as in `read_image`."""
    with named(path), opened(path) as stream:
        return labelfile.is_exact(stream)


def read_labels(path: Path, page: int | None = None) -> Labels:
    """Labels (H, W), an integer type, of an image file, upright; of a palette its indices.

    Parameters
    ----------
    page : which page of a TIFF stack, from 0.

    Raises
    ------
    FileError
        The file is missing, damaged, in colour, compressed with losses, or holds numbers that are no ids.
    """
    with named(path), opened(path) as stream:
        if not labelfile.is_exact(stream, page):
            raise ImageError("JPEG changes values, so ids cannot be trusted; save the labels as PNG or TIFF")
        labels: Labels = labelfile.decode(stream, page).numbers
    if labels.ndim > 2:
        raise FileError(
            f"{path}: a label image in colour, of shape {labels.shape}; segline needs one number a pixel: "
            "turn each colour into its class id, or save it as grey or with a palette"
        )
    if labels.dtype.kind == "f":
        labels = _whole(labels, path)
    if labels.size and (labels.min() < 0 or labels.max() > LARGEST_ID):
        raise FileError(f"{path}: ids from {labels.min()} to {labels.max()}; ids go from 0 to {LARGEST_ID}")
    return labels


def read_mask(path: Path, page: int | None = None) -> labelfile.Written:
    """What is written in a mask: numbers (H, W) or colours (H, W, 3), and the palette (N, 3) of indices.

    See `labelfile.decode`; FileError where that refuses.
    """
    with named(path), opened(path) as stream:
        return labelfile.decode(stream, page)


def _whole(labels: Labels, path: Path) -> Labels:
    wrong = labels[~np.isfinite(labels) | (labels != np.rint(labels))]
    if wrong.size:
        raise FileError(
            f"{path}: {wrong.size} pixels hold no whole number, such as {wrong[0]}; labels are ids; "
            "save them as such, or, where they say how sure foreground is, import them with --threshold 0.5"
        )
    # An id beyond int64 would wrap; clipped it is still refused as too large.
    return np.clip(labels, -1, LARGEST_ID + 1.0).astype(np.int64)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """ImageErrors within become FileErrors that name the file."""
    try:
        yield
    except ImageError as error:
        raise FileError(f"{path}: {error}") from error


def form(stream: BinaryIO) -> str:
    """The format, as `form_of` names it; the stream is left at its begin."""
    form = form_of(stream.read(MAGIC))
    stream.seek(0)
    return form


def write_png(path: Path, pixels: npt.NDArray[Any]) -> None:
    """Write labels (H, W) or a picture (H, W, 3), uint8 or uint16."""
    write_bytes(path, encode_png(pixels))
