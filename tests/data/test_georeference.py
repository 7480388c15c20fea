"""Compare copied georeferences with the tags that tifffile reads back."""

import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from segline.data.georeference import apart, geotiff, tags
from segline.model.images import ImageError, decode, encode_png
from segline.model.jpeg2000 import GEOTIFF

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


def test_other_formats_have_no_georeference() -> None:
    assert tags(image({})) == []
    assert tags(encode_png(LABELS)) == []


def test_a_damaged_tiff_is_refused() -> None:
    with pytest.raises(ImageError, match="not a readable TIFF"):
        tags(image(WRITTEN)[:200])


def geotiff_keys(*keys: tuple[int, int]) -> tuple[str, tuple[int, ...]]:
    """Make a GeoKeys tag with short values."""
    return "H", (1, 1, 0, len(keys), *(number for key, value in keys for number in (key, 0, 1, value)))


UTM = (1024, 1), (3072, 32633)


def affine(x: float, y: float, sides: tuple[float, ...] = (2.0, 0.0, 0.0, -2.0)) -> dict[int, Any]:
    """Make the tag of the matrix x + a column + b row, y + c column + d row."""
    a, b, c, d = sides
    return {34264: ("d", (a, b, 0.0, x, c, d, 0.0, y, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0))}


def scaled(x: float, y: float, column: float = 0, row: float = 0, side: float = 2.0) -> dict[int, Any]:
    """Make the tags of a pixel scale and of a tiepoint at (column, row)."""
    return {33550: ("d", (side, side, 0.0)), 33922: ("d", (float(column), float(row), 0.0, x, y, 0.0))}


def keyed(place: dict[int, Any], *keys: tuple[int, int]) -> dict[int, Any]:
    return {**place, 34735: geotiff_keys(*(keys or UTM))}


HERE = keyed(scaled(5e5, 46e5))
POINT = (1025, 2)


@pytest.mark.parametrize(
    "labels",
    [
        HERE,
        keyed(affine(5e5, 46e5)),
        keyed(scaled(5e5 + 20, 46e5 - 8, 10, 4)),
        keyed(scaled(5e5 + 0.01, 46e5)),
        keyed(scaled(5e5 + 1, 46e5 - 1), *UTM, POINT),
        keyed(affine(5e5 + 1, 46e5 - 1), *UTM, POINT),
        keyed(scaled(5e5, 46e5), (1024, 1), (3072, 32767)),
        scaled(5e5, 46e5),
        {},
    ],
)
def test_labels_at_the_place_of_their_image_are_accepted(labels: dict[int, Any], tmp_path: Path) -> None:
    assert lying(tmp_path, HERE, labels) == ""


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            keyed(scaled(5e5 + 2, 46e5)),
            r"the labels up to 1 px from their image; .* \+1 px along and \+0 px down \(x \+2, y \+0\)",
        ),
        (keyed(scaled(5e5, 46e5 - 64)), r"up to 32 px .* \+32 px down \(x \+0, y -64\)"),
        (keyed(scaled(5e5, 46e5), *UTM, POINT), r"up to 0\.7071 px .* -0\.5 px along and -0\.5 px down"),
        (keyed(affine(5e5, 46e5 - 2 * 6, (2.0, 0.0, 0.0, 2.0))), "up to 6 px"),
        (keyed(affine(5e5, 46e5, (0.0, 2.0, -2.0, 0.0))), "px from their image"),
        (keyed(scaled(5e5, 46e5, side=2.1)), "px from their image"),
        (
            keyed(scaled(5e5, 46e5), (1024, 1), (3072, 32632)),
            r"the coordinate systems of labels and image differ \(EPSG 32632 and 32633\)",
        ),
        (keyed(scaled(5e5, 46e5), (1024, 2), (2048, 4326)), "the coordinate systems of labels and image differ"),
    ],
)
def test_labels_at_another_place_are_described(labels: dict[int, Any], words: str, tmp_path: Path) -> None:
    assert re.search(words, lying(tmp_path, HERE, labels))


def lying(folder: Path, image: dict[int, Any], labels: dict[int, Any]) -> str:
    for name, tags_ in (("image", image), ("labels", labels)):
        extra = [(code, kind, len(value), value, True) for code, (kind, value) in tags_.items()]
        tifffile.imwrite(folder / f"{name}.tif", np.zeros((6, 8), np.uint8), extratags=extra, metadata=None)
    return apart(folder / "image.tif", folder / "labels.tif")


def test_control_points_are_not_compared(tmp_path: Path) -> None:
    points = {33922: ("d", tuple(map(float, range(18))))}
    assert lying(tmp_path, HERE, points) == ""


def test_a_jp2_has_the_georeference_of_the_geotiff_within() -> None:
    """Sentinel-2 and GDAL write a box with a TIFF of one pixel."""
    stream = io.BytesIO()
    extra = [(code, kind, len(value), value, True) for code, (kind, value) in HERE.items()]
    tifffile.imwrite(stream, np.zeros((1, 1), np.uint8), extratags=extra, metadata=None)
    jp2 = io.BytesIO()
    Image.fromarray(LABELS.astype(np.uint8)).save(jp2, "JPEG2000")
    box = b"uuid" + GEOTIFF + stream.getvalue()
    data = jp2.getvalue() + struct.pack(">I", 4 + len(box)) + box
    assert [tag.code for tag in tags(data)] == [33550, 33922, 34735]
    assert tags(jp2.getvalue()) == []
    assert np.array_equal(decode(data), decode(jp2.getvalue()))
