"""Read metadata, such as orientation and pixel density, from EXIF, XMP and PNG chunks; check every offset."""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MOST = 2**20  # largest number of bytes read from a metadata block
MOST_ENTRIES = 4096
ORIENTATION, X_RESOLUTION, Y_RESOLUTION = 274, 282, 283
WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I"}  # struct format of each integer type of TIFF
RATIONAL = 5
XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:\s*=\s*[\"']|\s*>)\s*(\d{1,9})")
SCAN, END = 0xDA, 0xD9
ALONE = (0x01, *range(0xD0, 0xD8))  # JPEG markers without a length
JFIF, EXIF, XMP, MPF = b"JFIF\0", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"MPF\0"
# ImageMagick stores EXIF data in PNG chunks with these keywords.
RAW_PROFILES = (b"Raw profile type exif", b"Raw profile type APP1")
PALETTE, OPAQUE = b"\3", 255  # PNG colour type with a palette; alpha value of an opaque colour
PNG_NOTES = (b"eXIf", b"iTXt", b"tEXt", b"zTXt", b"pHYs", b"acTL", b"tRNS")

Density = tuple[float, float]  # number of pixels per unit of length, in x and in y


class Notes(NamedTuple):
    """Metadata about the geometry of a PNG or JPEG; orientation or pixel density is None if not declared."""

    orientation: int | None = None
    density: Density | None = None
    frames: int = 1  # number of frames of an animation
    several: bool = False  # whether further pictures follow the first
    clear: bool = False  # whether a colour other than 0, or a palette index other than 0, is declared transparent


def of_tiff(data: bytes) -> tuple[int | None, Density | None]:
    """Return orientation and pixel density from the first EXIF directory; each is None if missing or damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return None, None
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    if at + 2 > len(data):
        return None, None
    (entries,) = struct.unpack_from(f"{order}H", data, at)
    numbers: dict[int, float] = {}
    for place in range(at + 2, min(at + 2 + 12 * min(entries, MOST_ENTRIES), len(data) - 11), 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, place)
        if tag == ORIENTATION and kind in WHOLE_NUMBERS:
            (numbers[tag],) = struct.unpack_from(order + WHOLE_NUMBERS[kind], data, place + 8)
        elif tag in (X_RESOLUTION, Y_RESOLUTION) and kind == RATIONAL:
            (offset,) = struct.unpack_from(f"{order}I", data, place + 8)
            numbers[tag] = _ratio(data, offset, order)
    orientation = numbers.get(ORIENTATION)
    density = numbers.get(X_RESOLUTION, 0.0), numbers.get(Y_RESOLUTION, 0.0)
    return None if orientation is None else int(orientation), density if all(density) else None


def _ratio(data: bytes, offset: int, order: str) -> float:
    if offset + 8 > len(data):
        return 0.0
    numerator, denominator = struct.unpack_from(f"{order}II", data, offset)
    return float(numerator / denominator) if denominator else 0.0


def of_xmp(data: bytes) -> int | None:
    """Return the orientation in XMP metadata; None if the metadata hold no orientation."""
    match = XMP_ORIENTATION.search(data[:MOST])
    return int(match[1]) if match else None


def of_jpeg(data: bytes) -> Notes:
    """Return the metadata of a JPEG; for orientation, EXIF overrides XMP; for pixel density, JFIF overrides EXIF."""
    exif: tuple[int | None, Density | None] = None, None
    xmp: int | None = None
    density: Density | None = None
    several = False
    for marker, part in _parts(data):
        if marker == 0xE0 and part.startswith(JFIF) and len(part) >= 12:
            x, y = struct.unpack_from(">HH", part, 8)
            density = (float(x), float(y)) if x and y else None
        elif marker == 0xE1 and part.startswith(EXIF) and exif == (None, None):
            exif = of_tiff(part[len(EXIF) :])
        elif marker == 0xE1 and part.startswith(XMP) and xmp is None:
            xmp = of_xmp(part)
        elif marker == 0xE2 and part.startswith(MPF):
            several = True
    return Notes(xmp if exif[0] is None else exif[0], density or exif[1], several=several)


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the content of each JPEG segment before the first scan; stop at a damaged segment."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (SCAN, END):
        marker = data[at + 1]
        if marker == 0xFF or marker in ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            return
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def of_png(stream: BinaryIO) -> Notes:
    """Return the metadata in all chunks of a PNG; if the file is damaged, skip all chunks after the damage."""
    exif: tuple[int | None, Density | None] = None, None
    xmp: int | None = None
    density: Density | None = None
    frames, clear = 1, False
    stream.seek(25)
    colour = stream.read(1)
    for kind, part in _chunks(stream):
        text = _text(kind, part) if kind in (b"iTXt", b"tEXt", b"zTXt") else b""
        if kind == b"eXIf":
            exif = of_tiff(part.removeprefix(EXIF))
        elif kind == b"iTXt" and part.startswith(b"XML:com.adobe.xmp\0"):
            xmp = of_xmp(text) if xmp is None else xmp
        elif text and exif[0] is None:
            exif = of_tiff(_profile(text))
        elif kind == b"pHYs" and len(part) == 9:
            x, y = struct.unpack_from(">II", part)
            density = (float(x), float(y)) if x and y else None
        elif kind == b"acTL" and len(part) == 8:
            frames = int.from_bytes(part[:4], "big")
        elif kind == b"tRNS":
            clear = any(part if colour != PALETTE else (value < OPAQUE for value in part[1:256]))
    return Notes(xmp if exif[0] is None else exif[0], density or exif[1], frames, clear=clear)


def _chunks(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunk type and the content of each metadata chunk of a PNG; skip the pixels."""
    at = 8
    while True:
        stream.seek(at)
        head = stream.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length, kind = struct.unpack(">I4s", head)
        if kind in PNG_NOTES:
            yield kind, stream.read(min(length, MOST))
        at += 12 + length


def _text(kind: bytes, part: bytes) -> bytes:
    """Return the content of a PNG text chunk if it is XMP or ImageMagick's EXIF data; otherwise empty bytes."""
    keyword, _, rest = part.partition(b"\0")
    if kind == b"iTXt" and keyword == b"XML:com.adobe.xmp":
        packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif kind in (b"tEXt", b"zTXt") and keyword in RAW_PROFILES:
        packed, rest = kind == b"zTXt", rest[1:] if kind == b"zTXt" else rest
    else:
        return b""
    try:
        return zlib.decompressobj().decompress(rest, MOST) if packed else rest
    except zlib.error:
        return b""


def _profile(text: bytes) -> bytes:
    """Decode EXIF data from a raw profile of ImageMagick; the profile has a name, a length and hexadecimal digits."""
    digits = b"".join(text.split(b"\n")[3:]).replace(b" ", b"")
    try:
        return bytes.fromhex(digits.decode("ascii")).removeprefix(EXIF)
    except ValueError:  # includes UnicodeDecodeError
        return b""
