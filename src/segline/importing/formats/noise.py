"""Values of masks that nobody drew: compression, smoothing or resizing left them beside those that were drawn.

Such values are refused, never taken for classes. A value that was drawn, though it be rare, forms areas or lines.
"""

from collections.abc import Sequence
from math import ceil

from segline.data.dataset import IGNORE
from segline.importing.formats import LayoutError, Wishes, some
from segline.importing.formats.census import MOST_CLASSES, SOFT, Census

NEAR = 8 / 255  # of the highest value: so far compression with losses moves a value
MOST_SHADES = 256  # values that are compared each with each
STRETCHED = 200  # a highest value from which on values are shades of grey rather than numbers of classes
CLOSE, CLOSE_RARE = 3, 2  # so close to another, a shade of grey that is so many times rarer is the same shade
RARE = 20  # so many times rarer than a value near it, or than all values, a value may be noise ...
SPECKS = 100  # ... and so many times rarer, where values are small numbers


def noisy(census: Census, values: Sequence[int]) -> list[int]:
    """Those of `values`, which are ascending, that are noise beside the others."""
    top = values[-1]
    small = top <= MOST_CLASSES
    near = 0 if small else ceil(NEAR * top)
    foreground = sum(census.pixels[value] for value in values if value)
    return [
        value
        for value in values
        if value
        and (
            _beside_another(census, values, value, near)
            or _without_area(census, value, foreground, small, len(values) > 2)
        )
    ]


def _beside_another(census: Census, values: Sequence[int], value: int, near: int) -> bool:
    """Whether `value` is within `near` of one that is much more frequent."""
    solid = 2 * census.solid[value] >= max(1, census.textured[value])
    if (values[-1] < STRETCHED and solid) or len(values) > MOST_SHADES:
        return False
    count = census.pixels[value]
    return any(
        0 < abs(value - other) <= near
        and (CLOSE_RARE if abs(value - other) <= CLOSE < near else RARE) * count < census.pixels[other]
        for other in values
    )


def _without_area(census: Census, value: int, foreground: int, small: bool, several: bool) -> bool:
    """Whether `value` forms no areas, but edges between two others, or specks."""
    pixels, textured = census.pixels[value], census.textured[value]
    if not several or 4 * census.solid[value] >= textured:
        return False
    edges, specks = 2 * census.edge[value] >= textured, 2 * census.linked[value] < textured
    if small:
        return (edges or specks) and SPECKS * pixels < foreground
    return edges or (specks and RARE * pixels < foreground)


def refuse_smooth(census: Census, values: Sequence[int], wishes: Wishes) -> None:
    """Refuse more greys than there are classes, if most of them are soft edges or noise of the others.

    Raises
    ------
    LayoutError
        The masks are anti-aliased, blurred or compressed with losses.
    """
    top = max(values)
    white = max(top, IGNORE)
    greys = [value for value in values if 0 < value < white]
    if len(greys) <= 2 or top <= MOST_CLASSES:
        return
    pixels = sum(census.pixels[value] for value in greys)
    blurred = wishes.labels != "instances" and top > IGNORE // 2 and 2 * census.blurred > pixels
    if not (blurred or _of_two_shades(census, values) or _of_several_shades(census, values, greys)):
        return
    count, worst = census.softest
    middle = white // 2
    raise LayoutError(
        f"{worst}: {count} pixels are grey, neither 0 nor {white} (anti-aliased, blurred or compressed with losses), "
        f"so they may be either; say --threshold {middle} to take what is above {middle} as foreground, or save the "
        "masks without smoothing; if each grey is a class, say so with --colours"
    )


def _of_two_shades(census: Census, values: Sequence[int]) -> bool:
    """Whether there are many values, most pixels of them black or white."""
    top = values[-1]
    if top < STRETCHED or len(values) <= MOST_CLASSES + 1 or 2 * census.masks_of[top] < census.filled:
        return False
    low, high = (share * top for share in SOFT)
    between = sum(census.pixels[value] for value in values if low <= value < high)
    return between < sum(census.pixels[value] for value in values if value >= high)


def _of_several_shades(census: Census, values: Sequence[int], greys: Sequence[int]) -> bool:
    """Whether there are many values, most of them noise beside a few that form areas.

    Objects of one pixel each are no noise: beside them there are no areas.
    """
    if len(values) <= MOST_CLASSES + 1:
        return False
    noise = set(noisy(census, values))
    rest = [value for value in values if value and value not in noise]
    solid, textured = (sum(counts[value] for value in rest) for counts in (census.solid, census.textured))
    return 2 * len(noise) > len(greys) and 4 * solid > textured


def refuse_white_beside_ids(census: Census, values: Sequence[int], wishes: Wishes) -> None:
    """Refuse 255 beside small values, unless `wishes` say what it is: ignored, foreground, or an object.

    Raises
    ------
    LayoutError
        255 may be pixels that do not count, foreground beside noise, or noise.
    """
    small = [value for value in values if 0 < value < IGNORE]
    if values[-1] != IGNORE or not small or small[-1] > MOST_CLASSES or wishes.labels == "instances":
        return
    if not census.beside_ignore:
        raise LayoutError(
            f"the masks hold {some(values)}, but none of them {IGNORE} beside another class: do some say {IGNORE} "
            f"where others say {small[-1]}? make them alike, or say --ignore {IGNORE} if such pixels do not count"
        )
    counts = some([f"{value} ({census.pixels[value]} px)" for value in (*small, IGNORE)])
    middle = IGNORE // 2 if census.pixels[IGNORE] > sum(census.pixels[value] for value in small) else 0
    raise LayoutError(
        f"{census.most_of[IGNORE][1]}: {IGNORE} beside small values may mean pixels that do not count, or one of both "
        f"may be noise; the masks hold {counts}. Say --ignore {IGNORE} if these pixels do not count, --threshold "
        f"{middle} if there is only foreground, or give the class of each value with --colours"
    )


def refuse_noisy_classes(census: Census, values: Sequence[int], wishes: Wishes) -> None:
    """Refuse few values, some of which are noise, unless `wishes` name each of these as a class.

    Raises
    ------
    LayoutError
        Some values are noise.
    """
    if len(values) > MOST_CLASSES + 1:
        return
    noise = noisy(census, values)
    numbers = {value: value if values[-1] <= MOST_CLASSES else place for place, value in enumerate(_with_0(values))}
    if not noise or all(numbers[value] in wishes.names for value in noise):
        return
    named = " ".join(f"--class {numbers[value]}=NAME" for value in noise[:3]) + " ..." * (len(noise) > 3)
    raise LayoutError(
        f"{_noise(census, values, noise)}, or save the masks without losses; if {'this' if len(noise) == 1 else 'each'}"
        f" is a class nevertheless, name it: {named}"
    )


def refuse_noisy_instances(census: Census, values: Sequence[int]) -> None:
    """Refuse masks that are said to hold objects, but hold one value nearly everywhere and noise beside it.

    Raises
    ------
    LayoutError
        Some values are noise.
    """
    if not 2 < len(values) <= MOST_CLASSES + 1 or values[-1] <= MOST_CLASSES:
        return
    foreground = sum(census.pixels[value] for value in values if value)
    most = max((value for value in values if value), key=lambda value: census.pixels[value])
    noise = noisy(census, values)
    bulk = 10 * census.pixels[most] > 9 * foreground and 2 * census.masks_of[most] > census.filled
    if noise and bulk and most not in noise:
        raise LayoutError(f"{_noise(census, values, noise)}, or save the masks without losses")


def _with_0(values: Sequence[int]) -> list[int]:
    return sorted({0, *values})


def _noise(census: Census, values: Sequence[int], noise: Sequence[int]) -> str:
    """Which values are noise, where most of their pixels are, and the flag that helps."""
    counts = some([f"{value} ({census.pixels[value]} px)" for value in noise], 5)
    file = max((census.most_of[value] for value in noise), key=lambda found: found[0])[1]
    rest = [value for value in values if value not in noise]
    if len(rest) <= 2:
        middle = sum(_with_0(rest)[-2:]) // 2
        flag = f"say --threshold {middle} to take what is above {middle} as foreground"
    else:
        flag = "give the class of each value with --colours"
    rare = "is rare and lies" if len(noise) == 1 else "are rare and lie"
    return (
        f"{file}: the masks hold {some(values)}, but {counts} {rare} as "
        f"compression, smoothing or resizing leaves values beside {some(rest)}: {flag}"
    )
