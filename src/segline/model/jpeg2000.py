"""Validate JPEG 2000 files (JP2 and bare codestreams) before OpenJPEG decodes them.

Not supported are palettes, colours other than grey and RGB, channels of different size or type, and signed numbers.
Files with tiny precincts, tiny code-blocks or very many layers are refused too. OpenJPEG would need far more memory for
such a file than for the decoded pixels.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import imagecodecs
import numpy.typing as npt

from . import headers
from .headers import Header, ImageError

BOXES, CODESTREAM = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
MAGIC = (BOXES, CODESTREAM)
RATIO = 32768  # largest accepted expansion, decoded bytes per compressed byte; accepts a blank image of 8 megapixels
CHANNELS = 1024
LAYERS, LEVELS = 64, 32
# Number of bytes of memory that OpenJPEG needs for each tile, each channel of a tile, and each precinct.
# Tiles or precincts that need at most `FEW` bytes in total are accepted, however small the image is.
TILE, CHANNEL, PRECINCT, FEW = 2**13, 2**11, 2**10, 2**25
SMALLEST_BLOCK = 2  # smallest accepted code-block: 16 px, stored as log2(16) - 2
SIZ, COD, COC, SOT, SOD, EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
GREY, RGB = 17, 16  # values of EnumCS
EXIF = b"JpgTiffExif->JP2"  # UUID of the box that holds EXIF data
GEOTIFF = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")  # UUID of the box that holds a GeoTIFF


class Contents(NamedTuple):
    """Size and type of the pixels, indices of the alpha channels, and whether the compression is lossless."""

    size: Header
    alpha: tuple[int, ...]
    reversible: bool


class _Size(NamedTuple):
    """Size of the image and of a tile, px; number of channels, number of bits per sample, number of tiles."""

    height: int
    width: int
    channels: int
    bits: int
    tiles: int
    tile_width: int
    tile_height: int

    @property
    def samples(self) -> int:
        return max(0, self.height) * max(0, self.width) * self.channels


def header(data: bytes) -> Contents:
    """Validate all headers of a JPEG 2000 file, and return the `Contents` of the file.

    Raises
    ------
    ImageError
        The file is truncated, damaged or not supported (see the module docstring). Or the file declares more pixels
        than it can hold.
    """
    alpha, codestream = _boxes(data) if data.startswith(BOXES) else ((), data)
    size = _size(codestream)
    item = 1 if size.bits <= 8 else 2
    # OpenJPEG keeps two copies of the decoded pixels in memory; each copy needs 4 bytes per sample.
    headers.doubt(size.height, size.width, size.samples * item, size.samples * 4, RATIO * len(data))
    reversible = True
    for marker, part in _markers(codestream):
        if marker == COD:
            _doubt_style(size, part[0] & 1, part[5:])
            if struct.unpack_from(">H", part, 2)[0] > LAYERS:
                raise ImageError(f"the file has more than {LAYERS} layers; save it with one layer")
            reversible &= part[9] == 1
        elif marker == COC:
            style = part[1 if size.channels < 257 else 2 :]
            _doubt_style(size, style[0] & 1, style[1:])
            reversible &= style[5] == 1
    colours = size.channels - len(alpha)
    if alpha and (alpha != (size.channels - 1,) or colours < 1):
        raise ImageError(
            f"the file declares the channels {alpha} as alpha, but only the last of its {size.channels} channels can "
            "be alpha"
        )
    return Contents(Header(size.height, size.width, colours, "uint8" if item == 1 else "uint16"), alpha, reversible)


def decode(data: bytes) -> tuple[npt.NDArray[Any], tuple[int, ...]]:
    """Decode an image; return two values: pixels (H, W, C) and alpha channel indices.

    The function raises the same errors as `header`.
    """
    contents = header(data)
    pixels: npt.NDArray[Any] = imagecodecs.jpeg2k_decode(data, planar=False, numthreads=1)
    size = contents.size
    return pixels.reshape(size.height, size.width, size.channels + len(contents.alpha)), contents.alpha


def note(data: bytes, uuid: bytes) -> bytes:
    """Return the content of the first JP2 box with the UUID `uuid` (EXIF or GEOTIFF); b"" if no box has this UUID."""
    for kind, at, end in _each_box(data, 0, len(data)) if data.startswith(BOXES) else ():
        if kind == b"uuid" and data[at : at + 16] == uuid:
            return data[at + 16 : end]
    return b""


def _boxes(data: bytes) -> tuple[tuple[int, ...], bytes]:
    """Return two values from a JP2: alpha channel indices and codestream; refuse unsupported colours."""
    alpha: list[int] = []
    for kind, at, end in _each_box(data, 0, len(data)):
        if kind == b"jp2c":
            return tuple(sorted(alpha)), data[at:end]
        if kind != b"jp2h":
            continue
        for inner, start, stop in _each_box(data, at, end):
            if inner == b"pclr":
                raise ImageError("the file has a palette; save the image as grey or RGB")
            if inner == b"colr" and data[start] == 1:
                space = int.from_bytes(data[start + 3 : start + 7], "big")
                if space not in (GREY, RGB):
                    raise ImageError(f"the colour space {space} is not supported; convert the image to grey or RGB")
            if inner == b"cdef":
                entries = data[start + 2 : stop]
                alpha += [number for number, kind_, _ in _triples(entries) if kind_ in (1, 2)]
    raise ImageError("the file contains no image")


def _triples(data: bytes) -> Iterator[tuple[int, int, int]]:
    yield from struct.iter_unpack(">HHH", data[: len(data) // 6 * 6])


def _each_box(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield three values for each box between `at` and `end`: box type, start of the content, end of the content."""
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1 and at + 16 <= end:
            (length,), start = struct.unpack_from(">Q", data, start), at + 16
        stop = end if length == 0 else at + length
        if stop < start or stop > end:
            raise ImageError(f"the file is damaged or truncated at byte {at}")
        yield kind, start, stop
        at = stop


def _size(data: bytes) -> _Size:
    """Read the sizes in the header of a codestream, and validate them."""
    if not data.startswith(CODESTREAM) or len(data) < 42:
        raise ImageError("the file is truncated")
    right, bottom, left, top, wide, high, _, _, channels = struct.unpack_from(">8IH", data, 8)
    parts = data[42 : 42 + 3 * channels]
    if not 0 < channels <= CHANNELS or len(parts) < 3 * channels:
        raise ImageError(f"the file has {channels} channels; 1 to {CHANNELS} are supported")
    if any(parts[1::3].strip(b"\1")) or any(parts[2::3].strip(b"\1")):
        raise ImageError("the channels differ in size (subsampling); save the file without subsampling")
    if len(set(parts[::3])) > 1 or parts[0] & 0x80 or parts[0] >= 16:
        raise ImageError(
            f"the channels have different types, are signed, or have more than 16 bits (type bytes {parts[::3][:4]!r})"
            "; save all channels as unsigned integers of one type, with at most 16 bits"
        )
    if not wide or not high:
        raise ImageError("the file is damaged: its tiles have a width or height of 0 px")
    tiles = -(-right // wide) * -(-bottom // high)
    size = _Size(bottom - top, right - left, channels, parts[0] + 1, tiles, min(wide, right), min(high, bottom))
    if tiles * (TILE + CHANNEL * channels) > FEW + size.samples:
        raise ImageError(
            f"the file has {tiles} tiles of {wide} x {high} px, which need too much memory; save it with larger tiles"
        )
    return size


def _markers(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield all markers in the headers of a codestream, each with its content; skip the compressed tile data."""
    at, tile = 2, 0
    while True:
        if at + 2 > len(data):
            raise ImageError("the file is truncated")
        (marker,) = struct.unpack_from(">H", data, at)
        if marker == EOC:
            return
        if marker == SOD:
            (length,) = struct.unpack_from(">I", data, tile + 6)
            if length == 0 and data.endswith(b"\xff\xd9"):  # length 0: the last tile reaches the end of the file
                return
            if not tile or length < at + 2 - tile:
                raise ImageError(f"the file is damaged at byte {tile}")
            at = tile + length
            continue
        if at + 4 > len(data) or marker >> 8 != 0xFF:
            raise ImageError(f"the file is damaged or truncated at byte {at}")
        (length,) = struct.unpack_from(">H", data, at + 2)
        part = data[at + 4 : at + 2 + length]
        if length < 2 or len(part) < length - 2:
            raise ImageError(f"the file is damaged or truncated at byte {at}")
        tile = at if marker == SOT else tile
        yield marker, part
        at += 2 + length


def _doubt_style(size: _Size, own_precincts: int, style: bytes) -> None:
    """Refuse precincts and code-blocks that are so small that OpenJPEG would need too much memory to decode them.

    Also refuse too many levels and too large code-blocks.
    `style` holds the last bytes of a COD or COC marker segment, starting with the number of levels.
    """
    levels, blocks, precincts = style[0], style[1:3], style[5 : 6 + style[0]]
    if levels > LEVELS or min(blocks) < SMALLEST_BLOCK or sum(blocks) > 8:
        raise ImageError(
            f"the number of wavelet decompositions ({levels}) or the size of the code-blocks is not supported; save "
            f"the file with at most {LEVELS} decompositions, and with code-blocks of 64 x 64"
        )
    count = 0
    for level in range(levels + 1) if own_precincts else ():
        wide, high = (-(-side // 2 ** (levels - level)) for side in (size.tile_width, size.tile_height))
        count += -(-wide // 2 ** (precincts[level] & 15)) * -(-high // 2 ** (precincts[level] >> 4))
    if count * size.tiles * size.channels * PRECINCT > FEW + 4 * size.samples:
        raise ImageError(
            f"the file has {count * size.tiles} precincts, which need too much memory; save it with larger precincts"
        )
