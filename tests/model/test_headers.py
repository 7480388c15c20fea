"""Image headers, judged by files with wrong headers made by hand, and by files of Pillow."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segline.model import headers
from segline.model.headers import Header, ImageError
from segline.model.images import decode, header


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, pixels: bytes, *between: bytes) -> bytes:
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    rest = b"".join(between) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + start + rest


def bmp(width: int, height: int, bits: int, pixels: bytes, palette: bytes = b"", *, compression: int = 0) -> bytes:
    start = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + palette + pixels


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    ramp = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    Image.fromarray(ramp).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def frame(data: bytes, height: int, width: int) -> bytes:
    """Change the size in the header of the JPEG `data`."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def test_zeros_at_the_limit_of_deflate_are_read() -> None:
    data = png(4000, 3000, 8, 0, bytes(3000 * 4001))
    assert 3000 * 4001 / len(data) > 950
    assert not decode(data).any()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(20000, 20000, 8, 0, bytes(100)), "PNG: .*its bytes cannot hold 20000 x 20000 px"),
        (png(2**31 - 1, 2**31 - 1, 16, 6, b""), "its bytes cannot hold"),
        (png(0, 5, 8, 0, b""), "0 x 5"),
        (png(5, 5, 3, 0, bytes(30)), "3 bits"),
        (png(5, 5, 16, 3, bytes(30)), "16 bits, colour type 3"),
        (png(5, 5, 8, 0, bytes(29)), "Not enough image data"),
        (png(5, 5, 8, 0, bytes(30), chunk(b"CgBI", b"")), "CgBI"),
        (bmp(9999, 9999, 24, bytes(100)), "BMP: .*its bytes cannot hold"),
        (bmp(4, 4, 8, bytes(8), bytes(1024), compression=1), "kind of BMP .8 bits, compression 1."),
        (bmp(4, -(2**31), 24, bytes(64)), "its bytes cannot hold"),
        (frame(jpeg(), 65000, 65000), "JPEG: .*its bytes cannot hold 65000 x 65000 px"),
        (frame(jpeg(), 0, 50), "50 x 0"),
        (jpeg("CMYK"), "CMYK.*convert it to RGB"),
        (jpeg()[:-2], "truncated: the end of its last scan is missing"),
        (jpeg()[:300], "truncated"),
        (b"\xff\xd8\xff\xd9", "no image"),
        (b"\xff\xd8" + b"\xff" * 100_000, "10000 markers"),
        (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 100_000, "10000 markers"),
        (jpeg()[:2] + jpeg()[2:].replace(b"\xff\xc0", b"\xff\xc9"), "kind of JPEG .frame C9"),
    ],
)
def test_wrong_headers_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=f"not a readable .*{words}"):
        decode(data)


def test_too_large_images_are_refused_before_they_are_read() -> None:
    headers.doubt(20_000, 20_000, 1, 20_000 * 20_000 * 4 * 2, 1)
    with pytest.raises(
        ImageError, match=r"30000 x 30000 px need 6\.7 GiB, more than the limit of 4 GiB; cut the image"
    ):
        headers.png(png(30_000, 30_000, 16, 6, b"")[:33], 2**40)


def test_many_scans_are_refused() -> None:
    data = jpeg(progressive=True)
    start = data.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="100 scans"):
        decode(data[:-2] + data[start:-2] * 100 + b"\xff\xd9")


def test_wrong_checksums_of_pixel_chunks_are_refused() -> None:
    data = png(5, 5, 8, 0, bytes(30), chunk(b"tEXt", b"a\0b"))
    for place, refused in ((b"IHDR", True), (b"IDAT", True), (b"tEXt", False)):
        at = data.index(place)
        end = at + 4 + struct.unpack(">I", data[at - 4 : at])[0]
        damaged = data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]
        if refused:
            with pytest.raises(ImageError, match=f"checksum of {place.decode()} at byte {at - 4}"):
                decode(damaged)
        else:
            assert decode(damaged).shape == (5, 5, 1)


def test_bytes_after_the_image_are_ignored() -> None:
    for data in (png(5, 5, 8, 0, bytes(30)), jpeg(), bmp(4, 4, 24, bytes(48))):
        np.testing.assert_array_equal(decode(data + b"rubbish"), decode(data))


def test_thumbnails_are_not_taken_for_the_image() -> None:
    """EXIF can contain a complete JPEG with its own end marker."""
    exif = Image.Exif()
    exif[270] = "x"
    data = jpeg(exif=b"Exif\0\0" + jpeg())
    assert header(io.BytesIO(data)) == Header(40, 50, 3, "uint8")
    with pytest.raises(ImageError, match="truncated"):
        decode(data[:-100])
