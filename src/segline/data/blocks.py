"""Large arrays in parts, so that work on them needs the memory of a part: strips of rows, and parts with a margin."""

from collections.abc import Iterator

STRIP = 1 << 19  # pixels in a strip: what is worked out for one stays in the processor's cache


def strips(shape: tuple[int, ...], pixels: int = STRIP) -> Iterator[slice]:
    """The rows of an array (H, W, ...), as many at a time as hold `pixels` at most, but one at least."""
    height, width = shape[:2]
    rows = max(1, pixels // max(1, width))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def parts(length: int, most: int, step: int = 1) -> list[slice]:
    """An axis in parts of about one size, `most` at most; all begin at a multiple of `step`, which divides `most`."""
    assert most % step == 0
    size = -(-length // -(-length // most)) if length else most
    size += -size % step
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def grown(part: slice, margin: int, length: int) -> tuple[slice, slice]:
    """`part` of an axis with a margin on both sides where there is room, and where in that the part lies."""
    start = max(0, part.start - margin)
    return slice(start, min(part.stop + margin, length)), slice(part.start - start, part.stop - start)
