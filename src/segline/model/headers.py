"""Read and validate the headers of image files before decoding any pixels."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

LARGEST = 2**32  # largest size of decoded pixels, bytes; enough for 20,000 x 20,000 px with four 16-bit channels
DEFLATE = 1032  # largest expansion, decoded bytes per compressed byte: 2 bits can stand for 258 bytes
JPEG = 1400  # largest expansion: 1 bit can stand for 8 x 8 px, and colours can be subsampled 4 x 4
SCANS, MARKERS = 100, 10_000  # largest numbers of scans and of markers in a JPEG; each scan takes time to decode

PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # number of samples per pixel for each colour type
PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # marker, except stuffed bytes, restart markers and fill bytes
BASELINE, PROGRESSIVE, FRAMES = (0xC0, 0xC1), 0xC2, set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SCAN, END = 0xDA, 0xD9


class ImageError(ValueError):
    """Raised for an image that cannot be used; the message gives the cause and the requirement."""


class Header(NamedTuple):
    """Height, width, number of channels (without alpha) and type of the decoded pixels."""

    height: int
    width: int
    channels: int
    dtype: str


@contextmanager
def reading(form: str) -> Iterator[None]:
    """Turn every exception inside the with block into an ImageError that names the image format `form`."""
    try:
        yield
    except ImageError as error:
        prefix = f"not a readable {form}: "
        raise ImageError(prefix + str(error).removeprefix(prefix)) from error
    except MemoryError as error:
        raise ImageError(f"this {form} needs more memory than is available; cut the image into parts") from error
    except Exception as error:  # a decoder can raise any exception for a damaged image
        raise ImageError(f"not a readable {form}: the file is damaged or truncated ({error})") from error


def doubt(height: int, width: int, stored: int, decoded: int, most: float) -> None:
    """Refuse an image that is empty or too large, or whose header declares more pixels than the data can encode.

    Parameters
    ----------
    stored : size of the uncompressed pixels in the layout of the file format, bytes.
    decoded : size of the decoded pixels in memory, bytes.
    most : largest size that the compressed data can expand to, bytes.
    """
    if height <= 0 or width <= 0:
        raise ImageError(f"the size is {width} x {height} px; an image has at least 1 x 1 px")
    if stored > most:
        raise ImageError(
            f"the file is damaged or truncated: its bytes cannot hold {width} x {height} px, the declared size"
        )
    if decoded > LARGEST:
        raise ImageError(
            f"{width} x {height} px need {decoded / 2**30:.1f} GiB, more than the limit of {LARGEST / 2**30:.0f} GiB; "
            "cut the image into parts"
        )


def png(data: bytes, size: int) -> Header:
    """Return the header of a PNG file of `size` bytes; `data` is the start of the file, at least 33 bytes.

    Raises
    ------
    ImageError
        The header is damaged, or declares more pixels than deflate can compress into the file.
    """
    if len(data) < 33 or data[8:16] != b"\0\0\0\rIHDR":
        raise ImageError("the file is truncated, or does not begin with a PNG header")
    width, height, bits, colour, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if bits not in PNG_BITS.get(colour, ()) or (compression, filtering) != (0, 0) or interlace > 1:
        raise ImageError(
            f"the file is damaged: its header has values that PNG does not allow ({bits} bits, colour type {colour}, "
            f"interlacing {interlace})"
        )
    stored = height * (1 + -(-width * PNG_SAMPLES[colour] * bits // 8))
    channels = 3 if colour in (2, 3, 6) else 1
    decoded = height * width * max(channels, PNG_SAMPLES[colour]) * (2 if bits == 16 else 1)
    doubt(height, width, stored, decoded, DEFLATE * size)
    return Header(height, width, channels, "uint16" if bits == 16 else "uint8")


def png_pixels(data: bytes, transparency: bool = True) -> bytes:
    """Return the PNG `data` with only the chunks that define the pixels; drop colour profile, orientation and text.

    Raises
    ------
    ImageError
        The PNG is truncated, or the checksum of a chunk is wrong.
    """
    view, at = memoryview(data), 8
    kept = [view[:8]]
    while True:
        if len(data) < at + 12:
            raise ImageError("the file is truncated")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ImageError("the file is truncated")
        if kind in PNG_PIXELS or (kind == b"tRNS" and transparency):
            if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise ImageError(f"the file is damaged: the checksum of {kind.decode()} at byte {at} is wrong")
            kept.append(view[at:end])
        elif kind[:1].isupper():
            raise ImageError(
                f"the file has a critical chunk of unknown type {kind!r}, so it is damaged or not a plain PNG; save "
                "the image again as PNG"
            )
        if kind == b"IEND":
            return b"".join(kept)
        at = end


def bmp(data: bytes, size: int) -> Header:
    """Return the header of a BMP file of `size` bytes; `data` is the whole file, or at least its first 1,200 bytes.

    BMP has no type for grey images. If the palette has only greys, the image has one channel.

    Raises
    ------
    ImageError
        The BMP is truncated, compressed, or of a rare type.
    """
    if len(data) < 54:
        raise ImageError("the file is truncated")
    start, info, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    if info < 40 or compression not in (0, 3) or bits not in (1, 4, 8, 16, 24, 32):
        raise ImageError(
            f"this kind of BMP ({bits} bits, compression {compression}) is not supported; save the image as PNG"
        )
    height, row = abs(height), -(-width * bits // 32) * 4
    palette = data[14 + info : min(start, 14 + info + 4 * 2**bits)] if bits <= 8 else b""
    channels = 1 if palette and palette[::4] == palette[1::4] == palette[2::4] else 3
    doubt(height, width, height * row, height * width * 4, size - start)
    return Header(height, width, channels, "uint8")


def bmp_density(data: bytes) -> tuple[float, float] | None:
    """Return the number of pixels per metre, in x and y, from the first bytes of a BMP; None if not declared."""
    if len(data) < 46:
        return None
    x, y = struct.unpack_from("<ii", data, 38)
    return (float(x), float(y)) if x > 0 and y > 0 else None


def jpeg(data: bytes) -> Header:
    """Return the header of a JPEG; read all segments, so that a truncated file is detected.

    JPEG has no checksums. So damage inside a scan is not detected if the markers are intact.

    Raises
    ------
    ImageError
        The JPEG is truncated or damaged, does not have one or three channels of 8 bits, or is of a rare type.
    """
    header, scans, at = None, 0, 2
    for _ in range(MARKERS):
        if len(data) < at + 4 and data[at : at + 2] != b"\xff\xd9":
            raise ImageError("the file is truncated")
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise ImageError(f"the file is damaged at byte {at}")
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == END:
            if header is None or not scans:
                raise ImageError("the file contains no image")
            return header
        if marker in FRAMES:
            if header is not None:
                raise ImageError("the file contains two frames instead of one")
            header = _frame(data, at)
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if marker == SCAN:
            scans += 1
            following = AFTER_SCAN.search(data, at)
            if following is None:
                raise ImageError("the file is truncated: the end of its last scan is missing")
            if scans > SCANS:
                raise ImageError(f"the JPEG has more than {SCANS} scans; save it as a baseline JPEG")
            at = following.start()
    raise ImageError(f"the file has more than {MARKERS} markers; save it again with an image editor")


def _frame(data: bytes, at: int) -> Header:
    """Read the header from the JPEG frame that starts at offset `at`."""
    if len(data) < at + 10:
        raise ImageError("the file is truncated")
    marker, bits, height, width, channels = struct.unpack_from(">xB2xBHHB", data, at)
    if marker not in (*BASELINE, PROGRESSIVE) or bits != 8:
        raise ImageError(f"this kind of JPEG (frame {marker:02X}, {bits} bits) is not supported; save the image as PNG")
    if channels == 4:
        raise ImageError("the JPEG is in CMYK (print colours); convert it to RGB")
    if channels not in (1, 3):
        raise ImageError(f"the JPEG has {channels} channels; convert it to grey or RGB")
    doubt(height, width, height * width * channels, height * width * channels, JPEG * len(data))
    return Header(height, width, channels, "uint8")
