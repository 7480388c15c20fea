"""GIF files of one frame: numbers of a palette, which is the file's or the frame's own."""

from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt

from . import headers
from .headers import Header, ImageError

LZW = 2560  # bytes that a byte of the file can stand for at most, as in TIFF
EXTENSION, FRAME, END = 0x21, 0x2C, 0x3B
CONTROL = 0xF9  # the extension that names a transparent colour

Colours = npt.NDArray[np.uint8]  # (N, 3)


class _Frame(NamedTuple):
    """The only frame: its size, its colours, and which of them is transparent."""

    height: int
    width: int
    palette: Colours
    clear: int | None


def header(data: bytes) -> Header:
    """Header of a GIF; one whose palette is grey is grey, for GIF has no other grey.

    Raises
    ------
    ImageError
        It is truncated or damaged, has several frames, or a frame that does not fill it.
    """
    frame = _frame(data)
    return Header(frame.height, frame.width, 1 if _is_grey(frame.palette) else 3, "uint8")


def clear(data: bytes) -> bool:
    """Whether a colour other than the first is called transparent; ImageError as in `header`."""
    return bool(_frame(data).clear)


def density(start: bytes) -> tuple[float, float] | None:
    """Pixels per unit of length in x and y, as the first bytes of a GIF say; None where they do not."""
    ratio = start[12] if len(start) > 12 else 0
    return (1.0, (ratio + 15) / 64) if ratio else None


def numbers(data: bytes) -> tuple[npt.NDArray[np.uint8], Colours]:
    """The number of each pixel (H, W), and the colours that numbers stand for; ImageError as in `header`."""
    frame = _frame(data)
    indices: npt.NDArray[Any] = imagecodecs.gif_decode(data, 0, asrgb=False)
    if indices.shape != (frame.height, frame.width):
        raise ImageError(f"its frame is of shape {indices.shape}, not {frame.height} x {frame.width}")
    if indices.max(initial=0) >= len(frame.palette):
        raise ImageError(f"it uses colour {indices.max()}, but has {len(frame.palette)}")
    return indices, frame.palette


def shown(data: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Colours or greys (H, W, C), and 255 where these are opaque, where a colour is called transparent."""
    indices, palette = numbers(data)
    clear = _frame(data).clear
    pixels = palette[indices]
    opaque = None if clear is None else np.where(indices == clear, 0, 255).astype(np.uint8)
    return pixels[..., :1] if _is_grey(palette) else pixels, opaque


def _is_grey(palette: Colours) -> bool:
    return bool((palette == palette[:, :1]).all())


def _frame(data: bytes) -> _Frame:
    """The frame, after a walk over all parts of the file."""
    if len(data) < 13:
        raise ImageError("it is truncated")
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (6, 8))
    shared, at = _palette(data, 13, data[10])
    found: list[tuple[tuple[int, int, int, int], Colours]] = []
    clear: int | None = None
    while (part := _byte(data, at)) != END:
        if part == FRAME:
            left, top, wide, high = (int.from_bytes(data[at + n : at + n + 2], "little") for n in (1, 3, 5, 7))
            own, at = _palette(data, at + 10, _byte(data, at + 9))
            found.append(((left, top, wide, high), own if len(own) else shared))
            at = _after_blocks(data, at + 1)
        elif part == EXTENSION:
            if _byte(data, at + 1) == CONTROL and _byte(data, at + 3) & 1 and not found:
                clear = _byte(data, at + 6)
            at = _after_blocks(data, at + 2)
        else:
            raise ImageError(f"it is damaged at byte {at}")
    if len(found) != 1:
        raise ImageError(f"it holds {len(found)} frames, and an image has one; save each frame as a file of its own")
    place, palette = found[0]
    if place != (0, 0, width, height):
        raise ImageError(
            f"its frame of {place[2]} x {place[3]} px does not fill its {width} x {height} px; save it anew"
        )
    if not len(palette):
        raise ImageError("it has no colours; save it anew")
    headers.doubt(height, width, height * width, height * width * 4, LZW * len(data))
    return _Frame(height, width, palette, clear)


def _palette(data: bytes, at: int, flags: int) -> tuple[Colours, int]:
    """The colours that lie at `at` where `flags` say that there are some, and where they end."""
    end = at + 3 * 2 ** ((flags & 7) + 1) * (flags >> 7)
    if end > len(data):
        raise ImageError("it is truncated")
    return np.frombuffer(data[at:end], np.uint8).reshape(-1, 3), end


def _after_blocks(data: bytes, at: int) -> int:
    """Where a chain of blocks, each of which begins with its length, ends."""
    while length := _byte(data, at):
        at += 1 + length
    return at + 1


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise ImageError("it is truncated")
    return data[at]
