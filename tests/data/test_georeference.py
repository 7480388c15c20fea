"""Georeferences, judged by what tifffile reads back."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile

from segline.data.georeference import geotiff, tags
from segline.model.images import ImageError, encode_png

SCALE, TIEPOINT = (0.5, 0.5, 0.0), (0.0, 0.0, 0.0, 300000.25, 5000000.0, 0.0)
TRANSFORMATION = (0.5, 0.1, 0.0, 300000.0, 0.1, -0.5, 0.0, 5000000.0, *([0.0] * 7), 1.0)
KEYS = (1, 1, 0, 4, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633, 2057, 34736, 1, 0)
NAME = "WGS 84 / UTM zone 33N|"
WRITTEN = {
    33550: ("d", SCALE),
    33922: ("d", TIEPOINT),
    34735: ("H", KEYS),
    34736: ("d", (6378137.0,)),
    34737: ("s", NAME),
}
LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def image(georeference: dict[int, tuple[str, Any]], **options: Any) -> bytes:
    stream = io.BytesIO()
    extra = [(code, kind, len(value), value, True) for code, (kind, value) in georeference.items()]
    pixels = np.zeros((3, 4, 4), np.uint16)
    tifffile.imwrite(
        stream, pixels, photometric="minisblack", planarconfig="contig", metadata=None, extratags=extra, **options
    )
    return stream.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"compression": "lzw", "tile": (16, 16)}]
)
@pytest.mark.parametrize("georeference", [WRITTEN, {34264: ("d", TRANSFORMATION), 34735: ("H", KEYS)}])
def test_labels_lie_where_the_image_lies(georeference: dict[int, tuple[str, Any]], options: dict[str, Any]) -> None:
    nodata = {42113: ("s", "0")}
    written = geotiff(LABELS, tags(image(georeference | nodata, **options)))
    with tifffile.TiffFile(io.BytesIO(written)) as file:
        (page,) = file.pages
        assert {code: page.tags[code].value for code in georeference} == {
            code: value for code, (_, value) in georeference.items()
        }
        assert 42113 not in page.tags
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        np.testing.assert_array_equal(page.asarray(), LABELS)


def test_other_images_have_none() -> None:
    assert tags(image({})) == []
    assert tags(encode_png(LABELS)) == []


def test_damage_is_named() -> None:
    with pytest.raises(ImageError, match="not a readable TIFF"):
        tags(image(WRITTEN)[:200])
