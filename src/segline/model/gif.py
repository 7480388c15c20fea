"""Read GIF files with one frame, as colours or as palette indices."""

from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt

from . import headers
from .headers import Header, ImageError

LZW = 2560  # largest possible expansion, decoded bytes per compressed byte, as in TIFF
EXTENSION, FRAME, END = 0x21, 0x2C, 0x3B
CONTROL = 0xF9  # type of the GIF extension that declares a transparent colour

Colours = npt.NDArray[np.uint8]  # (N, 3)


class _Frame(NamedTuple):
    """Size, palette and index of the transparent colour of the only frame of a GIF."""

    height: int
    width: int
    palette: Colours
    clear: int | None


def header(data: bytes) -> Header:
    """Return the header of a GIF; if the palette has only greys, the image has one channel.

    Raises
    ------
    ImageError
        The GIF is truncated or damaged, has several frames, or has a frame that does not fill the image.
    """
    frame = _frame(data)
    return Header(frame.height, frame.width, 1 if _is_grey(frame.palette) else 3, "uint8")


def clear(data: bytes) -> bool:
    """Return whether a GIF has a transparent colour other than palette colour 0; raise the same errors as `header`."""
    return bool(_frame(data).clear)


def density(start: bytes) -> tuple[float, float] | None:
    """Return the pixel densities in x and y from the first bytes of a GIF; None if the GIF does not declare them.

    A GIF declares only the ratio of the two densities, so only this ratio has a meaning.
    """
    ratio = start[12] if len(start) > 12 else 0
    return (1.0, (ratio + 15) / 64) if ratio else None


def numbers(data: bytes) -> tuple[npt.NDArray[np.uint8], Colours]:
    """Return two values: the palette index of each pixel (H, W) and the palette; raise the same errors as `header`."""
    frame = _frame(data)
    indices: npt.NDArray[Any] = imagecodecs.gif_decode(data, 0, asrgb=False)
    if indices.shape != (frame.height, frame.width):
        raise ImageError(f"the frame has shape {indices.shape}, but the header declares {frame.height} x {frame.width}")
    if indices.max(initial=0) >= len(frame.palette):
        raise ImageError(
            f"a pixel has palette index {indices.max()}, but the palette has only {len(frame.palette)} colours"
        )
    return indices, frame.palette


def shown(data: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Return two values: pixels (H, W, C) and their alpha (H, W), 0 or 255; alpha is None if nothing is transparent."""
    indices, palette = numbers(data)
    clear = _frame(data).clear
    pixels = palette[indices]
    opaque = None if clear is None else np.where(indices == clear, 0, 255).astype(np.uint8)
    return pixels[..., :1] if _is_grey(palette) else pixels, opaque


def _is_grey(palette: Colours) -> bool:
    return bool((palette == palette[:, :1]).all())


def _frame(data: bytes) -> _Frame:
    """Read all blocks of a GIF, and return the only frame; raise the same errors as `header`."""
    if len(data) < 13:
        raise ImageError("the file is truncated")
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (6, 8))
    shared, at = _palette(data, 13, data[10])
    frames: list[tuple[tuple[int, int, int, int], Colours]] = []
    clear: int | None = None
    while (part := _byte(data, at)) != END:
        if part == FRAME:
            left, top, wide, high = (int.from_bytes(data[at + n : at + n + 2], "little") for n in (1, 3, 5, 7))
            own, at = _palette(data, at + 10, _byte(data, at + 9))
            frames.append(((left, top, wide, high), own if len(own) else shared))
            at = _after_blocks(data, at + 1)
        elif part == EXTENSION:
            if _byte(data, at + 1) == CONTROL and _byte(data, at + 3) & 1 and not frames:
                clear = _byte(data, at + 6)
            at = _after_blocks(data, at + 2)
        else:
            raise ImageError(f"the file is damaged at byte {at}")
    if len(frames) != 1:
        raise ImageError(f"the file contains {len(frames)} frames instead of one; save each frame as a separate file")
    place, palette = frames[0]
    if place != (0, 0, width, height):
        raise ImageError(
            f"the frame of {place[2]} x {place[3]} px does not fill the image of {width} x {height} px; "
            "save the image again"
        )
    if not len(palette):
        raise ImageError("the file has no palette; save it again")
    headers.doubt(height, width, height * width, height * width * 4, LZW * len(data))
    return _Frame(height, width, palette, clear)


def _palette(data: bytes, at: int, flags: int) -> tuple[Colours, int]:
    """Return two values: the palette at offset `at` (empty if `flags` declare none), and the offset where it ends."""
    end = at + 3 * 2 ** ((flags & 7) + 1) * (flags >> 7)
    if end > len(data):
        raise ImageError("the file is truncated")
    return np.frombuffer(data[at:end], np.uint8).reshape(-1, 3), end


def _after_blocks(data: bytes, at: int) -> int:
    """Return the offset of the first byte after a chain of data blocks; each block begins with its length."""
    while length := _byte(data, at):
        at += 1 + length
    return at + 1


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise ImageError("the file is truncated")
    return data[at]
