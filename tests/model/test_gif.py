"""GIF, judged by Pillow and by files cut and changed by hand."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segline.model import gif
from segline.model.images import ImageError, decode, header

RGB = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def saved(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "GIF", **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{"interlace": 0}, {"interlace": 1}, {"comment": b"a comment"}])
@pytest.mark.parametrize("colours", [2, 9, 256])
def test_colours_equal_those_of_pillow(options: dict[str, Any], colours: int) -> None:
    image = Image.fromarray(RGB).quantize(colours)
    data = saved(image, **options)
    assert np.array_equal(decode(data), np.array(image.convert("RGB")))
    assert header(io.BytesIO(data)) == (12, 17, 3, "uint8")


def test_a_grey_palette_gives_a_grey_image() -> None:
    data = saved(Image.fromarray(RGB[..., 0]))
    assert np.array_equal(decode(data), RGB[..., :1])
    assert header(io.BytesIO(data)).channels == 1


def test_indices_and_palette_are_read() -> None:
    image = Image.fromarray((RGB[..., 0] > 99).astype(np.uint8), "P")
    image.putpalette([9, 8, 7, 200, 1, 2])
    numbers, palette = gif.numbers(saved(image, optimize=False))
    assert np.array_equal(numbers, RGB[..., 0] > 99)
    assert palette[:2].tolist() == [[9, 8, 7], [200, 1, 2]]


def test_a_used_transparent_colour_is_refused() -> None:
    image = Image.fromarray(RGB).quantize(9)
    assert decode(saved(image, transparency=12)).shape == (12, 17, 3)
    with pytest.raises(ImageError, match="transparent"):
        decode(saved(image, transparency=3))


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (6, b"\xff\xff\xff\xff", "does not fill"),
        (6, b"\x12\0", "does not fill"),
        (10, b"\0", "damaged|truncated|no colours"),
    ],
)
def test_wrong_headers_are_refused(at: int, value: bytes, words: str) -> None:
    data = saved(Image.fromarray(RGB[..., 0]))
    with pytest.raises(ImageError, match=words):
        decode(data[:at] + value + data[at + len(value) :])


def test_a_size_too_large_for_the_file_is_refused() -> None:
    data = bytearray(saved(Image.fromarray(RGB[..., 0])))
    frame = data.index(b"\x2c\0\0\0\0")
    data[6:10] = data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(ImageError, match="its bytes cannot hold"):
        decode(bytes(data))
