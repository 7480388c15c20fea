"""Run lengths, as COCO writes masks: column by column from the upper left, background first."""

from collections.abc import Sequence

import numpy as np

from segline.data.formats.regions import Region, Shape

FIRST, BITS = 48, 5  # the character that is 0; bits of a number in one character
LONGEST = 13  # characters of a number; what has more bits than 64 is no run length
MORE, SIGN = 1 << BITS, 1 << (BITS - 1)


class RunsError(ValueError):
    """Run lengths that are no mask; the message says which and why."""


def decompress(text: str, pixels: int | None = None) -> list[int]:
    """Run lengths of COCO's compressed string: from the fourth on each is the change since the last but one.

    Parameters
    ----------
    pixels : of the image, where they are known: a run beyond them is refused at once.

    Raises
    ------
    RunsError
        A character that is none of theirs, a number that breaks off or is absurd, or more runs than pixels.
    """
    counts: list[int] = []
    value = shift = 0
    for place, character in enumerate(text):
        bits = ord(character) - FIRST
        if not 0 <= bits < 2 * MORE:
            raise RunsError(f"counts hold {character!r} at place {place}, which no run length has")
        if shift >= LONGEST * BITS:
            raise RunsError(f"counts hold a number of more than {LONGEST} characters at place {place}")
        value |= (bits % MORE) << shift
        shift += BITS
        if bits & MORE:
            continue
        if bits & SIGN:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        if pixels is not None:
            _check(counts[-1:], pixels)
            if len(counts) > 2 * pixels + 2:
                raise RunsError(f"counts hold more runs than the image has pixels, {pixels}")
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
    if len(counts) > 2 * pixels + 2:
        raise RunsError(f"counts hold {len(counts)} runs; the image has {pixels} pixels")
    _check(counts, pixels)
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


def _check(counts: Sequence[int], pixels: int) -> None:
    """Refuse a run that no image of so many pixels has, before anything is worked out with it."""
    wrong = next((run for run in counts if not 0 <= run <= pixels), None)
    if wrong is not None:
        said = wrong if abs(wrong) < 10**30 else f"{'more' if wrong > 0 else 'less'} than {'-' * (wrong < 0)}10^30"
        raise RunsError(f"counts hold a run of {said} pixels; the image has {pixels}")
