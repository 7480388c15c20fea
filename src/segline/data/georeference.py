"""Where on Earth an image lies: the tags of a GeoTIFF, taken from an image and given to its labels."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segline import files
from segline.data import imagefiles
from segline.model import jpeg2000
from segline.model.images import TIFF_MAGIC

if TYPE_CHECKING:
    import tifffile

# ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams and
# RPCCoefficientTag. What an image says of missing values (GDAL_NODATA) is left behind: labels have none.
TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 50844)
PIXEL_SCALE, TIEPOINTS, TRANSFORMATION, KEYS = TAGS[:4]
RASTER_TYPE, PIXEL_IS_POINT = 1025, 2
SYSTEMS, USER_DEFINED = (1024, 2048, 3072), 32767  # GeoKeys: kind of model, geographic and projected system
GEOREFERENCED = {".tif", ".tiff", *imagefiles.JPEG_2000}
NEAR = 0.05  # px that an image and its labels may lie apart: numbers are rounded when they are written


class Tag(NamedTuple):
    """A tag as tifffile takes it: code, type, number of values, values, and whether on the first page only."""

    code: int
    dtype: int
    length: int
    value: Any
    once: bool = True


class Place(NamedTuple):
    """Where the pixels of an image lie.

    `matrix` (2, 3) gives the coordinates of (column, row, 1), counted from the outer corner of the first pixel;
    `system` has the GeoKeys that name the coordinate reference system.
    """

    matrix: npt.NDArray[np.float64]
    system: dict[int, int]


def tags(image: bytes) -> list[Tag]:
    """The georeference of an image file; nothing for one that has none, and for any but TIFF and JP2.

    Raises
    ------
    ImageError
        It is damaged, or has an orientation as well.
    """
    geotiff_ = image if image.startswith(TIFF_MAGIC) else jpeg2000.note(image, jpeg2000.GEOTIFF)
    if not geotiff_.startswith(TIFF_MAGIC):
        return []
    from segline.model import tiff, tifftags

    with tiff.opened(io.BytesIO(geotiff_)) as (file, _):
        tifftags.metadata_of(file.pages.first)  # or says that its orientation and georeference exclude each other
        return tags_of(file)


def tags_of(file: "tifffile.TiffFile") -> list[Tag]:
    """The georeference of an open TIFF."""
    found = [file.pages.first.tags.get(code) for code in TAGS]
    return [Tag(tag.code, int(tag.dtype), tag.count, tag.value) for tag in found if tag is not None]


def place_of(path: Path) -> Place | None:
    """Where an image file lies; None where it does not say, or says it by control points only.

    Raises
    ------
    FileError
        It cannot be read, is damaged, or has an orientation as well.
    """
    with imagefiles.named(path), files.opened(path) as stream:
        form = imagefiles.form(stream)
        if form == "TIFF":
            from segline.model import tiff

            with tiff.opened(stream) as (file, _):
                return _place({tag.code: tag.value for tag in tags_of(file)})
        if form == "JPEG 2000":
            return _place({tag.code: tag.value for tag in tags(stream.read())})
    return None


def _place(values: dict[int, Any]) -> Place | None:
    keys = values.get(KEYS, ())
    entries = [keys[at : at + 4] for at in range(4, len(keys) - 3, 4)]
    system = {key: value for key, location, _, value in entries if location == 0}
    if len(transformation := values.get(TRANSFORMATION, ())) == 16:
        matrix = np.array(transformation, float).reshape(4, 4)[:2, [0, 1, 3]]
    elif len(scale := values.get(PIXEL_SCALE, ())) == 3 and len(tiepoint := values.get(TIEPOINTS, ())) == 6:
        column, row, _, x, y, _ = tiepoint
        matrix = np.array([[scale[0], 0, x - column * scale[0]], [0, -scale[1], y + row * scale[1]]], float)
    else:
        return None
    if system.get(RASTER_TYPE) == PIXEL_IS_POINT:  # then whole numbers are centres of pixels
        matrix[:, 2] -= matrix[:, :2].sum(axis=1) / 2
    return Place(matrix, system)


def apart(image: Path, labels: Path) -> str:
    """How an image and its labels, of one size, lie at different places; empty where they do not, or do not say.

    Raises
    ------
    FileError
        As in `place_of`.
    """
    if not {image.suffix.lower(), labels.suffix.lower()} <= GEOREFERENCED:
        return ""
    one, other = place_of(image), place_of(labels)
    if one is None or other is None:
        return ""
    for key in SYSTEMS:
        codes = one.system.get(key, USER_DEFINED), other.system.get(key, USER_DEFINED)
        if USER_DEFINED not in codes and codes[0] != codes[1]:
            return f"its georeference is of another coordinate system than its image's (EPSG {codes[1]} and {codes[0]})"
    height, width = imagefiles.image_size(labels)[:2]
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], float)
    try:
        moved = np.linalg.solve(one.matrix[:, :2], (other.matrix - one.matrix) @ corners)
    except np.linalg.LinAlgError:
        return ""
    distance = np.hypot(*moved).max()
    if distance <= NEAR:
        return ""
    moved, shift = np.round(moved, 9) + 0.0, (other.matrix - one.matrix)[:, 2] + 0.0  # no -0
    return (
        f"its georeference places it up to {distance:.4g} px from its image: its first corner is {moved[0, 0]:+.4g} px "
        f"along and {moved[1, 0]:+.4g} px down (x {shift[0]:+.6g}, y {shift[1]:+.6g})"
    )


def geotiff(labels: npt.NDArray[Any], georeference: list[Tag]) -> bytes:
    """Bytes of a GeoTIFF of `labels` (H, W), or of planes (K, H, W), compressed by deflate."""
    import tifffile

    stream, options = io.BytesIO(), dict[str, Any](extratags=georeference)
    if labels.ndim == 3:
        options["planarconfig"] = "separate"
    tifffile.imwrite(stream, labels, photometric="minisblack", compression="zlib", metadata=None, **options)
    return stream.getvalue()
