"""Where on Earth an image lies: the tags of a GeoTIFF, taken from an image and given to its labels."""

import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from segline.model.images import TIFF_MAGIC

if TYPE_CHECKING:
    import tifffile

# ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams. What an image
# says of missing values (GDAL_NODATA) is left behind: labels have none.
TAGS = (33550, 33922, 34264, 34735, 34736, 34737)


class Tag(NamedTuple):
    """A tag as tifffile takes it: code, type, number of values, values, and whether on the first page only."""

    code: int
    dtype: int
    length: int
    value: Any
    once: bool = True


def tags(image: bytes) -> list[Tag]:
    """The georeference of an image file; nothing for one that has none, and for any but a TIFF.

    Raises
    ------
    ImageError
        It is damaged.
    """
    if not image.startswith(TIFF_MAGIC):
        return []
    from segline.model import tiff

    with tiff.opened(io.BytesIO(image)) as (file, _):
        return tags_of(file)


def tags_of(file: "tifffile.TiffFile") -> list[Tag]:
    """The georeference of an open TIFF."""
    found = [file.pages.first.tags.get(code) for code in TAGS]
    return [Tag(tag.code, int(tag.dtype), tag.count, tag.value) for tag in found if tag is not None]


def geotiff(labels: npt.NDArray[Any], georeference: list[Tag]) -> bytes:
    """Bytes of a GeoTIFF of `labels` (H, W), or of planes (K, H, W), compressed by deflate."""
    import tifffile

    stream, options = io.BytesIO(), dict[str, Any](extratags=georeference)
    if labels.ndim == 3:
        options["planarconfig"] = "separate"
    tifffile.imwrite(stream, labels, photometric="minisblack", compression="zlib", metadata=None, **options)
    return stream.getvalue()
