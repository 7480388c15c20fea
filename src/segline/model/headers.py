"""What image files say of themselves, read and doubted before anything is decoded."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

LARGEST = 2**32  # bytes of pixels; 20,000 x 20,000 px of four channels with 16 bits fit
DEFLATE = 1032  # bytes that a byte of the format can stand for at most: a match of 258 bytes in 2 bits
JPEG = 1400  # a block of 8 x 8 in 1 bit, colour subsampled 4 x 4
SCANS, MARKERS = 100, 10_000  # of a JPEG; each scan costs a pass over the image

PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # a marker that is no stuffed byte, restart or filling
BASELINE, PROGRESSIVE, FRAMES = (0xC0, 0xC1), 0xC2, set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SCAN, END = 0xDA, 0xD9


class ImageError(ValueError):
    """Bytes or pixels that cannot be used; the message says what was found and what is needed."""


class Header(NamedTuple):
    """Size and type that the decoded pixels (H, W, C) will have; an alpha channel does not count."""

    height: int
    width: int
    channels: int
    dtype: str


@contextmanager
def reading(form: str) -> Iterator[None]:
    """Whatever is raised within comes out as an ImageError that says of which format the image is."""
    try:
        yield
    except ImageError as error:
        prefix = f"not a readable {form}: "
        raise ImageError(prefix + str(error).removeprefix(prefix)) from error
    except MemoryError as error:
        raise ImageError(f"a {form} that needs more memory than there is; cut the image") from error
    except Exception as error:  # a damaged image raises whatever its decoder happens to meet
        raise ImageError(f"not a readable {form}: it is damaged or truncated ({error})") from error


def doubt(height: int, width: int, stored: int, decoded: int, most: float) -> None:
    """Refuse an image that is empty, too large, or larger than its file can hold.

    Parameters
    ----------
    stored, decoded : bytes of its pixels, as they are before compression and in memory.
    most : bytes of pixels that its compressed bytes can stand for.
    """
    if height <= 0 or width <= 0:
        raise ImageError(f"an image of {width} x {height} px")
    if stored > most:
        raise ImageError(f"it is damaged or truncated: {width} x {height} px are more than its bytes can hold")
    if decoded > LARGEST:
        raise ImageError(
            f"{width} x {height} px are {decoded / 2**30:.1f} GiB, more than {LARGEST / 2**30:.0f} GiB; cut the image"
        )


def png(data: bytes, size: int) -> Header:
    """Header of a PNG of `size` bytes that begins with `data`, at least 33 bytes.

    Raises
    ------
    ImageError
        There is no such image; or its pixels are more than deflate can press into the file.
    """
    if len(data) < 33 or data[8:16] != b"\0\0\0\rIHDR":
        raise ImageError("it is truncated or does not begin as a PNG does")
    width, height, bits, colour, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if bits not in PNG_BITS.get(colour, ()) or (compression, filtering) != (0, 0) or interlace > 1:
        raise ImageError(f"it is damaged: {bits} bits of colour type {colour}, interlacing {interlace}")
    stored = height * (1 + -(-width * PNG_SAMPLES[colour] * bits // 8))
    channels = 3 if colour in (2, 3, 6) else 1
    decoded = height * width * max(channels, PNG_SAMPLES[colour]) * (2 if bits == 16 else 1)
    doubt(height, width, stored, decoded, DEFLATE * size)
    return Header(height, width, channels, "uint16" if bits == 16 else "uint8")


def png_pixels(data: bytes, transparency: bool = True) -> bytes:
    """The PNG `data` with nothing but what its pixels need: no colour profile, orientation or text.

    Raises
    ------
    ImageError
        It is truncated, or the checksum of a part is wrong.
    """
    view, at = memoryview(data), 8
    kept = [view[:8]]
    while True:
        if len(data) < at + 12:
            raise ImageError("it is truncated")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ImageError("it is truncated")
        if kind in PNG_PIXELS or (kind == b"tRNS" and transparency):
            if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise ImageError(f"it is damaged: the checksum of {kind.decode()} at byte {at} is wrong")
            kept.append(view[at:end])
        elif kind[:1].isupper():
            raise ImageError(f"it needs {kind!r}, which no PNG has; it is damaged or no plain PNG")
        if kind == b"IEND":
            return b"".join(kept)
        at = end


def bmp(data: bytes, size: int) -> Header:
    """Header of a BMP of `size` bytes that begins with `data`, all of it or at least 1,200 bytes.

    BMP has no grey: an image whose palette is grey is grey.

    Raises
    ------
    ImageError
        It is truncated, compressed, or of a kind that has gone out of use.
    """
    if len(data) < 54:
        raise ImageError("it is truncated")
    start, info, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    if info < 40 or compression not in (0, 3) or bits not in (1, 4, 8, 16, 24, 32):
        raise ImageError(f"a BMP of a rare kind ({bits} bits, compression {compression}); save it as PNG")
    height, row = abs(height), -(-width * bits // 32) * 4
    palette = data[14 + info : min(start, 14 + info + 4 * 2**bits)] if bits <= 8 else b""
    channels = 1 if palette and palette[::4] == palette[1::4] == palette[2::4] else 3
    doubt(height, width, height * row, height * width * 4, size - start)
    return Header(height, width, channels, "uint8")


def bmp_density(data: bytes) -> tuple[float, float] | None:
    """Pixels per metre in x and y, as a BMP that begins with `data` says them; None where it does not."""
    if len(data) < 46:
        return None
    x, y = struct.unpack_from("<ii", data, 38)
    return (float(x), float(y)) if x > 0 and y > 0 else None


def jpeg(data: bytes) -> Header:
    """Header of a JPEG, after a walk over all of its parts: nothing else tells that one is truncated.

    JPEG has no checksums, so damage within a scan that leaves its markers alone cannot be seen.

    Raises
    ------
    ImageError
        It is truncated or damaged, neither grey nor in three colours of 8 bits, or of a kind that is hardly ever used.
    """
    header, scans, at = None, 0, 2
    for _ in range(MARKERS):
        if len(data) < at + 4 and data[at : at + 2] != b"\xff\xd9":
            raise ImageError("it is truncated")
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise ImageError(f"it is damaged at byte {at}")
        if marker == 0xFF:  # filling
            at += 1
            continue
        if marker == END:
            if header is None or not scans:
                raise ImageError("it holds no image")
            return header
        if marker in FRAMES:
            if header is not None:
                raise ImageError("it holds two frames, and one image has one")
            header = _frame(data, at)
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if marker == SCAN:
            scans += 1
            following = AFTER_SCAN.search(data, at)
            if following is None:
                raise ImageError("it is truncated: its last scan has no end")
            if scans > SCANS:
                raise ImageError(f"it has more than {SCANS} scans; save it again")
            at = following.start()
    raise ImageError(f"it has more than {MARKERS} parts; save it again")


def _frame(data: bytes, at: int) -> Header:
    """Header of the JPEG frame that begins at byte `at`."""
    if len(data) < at + 10:
        raise ImageError("it is truncated")
    marker, bits, height, width, channels = struct.unpack_from(">xB2xBHHB", data, at)
    if marker not in (*BASELINE, PROGRESSIVE) or bits != 8:
        raise ImageError(f"a JPEG of a rare kind (frame {marker:02X}, {bits} bits); save it as PNG")
    if channels == 4:
        raise ImageError("a JPEG in CMYK, the colours of print; convert it to RGB")
    if channels not in (1, 3):
        raise ImageError(f"a JPEG of {channels} channels")
    doubt(height, width, height * width * channels, height * width * channels, JPEG * len(data))
    return Header(height, width, channels, "uint8")
