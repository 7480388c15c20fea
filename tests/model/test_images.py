import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segline.model.images import ImageError, Statistics, decode, encode_png, to_network

RNG = np.random.default_rng(0)
GREY = Statistics("uint8", 1, (0.5,), (0.25,))


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1)])
def test_png_pixels_come_back_as_pillow_wrote_them(shape: tuple[int, ...]) -> None:
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(decode(png(array)), array if array.ndim == 3 else array[..., None])


def test_sixteen_bit_colour_keeps_its_bits() -> None:
    array = RNG.integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    encoded = cv2.imencode(".png", array[..., ::-1])[1].tobytes()
    decoded = decode(encoded)
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, array)


def test_opaque_alpha_is_dropped_and_transparent_kept() -> None:
    array = RNG.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    array[..., 3] = 255
    assert np.array_equal(decode(png(array)), array[..., :3])
    array[0, 0, 3] = 0
    assert decode(png(array)).shape == (4, 4, 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_tiff_of_every_type(dtype: type) -> None:
    array = (RNG.random((5, 6)) * 200).astype(dtype)
    decoded = decode(tiff(array))
    assert decoded.shape == (5, 6, 1)
    assert decoded.dtype == (np.float32 if dtype == np.float64 else dtype)
    assert np.array_equal(decoded[..., 0], array.astype(decoded.dtype))


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd"])
def test_compressed_tiff(compression: str) -> None:
    array = RNG.integers(0, 60000, (30, 40), dtype=np.uint16)
    assert np.array_equal(decode(tiff(array, compression=compression))[..., 0], array)


def test_planar_tiff_gets_its_channels_last() -> None:
    array = RNG.integers(0, 256, (5, 30, 40), dtype=np.uint8)
    decoded = decode(tiff(array, photometric="minisblack", planarconfig="separate", metadata={"axes": "CYX"}))
    assert np.array_equal(decoded, np.moveaxis(array, 0, -1))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a readable"),
        (b"hello", "5 bytes"),
        (png(np.zeros((50, 50), np.uint8))[:30], "not a readable"),
        (b"II*\x00rubbish", "TIFF"),
        (tiff(np.zeros((3, 4, 5), np.uint8), photometric="minisblack"), "one page"),
        (tiff(np.zeros((3, 4), np.int32)), "int32"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode(data)


def test_labels_survive_png() -> None:
    for array in (RNG.integers(0, 9, (6, 7), dtype=np.uint8), RNG.integers(0, 60000, (6, 7), dtype=np.uint16)):
        assert np.array_equal(decode(encode_png(array))[..., 0], array)


def test_the_same_pixel_gives_the_same_value_whatever_surrounds_it() -> None:
    dark = np.array([[[1], [0]]], np.uint8)
    bright = np.array([[[1], [255]]], np.uint8)
    assert to_network(dark, GREY)[0, 0, 0] == to_network(bright, GREY)[0, 0, 0]
    assert to_network(dark, GREY)[0, 0, 0] == pytest.approx((1 / 255 - 0.5) / 0.25)


def test_another_type_or_channel_count_is_refused() -> None:
    with pytest.raises(ImageError, match="uint16 with 1 channels, but the model was trained on uint8"):
        to_network(np.zeros((4, 4, 1), np.uint16), GREY)
    with pytest.raises(ImageError, match="3 channels"):
        to_network(np.zeros((4, 4, 3), np.uint8), GREY)
