"""Compare decoded label images with the arrays that Pillow and tifffile wrote."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from segline.data import labelfile
from segline.model.images import ImageError

IDS = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
RGBA = np.random.default_rng(0).integers(0, 256, (4, 5, 4), dtype=np.uint8)


def written(image: Image.Image | npt.NDArray[Any], form: str = "PNG", **options: Any) -> labelfile.Written:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, form, **options)
    return labelfile.decode(io.BytesIO(stream.getvalue()))


def tiff(array: npt.NDArray[Any], **options: Any) -> labelfile.Written:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return labelfile.decode(io.BytesIO(stream.getvalue()))


def palette(indices: npt.NDArray[Any]) -> Image.Image:
    """Make an image whose palette maps 0, 1, ... to unordered colours."""
    image = Image.fromarray(indices, "P")
    image.putpalette([9, 0, 0, 0, 0, 7, 200, 1, 1, 3, 3, 3])
    return image


@pytest.mark.parametrize("options", [{"bits": 2}, {"bits": 8}, {"transparency": 0}])
def test_palettes_give_indices_and_their_colours(options: dict[str, Any]) -> None:
    numbers, colours = written(palette(IDS), **options)
    np.testing.assert_array_equal(numbers, IDS)
    assert colours is not None
    assert colours[:4].tolist() == [[9, 0, 0], [0, 0, 7], [200, 1, 1], [3, 3, 3]]


def test_palettes_of_bmp_and_tiff() -> None:
    for form in ("BMP", "TIFF"):
        numbers, colours = written(palette(IDS), form)
        np.testing.assert_array_equal(numbers, IDS)
        assert colours is not None
        assert colours[:2].tolist() == [[9, 0, 0], [0, 0, 7]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_packed_greys_keep_their_numbers(bits: int) -> None:
    """libpng would stretch the values to 0 ... 255."""
    indices = (np.arange(12) % 2**bits).astype(np.uint8).reshape(3, 4)
    image = Image.fromarray(indices, "P")
    image.putpalette([0] * 3 * 2**bits)
    stream = io.BytesIO()
    image.save(stream, "PNG", bits=bits)
    # The same pixels, called grey instead of indices: byte 25 is the colour type.
    data = bytearray(stream.getvalue())
    data[25] = 0
    start = data.index(b"PLTE") - 4
    del data[start : start + 12 + 3 * 2**bits]
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    np.testing.assert_array_equal(labelfile.decode(io.BytesIO(bytes(data))).numbers, indices)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_black_and_white_is_0_and_1(form: str) -> None:
    numbers = written(IDS > 1, form).numbers
    assert numbers.dtype == np.uint8
    np.testing.assert_array_equal(numbers, IDS > 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_keeps_its_numbers(dtype: str, byteorder: str) -> None:
    numbers = tiff(IDS.astype(dtype), byteorder=byteorder).numbers
    assert numbers.dtype.isnative
    np.testing.assert_array_equal(numbers, IDS.astype(dtype))


def test_colours_stay_colours() -> None:
    for form in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(written(RGBA[..., :3], form).numbers, RGBA[..., :3])


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_transparent_pixels_are_0_and_half_transparent_pixels_refused(form: str) -> None:
    array = RGBA.copy()
    array[..., 3] = np.where(RGBA[..., 3] > 99, 255, 0)
    np.testing.assert_array_equal(written(array, form).numbers, np.where(array[..., 3:] > 0, array[..., :3], 0))
    grey = np.array(Image.fromarray(array).convert("LA"))
    np.testing.assert_array_equal(written(Image.fromarray(grey, "LA"), form).numbers, grey[..., 0] * (grey[..., 1] > 0))
    array[0, 0, 3] = 100
    with pytest.raises(ImageError, match="1 pixels are half transparent"):
        written(array, form)


def test_transparency_in_metadata_changes_no_id() -> None:
    np.testing.assert_array_equal(written(IDS, transparency=2).numbers, IDS)
    np.testing.assert_array_equal(written(RGBA[..., :3], transparency=(1, 2, 3)).numbers, RGBA[..., :3])


def test_grey_jpeg_is_read() -> None:
    """A grey JPEG is readable here, because import may apply a threshold."""
    assert written(np.full((8, 9), 200, np.uint8), "JPEG").numbers.tolist() == [[200] * 9] * 8
