"""Read the GeoTIFF tags of an image, and write them to label files. These tags give the position on Earth."""

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

# The tag GDAL_NODATA is not copied, because labels have no missing values.
TAGS = (
    33550,  # ModelPixelScale
    33922,  # ModelTiepoint
    34264,  # ModelTransformation
    34735,  # GeoKeyDirectory
    34736,  # GeoDoubleParams
    34737,  # GeoAsciiParams
    50844,  # RPCCoefficientTag
)
PIXEL_SCALE, TIEPOINTS, TRANSFORMATION, KEYS = TAGS[:4]
RASTER_TYPE, PIXEL_IS_POINT = 1025, 2
SYSTEMS, USER_DEFINED = (1024, 2048, 3072), 32767  # GeoKeys: model type, geographic and projected system
GEOREFERENCED = {".tif", ".tiff", *imagefiles.JPEG_2000}
NEAR = 0.05  # px; largest distance between an image and its labels that is treated as a rounding error


class Tag(NamedTuple):
    """TIFF tag. The fields have the order that tifffile expects. `once`: whether only the first page has the tag."""

    code: int
    dtype: int
    length: int
    value: Any
    once: bool = True


class Position(NamedTuple):
    """Position of an image in a coordinate reference system.

    `matrix` (2, 3) maps (column, row, 1), counted from the outer corner of the first pixel, to coordinates; `system`
    has the GeoKeys of the coordinate reference system.
    """

    matrix: npt.NDArray[np.float64]
    system: dict[int, int]


def tags(image: bytes) -> list[Tag]:
    """Return the GeoTIFF tags of an encoded TIFF or JP2 image; an empty list if there are none.

    Other formats give an empty list, too.

    Raises
    ------
    ImageError
        The image is damaged, or has an orientation tag as well.
    """
    geotiff_ = image if image.startswith(TIFF_MAGIC) else jpeg2000.note(image, jpeg2000.GEOTIFF)
    if not geotiff_.startswith(TIFF_MAGIC):
        return []
    from segline.model import tiff, tifftags

    with tiff.opened(io.BytesIO(geotiff_)) as (file, _):
        # This call is only a check: it raises ImageError if the file has both an orientation and a georeference.
        tifftags.metadata_of(file.pages.first)
        return tags_of(file)


def tags_of(file: "tifffile.TiffFile") -> list[Tag]:
    """Read the GeoTIFF tags of the first page of an open TIFF."""
    present = [file.pages.first.tags.get(code) for code in TAGS]
    return [Tag(tag.code, int(tag.dtype), tag.count, tag.value) for tag in present if tag is not None]


def place_of(path: Path) -> Position | None:
    """Read an image's position on Earth from its file; None if the file has no georeference or only control points.

    Raises
    ------
    FileError
        The file cannot be read, is damaged, or has an orientation tag as well.
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


def _place(values: dict[int, Any]) -> Position | None:
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
    if system.get(RASTER_TYPE) == PIXEL_IS_POINT:  # in this case, whole numbers refer to the centres of pixels
        matrix[:, 2] -= matrix[:, :2].sum(axis=1) / 2
    return Position(matrix, system)


def apart(image: Path, labels: Path) -> str:
    """Describe how the georeferenced positions of an image and of its labels differ; an empty str if equal or unknown.

    The image and its labels have the same size.

    Raises
    ------
    FileError
        A file cannot be read, is damaged, or has an orientation tag as well.
    """
    if not {image.suffix.lower(), labels.suffix.lower()} <= GEOREFERENCED:
        return ""
    of_image, of_labels = place_of(image), place_of(labels)
    if of_image is None or of_labels is None:
        return ""
    for key in SYSTEMS:
        codes = of_image.system.get(key, USER_DEFINED), of_labels.system.get(key, USER_DEFINED)
        if USER_DEFINED not in codes and codes[0] != codes[1]:
            return f"the coordinate systems of labels and image differ (EPSG {codes[1]} and {codes[0]})"
    height, width = imagefiles.image_size(labels)[:2]
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], float)
    try:
        moved = np.linalg.solve(of_image.matrix[:, :2], (of_labels.matrix - of_image.matrix) @ corners)
    except np.linalg.LinAlgError:
        return ""
    distance = np.hypot(*moved).max()
    if distance <= NEAR:
        return ""
    moved, shift = np.round(moved, 9) + 0.0, (of_labels.matrix - of_image.matrix)[:, 2] + 0.0  # + 0.0 turns -0 into 0
    return (
        f"the georeference places the labels up to {distance:.4g} px from their image; their first corner lies "
        f"{moved[0, 0]:+.4g} px along and {moved[1, 0]:+.4g} px down (x {shift[0]:+.6g}, y {shift[1]:+.6g})"
    )


def geotiff(labels: npt.NDArray[Any], georeference: list[Tag]) -> bytes:
    """Encode `labels` (H, W), or K planes (K, H, W), as a GeoTIFF with deflate compression."""
    import tifffile

    stream, options = io.BytesIO(), dict[str, Any](extratags=georeference)
    if labels.ndim == 3:
        options["planarconfig"] = "separate"
    tifffile.imwrite(stream, labels, photometric="minisblack", compression="zlib", metadata=None, **options)
    return stream.getvalue()
