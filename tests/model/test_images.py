"""Decoding and normalisation, judged by Pillow, tifffile and OpenCV, and by tables made by hand."""

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segline.model.headers import Header
from segline.model.images import ImageError, decode, encode_png, header
from segline.model.normalisation import Statistics, as_channels, to_network

RNG = np.random.default_rng(0)
GREY = Statistics("uint8", 1, (0.5,), (0.25,))
RGB = Statistics("uint8", 3, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
BYTES = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)


def saved(image: Image.Image | np.ndarray, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, form, **options)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1)])
def test_pixels_equal_those_written_by_pillow(form: str, shape: tuple[int, ...]) -> None:
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(decode(saved(array, form)), array if array.ndim == 3 else array[..., None])


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_kept(channels: int) -> None:
    array = RNG.integers(0, 65536, (4, 6, channels), dtype=np.uint16)
    decoded = decode(cv2.imencode(".png", array[..., ::-1])[1].tobytes())
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, array)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_palettes_become_colours(form: str) -> None:
    image = Image.fromarray(BYTES[..., :3]).quantize(5)
    assert np.array_equal(decode(saved(image, form)), np.array(image.convert("RGB")))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_packed_palettes_become_colours(bits: int) -> None:
    image = Image.fromarray(BYTES[..., :3]).quantize(2**bits)
    assert np.array_equal(decode(saved(image, bits=bits)), np.array(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_black_and_white_become_0_and_255(form: str) -> None:
    decoded = decode(saved(BYTES[..., 0] > 99, form))
    assert np.array_equal(decoded[..., 0], np.where(BYTES[..., 0] > 99, 255, 0))
    assert decoded.shape == (5, 7, 1)


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 3), ("LA", 1)])
def test_opaque_alpha_is_dropped_and_transparency_refused(mode: str, channels: int) -> None:
    array = BYTES.copy()
    array[..., 3] = 255
    image = Image.fromarray(array).convert(mode)
    for form in ("PNG", "TIFF"):
        assert np.array_equal(decode(saved(image, form)), np.array(image)[..., :channels])
    array[0, 0, 3] = 254
    for form in ("PNG", "TIFF"):
        with pytest.raises(ImageError, match=r"makes 1 pixels transparent; flatten the image"):
            decode(saved(Image.fromarray(array).convert(mode), form))


@pytest.mark.parametrize(("alpha", "refused"), [(np.full(5, 1.0), False), (np.arange(5) / 4, True)])
def test_alpha_of_floats_must_be_1(alpha: np.ndarray, refused: bool) -> None:
    array = np.dstack([np.ones((4, 5, 3)), np.tile(alpha, (4, 1))]).astype(np.float32)
    data = tiff(array, photometric="rgb", extrasamples=["unassalpha"])
    if refused:
        with pytest.raises(ImageError, match="makes 16 pixels transparent"):
            decode(data)
    else:
        assert decode(data).shape == (4, 5, 3)


def test_used_transparent_colours_of_a_palette_are_refused() -> None:
    image = Image.fromarray(BYTES[..., :3]).quantize(5)
    assert decode(saved(image, transparency=b"\xff" * 5)).shape == (5, 7, 3)
    with pytest.raises(ImageError, match="transparent"):
        decode(saved(image, transparency=0))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_equals_opencv(channels: int, options: dict[str, object]) -> None:
    ramp = np.add.outer(np.arange(40), np.arange(50))
    array = np.squeeze(np.stack([ramp, ramp[::-1], 2 * ramp], axis=-1).astype(np.uint8)[..., :channels])
    data = saved(array, "JPEG", **options)
    judge = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decode(data), judge[..., ::-1] if channels == 3 else judge[..., None])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("uint8", "uint8"),
        ("uint16", "uint16"),
        ("float32", "float32"),
        *[
            (dtype, "float32")
            for dtype in ("int8", "int16", "int32", "uint32", "int64", "uint64", "float16", "float64")
        ],
    ],
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_of_every_type_is_read(dtype: str, expected: str, byteorder: str) -> None:
    array = (RNG.random((5, 6)) * 100).astype(dtype)
    data = tiff(array, byteorder=byteorder)
    decoded = decode(data)
    assert decoded.dtype == np.dtype(expected)
    assert decoded.dtype.isnative
    assert np.array_equal(decoded[..., 0], array.astype(expected))
    assert header(io.BytesIO(data)) == Header(5, 6, 1, expected)


def test_values_beyond_float32_are_rounded_or_infinite() -> None:
    """Whole numbers beyond 2**24 are rounded; values beyond float32 become infinite, which check refuses."""
    decoded = decode(tiff(np.array([[2**24 + 1, 2**24]], np.int32)))
    assert decoded.tolist() == [[[2**24], [2**24]]]
    assert np.isinf(decode(tiff(np.array([[1e300]])))).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a readable"),
        (b"hello", "not a readable PNG, JPEG, BMP, GIF, JPEG 2000 or TIFF.*convert the file to one of these formats"),
        (saved(BYTES[..., 0], "PPM"), "convert the file to one of these formats"),
        (saved(BYTES[..., 0], "GIF")[:20], "not a readable GIF: the file is truncated"),
        (saved(np.zeros((50, 50), np.uint8))[:30], "not a readable PNG: the file is truncated"),
        (b"II*\x00rubbish", "not a readable TIFF"),
        (b"BM", "not a readable BMP"),
        (b"\xff\xd8", "not a readable JPEG"),
        (tiff(np.zeros((3, 4), np.complex64)), "COMPLEX"),
    ],
)
def test_bytes_that_are_not_an_image_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode(data)
    with pytest.raises(ImageError, match=words):
        header(io.BytesIO(data))


def test_decoders_are_silent(capfd: pytest.CaptureFixture[str]) -> None:
    good = saved(BYTES[..., :3], "JPEG", quality=95)
    middle = len(good) - 40
    for data in (good[:middle] + good[-2:], saved(BYTES)[:-20], tiff(BYTES)[:-20], b"II*\x00" + bytes(50)):
        try:
            decode(data)
        except ImageError:
            continue
    assert capfd.readouterr() == ("", "")


def test_labels_survive_encoding_as_png() -> None:
    for array in (RNG.integers(0, 9, (6, 7), dtype=np.uint8), RNG.integers(0, 60000, (6, 7), dtype=np.uint16)):
        assert np.array_equal(decode(encode_png(array))[..., 0], array)


def test_a_pixel_value_does_not_depend_on_its_neighbours() -> None:
    dark = np.array([[[1], [0]]], np.uint8)
    bright = np.array([[[1], [255]]], np.uint8)
    assert to_network(dark, GREY)[0, 0, 0] == to_network(bright, GREY)[0, 0, 0]
    assert to_network(dark, GREY)[0, 0, 0] == pytest.approx((1 / 255 - 0.5) / 0.25)


def test_a_model_for_rgb_takes_grey_as_equal_channels() -> None:
    grey = BYTES[..., :1]
    assert np.array_equal(to_network(grey, RGB), to_network(np.dstack([grey] * 3), RGB))
    assert np.array_equal(as_channels(grey, 3), np.dstack([grey] * 3))
    assert as_channels(BYTES, 4) is BYTES


@pytest.mark.parametrize(("channels", "wanted"), [(3, 1), (1, 2), (1, 4), (2, 3), (4, 3)])
def test_wrong_channels_are_refused(channels: int, wanted: int) -> None:
    with pytest.raises(
        ImageError, match=f"the number of channels is {channels}, but must be {wanted}; convert the image"
    ):
        as_channels(np.zeros((2, 2, channels), np.uint8), wanted)


def test_an_image_unlike_the_training_images_is_refused() -> None:
    with pytest.raises(ImageError, match="uint16 with 1 channels, but the model was trained on uint8"):
        to_network(np.zeros((4, 4, 1), np.uint16), GREY)
    with pytest.raises(ImageError, match="uint16 with 1 channels, but the model was trained on uint8 with 3 channels"):
        to_network(np.zeros((4, 4, 1), np.uint16), RGB)
    with pytest.raises(ImageError, match="3 channels"):
        to_network(np.zeros((4, 4, 3), np.uint8), GREY)
