"""JPEG 2000, judged by the arrays that Pillow and imagecodecs wrote, and by files changed by hand."""

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from segline.model import jpeg2000
from segline.model.images import ImageError, decode, header

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 52, 3), dtype=np.uint8)
SIXTEEN = RNG.integers(0, 65536, (40, 52), dtype=np.uint16)


def saved(image: Image.Image | np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, "JPEG2000", **options)
    return stream.getvalue()


def changed(data: bytes, marker: int, at: int, value: bytes) -> bytes:
    """Replace bytes of `data` by `value`, at an offset after the length of the first `marker`."""
    start = (
        data.index(struct.pack(">H", marker), data.index(jpeg2000.CODESTREAM) + 2 * (marker != jpeg2000.SIZ)) + 4 + at
    )
    return data[:start] + value + data[start + len(value) :]


@pytest.mark.parametrize("form", [{}, {"no_jp2": True}])
@pytest.mark.parametrize("array", [RGB, RGB[..., 0], SIXTEEN])
@pytest.mark.parametrize(
    "options", [{}, {"tile_size": (16, 16)}, {"quality_mode": "rates", "quality_layers": [80, 40, 1]}]
)
def test_lossless_pixels_are_read_exactly(form: dict[str, Any], array: np.ndarray, options: dict[str, Any]) -> None:
    data = saved(array, **form, **options)
    with Image.open(io.BytesIO(data)) as image:  # Pillow writes wrong pixels into tiles of 16 bits
        array = np.array(image)
    assert np.array_equal(decode(data), array.reshape(40, 52, -1))
    assert header(io.BytesIO(data)) == (40, 52, array.size // 2080, array.dtype.name)
    assert jpeg2000.header(data).reversible


@pytest.mark.parametrize("bits", [1, 8, 10, 12, 15])
def test_samples_of_up_to_16_bits_are_read(bits: int) -> None:
    array = SIXTEEN % (2**bits)
    decoded = decode(imagecodecs.jpeg2k_encode(array, level=0, reversible=True, bitspersample=bits))
    assert np.array_equal(decoded[..., 0], array)


def test_many_channels_are_read() -> None:
    array = np.dstack([RGB, RGB[::-1]])
    assert np.array_equal(decode(imagecodecs.jpeg2k_encode(array, level=0, reversible=True, codecformat="j2k")), array)


def test_lossy_compression_is_detected() -> None:
    for data in (saved(RGB, irreversible=True), imagecodecs.jpeg2k_encode(SIXTEEN, level=40, reversible=False)):
        assert not jpeg2000.header(data).reversible
        assert decode(data).shape[:2] == (40, 52)


def test_opaque_alpha_is_dropped_and_transparency_refused() -> None:
    opaque = np.dstack([RGB, np.full((40, 52), 255, np.uint8)])
    assert np.array_equal(decode(saved(opaque)), RGB)
    with pytest.raises(ImageError, match="transparent"):
        decode(saved(np.dstack([RGB, RGB[..., 0]])))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved(Image.fromarray(RGB).convert("YCbCr")), "colour space 18"),
        (saved(RGB)[:300], "truncated"),
        (saved(RGB)[:-2], "truncated|damaged"),
        (changed(saved(RGB), jpeg2000.SIZ, 2, struct.pack(">II", 2**31, 2**31)), "its bytes cannot hold|tiles"),
        (changed(saved(RGB), jpeg2000.SIZ, 18, struct.pack(">II", 0, 1)), "tiles have a width or height of 0 px"),
        (changed(saved(np.zeros((200, 200), np.uint8)), jpeg2000.SIZ, 18, struct.pack(">II", 1, 1)), "40000 tiles"),
        (changed(saved(RGB), jpeg2000.SIZ, 37, b"\2"), "subsampling"),
        (changed(saved(RGB), jpeg2000.SIZ, 36, b"\x87"), "signed"),
        (changed(saved(RGB), jpeg2000.COD, 2, b"\xff\xff"), "layers"),
        (changed(saved(RGB), jpeg2000.COD, 6, b"\0\0"), "code-blocks"),
        (changed(saved(RGB), jpeg2000.COD, 0, b"\1\0\0\1\0\0\4\4\0\1\0"), "damaged|precincts"),
        (saved(np.zeros((2000, 2000), np.uint8), precinct_size=(16, 16)), "precincts"),
    ],
)
def test_unsupported_files_are_refused(data: bytes, words: str) -> None:
    for read in (decode, lambda data: header(io.BytesIO(data))):
        with pytest.raises(ImageError, match=words):
            read(data)
