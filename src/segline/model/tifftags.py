"""Read TIFF directories (IFDs) and TIFF tags: the order of the planes, and metadata such as the orientation."""

import contextlib
import json
import math
import re
import struct
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile

from . import exif, metadata
from .headers import ImageError
from .metadata import Facts, Metadata

NEW_SUBFILE_TYPE, SUBFILE_TYPE, SHORT = 254, 255, 3
SMALLER_COPY, MASK, OLD_SMALLER_COPY = 0b001, 0b100, 2
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
MOST_TAGS = 4096


class _Form(NamedTuple):
    """Binary formats in a TIFF directory: entry count, entry (tag, type, count, value), offset of next directory."""

    entries: struct.Struct
    entry: struct.Struct
    offset: struct.Struct


def full_images(stream: BinaryIO) -> list[int]:
    """Return the offsets of all TIFF directories with full images; raise ImageError if a TIFF has no full image."""
    offsets = [offset for offset, kind in _kinds(stream).items() if not kind & (SMALLER_COPY | MASK)]
    if not offsets:
        raise ImageError("the file contains no image")
    return offsets


def has_validity_mask(stream: BinaryIO) -> bool:
    """Return whether a TIFF directory contains a mask of valid pixels; raise the same errors as `_kinds`."""
    return any(kind & MASK for kind in _kinds(stream).values())


def _kinds(stream: BinaryIO) -> dict[int, int]:
    """Return a dictionary from the offset of each TIFF directory to its NewSubfileType, in file order.

    tifffile is not used for two reasons. It loops forever if more than a hundred directories form a cycle. And if many
    tags refer to the same data, it loads the data once for each tag.

    Raises
    ------
    ImageError
        The directories form a cycle, or list more bytes than the file has.
    """
    form = _form(stream.read(8))
    size = stream.seek(0, 2)
    at, kind_of = form.offset.size, dict[int, int]()  # the first offset is at byte 4, or at byte 8 in a BigTIFF
    while True:
        (offset,) = _read(stream, at, form.offset)
        if not offset:
            break
        if offset in kind_of:
            raise ImageError("the file is damaged: its TIFF directories (IFDs) form a cycle")
        (tags,) = _read(stream, offset, form.entries)
        if tags > MOST_TAGS:
            raise ImageError(f"the file is damaged: a TIFF directory has {tags} tags, more than {MOST_TAGS}")
        data = stream.read(tags * form.entry.size)
        entries = list(form.entry.iter_unpack(data[: len(data) // form.entry.size * form.entry.size]))
        held = sum(count * SIZES.get(kind, 8) for _, kind, count, _ in entries)
        if len(entries) < tags or held > size + 8 * tags:
            raise ImageError("the file is damaged or truncated: a TIFF directory lists more bytes than the file has")
        kind_of[offset] = _kind(entries, form)
        at = offset + form.entries.size + tags * form.entry.size
    return kind_of


def _kind(entries: list[tuple[int, int, int, int]], form: _Form) -> int:
    """Return the NewSubfileType of a TIFF directory; a value of the older tag SubfileType is converted."""
    for tag, kind, _, stored in entries:
        # A two-byte value is in the first two of the field's four bytes. In big-endian files, shift it to the right.
        value = stored >> 16 if kind == SHORT and form.offset.format.startswith(">") else stored
        if tag == NEW_SUBFILE_TYPE:
            return value
        if tag == SUBFILE_TYPE:
            return SMALLER_COPY if value == OLD_SMALLER_COPY else 0
    return 0


def _form(start: bytes) -> _Form:
    order = {b"II": "<", b"MM": ">"}[start[:2]]
    if start[2:4] in (b"+\0", b"\0+"):
        return _Form(struct.Struct(f"{order}Q"), struct.Struct(f"{order}HHQI4x"), struct.Struct(f"{order}Q"))
    return _Form(struct.Struct(f"{order}H"), struct.Struct(f"{order}HHII"), struct.Struct(f"{order}I"))


def _read(stream: BinaryIO, at: int, form: struct.Struct) -> tuple[int, ...]:
    stream.seek(at)
    data = stream.read(form.size)
    if len(data) < form.size:
        raise ImageError("the file is truncated: a TIFF directory lies beyond the end of the file")
    return form.unpack(data)


def order(description: str, samples: int, planes: int) -> tuple[str, list[int]]:
    """Return the names and sizes of the axes along which the TIFF directories are stored; the slowest axis is first.

    Axis C holds the channels.

    Parameters
    ----------
    description : ImageDescription of the first directory, in the format of OME, ImageJ or tifffile.
    samples : number of channels in each directory. The channel numbers of OME and ImageJ include these channels.
    planes : number of directories.
    """
    if description.startswith("ImageJ="):
        return _imagej(description, samples)
    if planes == 1:
        return "Q", [1]
    if "<OME" in description[:1000]:
        return _ome(description, samples)
    if description.startswith('{"shape":') and '"axes"' in description:
        shaped = json.loads(description)
        leading = [
            (axis, size) for axis, size in zip(shaped["axes"], shaped["shape"], strict=True) if axis not in "YXS"
        ]
        return "".join(axis for axis, _ in leading), [int(size) for _, size in leading]
    return "Q", [planes]


def _imagej(description: str, samples: int) -> tuple[str, list[int]]:
    lines = re.findall(r"^(images|channels|slices|frames)=(\d{1,9})\s*$", description, re.MULTILINE)
    sizes = {name: max(1, int(number)) for name, number in lines}
    channels = sizes.get("channels", 1)
    pictures = sizes.get("slices", 1) * sizes.get("frames", 1)
    if sizes.keys() <= {"images"}:
        pictures = sizes.get("images", 1)
    return "QC", [pictures, 1 if channels == samples else channels]


def _ome(description: str, samples: int) -> tuple[str, list[int]]:
    pixels = re.search(r"<(?:\w+:)?Pixels\s([^>]*)>", description)
    if not pixels:
        raise ImageError("the OME metadata have no Pixels element")
    attributes = _attributes(pixels[1])
    axes = attributes["DimensionOrder"][:1:-1]  # XYCZT, for example, becomes TZC: the slowest axis comes first
    of_axis = {axis: int(attributes[f"Size{axis}"]) for axis in "CZT"}
    of_axis["C"] = max(1, of_axis["C"] // samples)
    sizes = [of_axis[axis] for axis in axes]
    for plane in map(_attributes, re.findall(r"<(?:\w+:)?TiffData\s([^>]*)>", description)):
        first = [int(plane.get(f"First{axis}", 0)) // (samples if axis == "C" else 1) for axis in axes]
        if "IFD" in plane and int(plane["IFD"]) != np.ravel_multi_index(first, sizes):
            raise ImageError("the order of the planes contradicts the OME metadata of the file")
    return axes, sizes


def _attributes(text: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="([^"]*)"', text))


PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # the tag, and the value that means 0 is white
PIXEL_SCALE = 33550
GEOREFERENCE = (PIXEL_SCALE, 33922, 34264, 50844)  # pixel scale, tiepoints, transformation and RPC coefficients
XMP, GDAL_METADATA, GDAL_NODATA = 700, 42112, 42113
SCALING = re.compile(r'<Item [^>]{0,200}role="(scale|offset)"[^>]{0,200}>([^<]{1,40})<')
PHYSICAL = re.compile(r'\bPhysicalSize([XY])(Unit)?="([^"]{1,40})"')


def size_of(page: tifffile.TiffPage) -> tuple[int, int]:
    """Return the height and width, px, that a page has after it is turned upright."""
    return metadata.size(page.imagelength, page.imagewidth, metadata_of(page).orientation)


def metadata_of(page: tifffile.TiffPage, validity: bool = False) -> Metadata:
    """Decide how to treat the metadata of a TIFF page; `metadata.decide` gives the rules.

    Raises
    ------
    ImageError
        The page has both an orientation and a georeference.
    """
    xmp = page.tags.valueof(XMP)
    orientation = page.tags.valueof(exif.ORIENTATION)
    if not isinstance(orientation, int):
        orientation = exif.of_xmp(xmp) if isinstance(xmp, bytes) else None
    nodata = page.tags.valueof(GDAL_NODATA)
    return metadata.decide(
        Facts(
            orientation,
            _density(page),
            white_is_zero=white_is_zero(page),
            georeferenced=any(code in page.tags for code in GEOREFERENCE),
            nodata=nodata if isinstance(nodata, str) and _occurs(page, nodata) else "",
            scaled=_scaling(page.tags.valueof(GDAL_METADATA)),
            validity=validity,
        )
    )


def white_is_zero(page: tifffile.TiffPage) -> bool:
    """Return whether a page declares that 0 is white; without a declaration, 0 is black, as in libtiff."""
    return page.photometric == WHITE_IS_ZERO and PHOTOMETRIC in page.tags


def _occurs(page: tifffile.TiffPage, nodata: str) -> bool:
    """Return whether a pixel of the page can have the value `nodata`, the declared number that marks missing pixels."""
    value = metadata.number(nodata)
    return value is not None and page.dtype is not None and metadata.holds(page.dtype, value)


def _density(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Return the number of pixels per unit of length in x and y, from GeoTIFF tags, else OME, else resolution tags."""
    scale = page.tags.valueof(PIXEL_SCALE)
    if isinstance(scale, tuple) and len(scale) == 3:
        return _inverse(scale[0], scale[1])
    physical = {(axis, unit): value for axis, unit, value in PHYSICAL.findall(page.description[:100_000])}
    if ("X", "") in physical and physical.get(("X", "Unit")) == physical.get(("Y", "Unit")):
        with contextlib.suppress(ValueError):
            return _inverse(float(physical["X", ""]), float(physical.get(("Y", ""), 0)))
    ratios = [page.tags.valueof(code) for code in (exif.X_RESOLUTION, exif.Y_RESOLUTION)]
    if not all(isinstance(ratio, tuple) and len(ratio) == 2 and all(ratio) for ratio in ratios):
        return None
    x, y = (float(numerator / denominator) for numerator, denominator in ratios)
    return x, y


def _inverse(width: float, height: float) -> tuple[float, float] | None:
    usable = all(isinstance(side, float) and math.isfinite(side) and side for side in (width, height))
    return (1 / abs(width), 1 / abs(height)) if usable else None


def _scaling(text: object) -> str:
    """Describe the first scale other than 1 or offset other than 0 in GDAL metadata; return "" if there is none."""
    for role, value in SCALING.findall(text[:100_000]) if isinstance(text, str) else ():
        number = metadata.number(value)
        if number is not None and number != (1 if role == "scale" else 0):
            return f"{role} of {value.strip()}"
    return ""
