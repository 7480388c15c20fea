"""Run lengths, as COCO writes masks: column by column from the upper left, background first."""

from collections.abc import Sequence

import numpy as np

from segline.data.formats.regions import Region, Shape

FIRST, BITS = 48, 5  # the character that is 0; bits of a number in one character
MORE, SIGN = 1 << BITS, 1 << (BITS - 1)


class RunsError(ValueError):
    """Run lengths that are no mask; the message says which and why."""


def decompress(text: str) -> list[int]:
    """Run lengths of COCO's compressed string: from the fourth on each is the change since the last but one.

    Raises
    ------
    RunsError
        A character that is none of theirs, or a number that breaks off.
    """
    counts: list[int] = []
    value = shift = 0
    for place, character in enumerate(text):
        bits = ord(character) - FIRST
        if not 0 <= bits < 2 * MORE:
            raise RunsError(f"counts hold {character!r} at place {place}, which no run length has")
        value |= (bits % MORE) << shift
        shift += BITS
        if bits & MORE:
            continue
        if bits & SIGN:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise RunsError("counts break off within a number; the string was cut")
    return counts


def region(counts: Sequence[int], shape: Shape) -> Region:
    """The object that run lengths `counts` describe in an image of `shape`.

    Raises
    ------
    RunsError
        They do not add up to the pixels of the image, or one is below 0.
    """
    height, width = shape
    pixels = height * width
    wrong = [run for run in counts if not 0 <= run <= pixels]
    if wrong:
        raise RunsError(f"counts hold a run of {wrong[0]} pixels; the image has {width}x{height} = {pixels}")
    if sum(counts) != pixels:
        raise RunsError(f"counts add up to {sum(counts)} pixels, but the image has {width}x{height} = {pixels}")
    runs = np.array(counts, np.int64)
    ends = np.cumsum(runs)
    if not runs[1::2].any():
        return Region.of(np.zeros(shape, bool))
    first, last = ends[0], ends[1::2][-1]
    # Only the columns that the object is in are unfolded: many small objects of a large image stay cheap.
    left, right = int(first // height), int(-(-last // height))
    stops = ends[1::2] - left * height
    starts = ends[::2][: stops.size] - left * height
    toggles = np.zeros((right - left) * height + 1, np.int8)
    np.add.at(toggles, starts, 1)
    np.add.at(toggles, stops, -1)
    columns = np.cumsum(toggles[:-1], dtype=np.int8).astype(bool).reshape(right - left, height)
    found = Region.of(columns.T)
    return Region(found.top, found.left + left, found.inside)
