"""Read what a page of a TIFF says of its pixels beside them: orientation, white, density, missing and scaled values."""

import contextlib
import math
import re

import tifffile

from . import exif, metadata
from .metadata import Facts, Metadata

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag, and its value
PIXEL_SCALE = 33550
GEOREFERENCE = (PIXEL_SCALE, 33922, 34264, 50844)  # with tiepoints, transformation and RPC coefficients
XMP, GDAL_METADATA, GDAL_NODATA = 700, 42112, 42113
SCALING = re.compile(r'<Item [^>]{0,200}role="(scale|offset)"[^>]{0,200}>([^<]{1,40})<')
PHYSICAL = re.compile(r'\bPhysicalSize([XY])(Unit)?="([^"]{1,40})"')


def size_of(page: tifffile.TiffPage) -> tuple[int, int]:
    """Height and width of a page upright, px."""
    return metadata.size(page.imagelength, page.imagewidth, metadata_of(page).orientation)


def metadata_of(page: tifffile.TiffPage, validity: bool = False) -> Metadata:
    """What is made of what a page says of itself.

    Raises
    ------
    ImageError
        It has both an orientation and a georeference.
    """
    note = page.tags.valueof(XMP)
    orientation = page.tags.valueof(exif.ORIENTATION)
    if not isinstance(orientation, int):
        orientation = exif.of_xmp(note) if isinstance(note, bytes) else None
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
    """Whether a page says that 0 is white; one that says nothing is taken as libtiff does, 0 being black."""
    return page.photometric == WHITE_IS_ZERO and PHOTOMETRIC in page.tags


def _occurs(page: tifffile.TiffPage, nodata: str) -> bool:
    """Whether the page can hold the missing value that it declares."""
    value = metadata.number(nodata)
    return value is not None and page.dtype is not None and metadata.holds(page.dtype, value)


def _density(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Pixels per unit of length in x and y: of a GeoTIFF's pixel scale, of OME's physical size, or as TIFF says it."""
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
    """The scale or offset of values other than 1 and 0 that GDAL's metadata tell; empty where there is none."""
    for role, value in SCALING.findall(text[:100_000]) if isinstance(text, str) else ():
        number = metadata.number(value)
        if number is not None and number != (1 if role == "scale" else 0):
            return f"{role} of {value.strip()}"
    return ""
