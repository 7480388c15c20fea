"""Read image and label files of every supported format, with limits on their size; write PNG."""

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
JPEG_2000 = (".jp2", ".j2k")  # lossy or lossless
READABLE = (".png", *LOSSY, ".bmp", ".gif", *JPEG_2000, ".tif", ".tiff")  # suffixes of image files
MAGIC = 12  # number of bytes at the start of a file that identify its format


def read_image(path: Path) -> Raw:
    """Read the pixels (H, W, C) of an image file, turned upright, as uint8, uint16 or float32.

    Raises
    ------
    FileError
        The file is missing, is not an image, or is a stack of several pages.
    """
    with named(path), opened(path) as stream:
        # From a TIFF, only the needed bytes are read. All other formats are decoded from the bytes of the whole file.
        return decode_page(stream) if form(stream) == "TIFF" else decode(stream.read())


def read_page(path: Path, page: int) -> Raw:
    """Read the pixels (H, W, C) of page number `page` (from 0) of a TIFF; raise FileError as `read_image` does."""
    with named(path), opened(path) as stream:
        return decode_page(stream, page)


def pages(path: Path) -> int:
    """Count the images in a file; in a TIFF stack, each slice or time point is one image with all its channels.

    Raises
    ------
    FileError
        The file is missing, or its metadata contradict its pages.
    """
    with named(path), opened(path) as stream:
        if form(stream) != "TIFF":
            return 1
        from segline.model import tiff

        return tiff.count(stream)


def image_size(path: Path) -> Header:
    """Read height, width, number of channels and pixel type of an image from its header, without decoding the pixels.

    The function raises FileError as `read_image` does.
    """
    with named(path), opened(path) as stream:
        return header(stream)


def describe(path: Path, page: int | None = None) -> Metadata:
    """Read and check the metadata of an image file, without decoding the pixels.

    Raises
    ------
    FileError
        The file is missing, is not an image, or its metadata are refused.
    """
    with named(path), opened(path) as stream:
        return describe_image(stream, page)


def turned(path: Path) -> str:
    """Return a hint that the orientation tag of an image swaps height and width; an empty str if the tag does not."""
    try:
        orientation = describe(path, 0).orientation
    except FileError:
        return ""
    if orientation < metadata.FIRST_EXCHANGED:
        return ""
    return f"; {path.name} is turned upright, because its orientation is {orientation}; {metadata.TO_STRIP}"


def has_grey_palettes(path: Path) -> bool:
    """Return whether a file is a BMP or GIF; these formats store every grey image with a palette.

    The order of colours in such a palette is arbitrary.

    The function raises FileError as `read_image` does.
    """
    with named(path), opened(path) as stream:
        return form(stream) in ("BMP", "GIF")


def is_exact(path: Path) -> bool:
    """Return whether an image file is lossless; raise FileError as `read_image` does."""
    with named(path), opened(path) as stream:
        return labelfile.is_exact(stream)


def read_labels(path: Path, page: int | None = None) -> Labels:
    """Read the labels (H, W) of an image file, turned upright, as integers; a palette image gives palette indices.

    Parameters
    ----------
    page : page of a TIFF stack, counted from 0.

    Raises
    ------
    FileError
        The file is missing, damaged, in colour, lossy, or has values that are not ids.
    """
    with named(path), opened(path) as stream:
        if not labelfile.is_exact(stream, page):
            raise ImageError("JPEG changes values, so the ids are unreliable; save the labels as PNG or TIFF")
        labels: Labels = labelfile.decode(stream, page).numbers
    if labels.ndim > 2:
        raise FileError(
            f"{path}: the label image is in colour (shape {labels.shape}), but segline needs one number per pixel; "
            "turn each colour into its class id, or save the labels as a greyscale or palette image"
        )
    if labels.dtype.kind == "f":
        labels = _integers(labels, path)
    if labels.size and (labels.min() < 0 or labels.max() > LARGEST_ID):
        raise FileError(
            f"{path}: the ids range from {labels.min()} to {labels.max()}; they must lie between 0 and {LARGEST_ID}"
        )
    return labels


def read_mask(path: Path, page: int | None = None) -> labelfile.Written:
    """Read a mask: values (H, W) or colours (H, W, 3), and a palette (N, 3) if the values are palette indices.

    `labelfile.decode` gives the values. An ImageError that it raises becomes a FileError.
    """
    with named(path), opened(path) as stream:
        return labelfile.decode(stream, page)


def _integers(labels: Labels, path: Path) -> Labels:
    wrong = labels[~np.isfinite(labels) | (labels != np.rint(labels))]
    if wrong.size:
        raise FileError(
            f"{path}: {wrong.size} pixels have values that are not integers (for example {wrong[0]}), but labels "
            "are ids; save the labels as integers. If the values are foreground probabilities, import them with "
            "--threshold 0.5"
        )
    # Clip ids before the conversion to int64, because larger ids would overflow.
    # Ids above LARGEST_ID become LARGEST_ID + 1, which the caller still refuses.
    return np.clip(labels, -1, LARGEST_ID + 1.0).astype(np.int64)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn an ImageError raised in the with block into a FileError that names the file."""
    try:
        yield
    except ImageError as error:
        raise FileError(f"{path}: {error}") from error


def form(stream: BinaryIO) -> str:
    """Recognise the image format from the first bytes of the stream; rewind the stream and return the format name."""
    form = form_of(stream.read(MAGIC))
    stream.seek(0)
    return form


def write_png(path: Path, pixels: npt.NDArray[Any]) -> None:
    """Write labels (H, W) or a picture (H, W, 3), uint8 or uint16, as PNG."""
    write_bytes(path, encode_png(pixels))
