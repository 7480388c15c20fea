"""Detect and refuse noise in masks: values that nobody drew, produced by compression, smoothing or resizing.

A noise value is never imported as a class. A drawn value, even a rare one, forms areas or lines.
"""

from collections.abc import Sequence
from math import ceil

from segline.data.dataset import IGNORE
from segline.importing.formats.census import MOST_CLASSES, SOFT, Census
from segline.importing.layout import ImportOptions, LayoutError, first_few

NEAR = 8 / 255  # lossy compression changes a value by at most this share of the highest value
MOST_SHADES = 256  # if there are more values than this, pairs of values are not compared
STRETCHED = 200  # if the highest value is at least this, values are shades of grey, not class ids
CLOSE, CLOSE_RARE = 3, 2  # a shade is noise if a shade within CLOSE of it is more than CLOSE_RARE times as frequent
RARE = 20  # a value may be noise if it is this many times rarer than a close value, or than the foreground
SPECKS = 100  # like RARE, but for masks that hold only small numbers


def noisy(census: Census, values: Sequence[int]) -> list[int]:
    """Return the `values` that are noise: values close to a much more frequent value, and values that form no areas.

    `values` must be in ascending order.
    """
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
    """Return whether another value is much more frequent than `value`, and differs from it by at most `near`."""
    solid = 2 * census.solid[value] >= max(1, census.textured[value])
    if (values[-1] < STRETCHED and solid) or len(values) > MOST_SHADES:
        return False
    count = census.pixels[value]
    return any(
        0 < abs(value - neighbour) <= near
        and (CLOSE_RARE if abs(value - neighbour) <= CLOSE < near else RARE) * count < census.pixels[neighbour]
        for neighbour in values
    )


def _without_area(census: Census, value: int, foreground: int, small: bool, several: bool) -> bool:
    """Return True if most pixels with the value `value` lie in small specks, or if most of them lie at edges.

    An edge lies between a lower and a higher value. A value in specks must also be rare; if `small` is True, so must a
    value at edges. If `several` is False, or if a quarter of the pixels lie in areas, the result is False.
    """
    pixels, textured = census.pixels[value], census.textured[value]
    if not several or 4 * census.solid[value] >= textured:
        return False
    edges, specks = 2 * census.edge[value] >= textured, 2 * census.linked[value] < textured
    if small:
        return (edges or specks) and SPECKS * pixels < foreground
    return edges or (specks and RARE * pixels < foreground)


def refuse_smooth(census: Census, values: Sequence[int], options: ImportOptions) -> None:
    """Refuse masks with several grey values if the grey comes mostly from soft edges or noise.

    Raises
    ------
    LayoutError
        The masks are anti-aliased, blurred or lossily compressed.
    """
    top = max(values)
    white = max(top, IGNORE)
    greys = [value for value in values if 0 < value < white]
    if len(greys) <= 2 or top <= MOST_CLASSES:
        return
    pixels = sum(census.pixels[value] for value in greys)
    blurred = options.labels != "instances" and top > IGNORE // 2 and 2 * census.blurred > pixels
    if not (blurred or _of_two_shades(census, values) or _of_several_shades(census, values, greys)):
        return
    count, worst = census.softest
    middle = white // 2
    raise LayoutError(
        f"{worst}: {count} pixels are grey, neither 0 nor {white} (anti-aliased, blurred or lossily compressed), "
        f"so their class is unclear. Add --threshold {middle} to take values above {middle} as foreground, or save the "
        "masks without smoothing. If each grey is a class, list the classes with --colours"
    )


def _of_two_shades(census: Census, values: Sequence[int]) -> bool:
    """Return whether the masks are nearly black and white: many values, but fewer grey pixels than white pixels."""
    top = values[-1]
    if top < STRETCHED or len(values) <= MOST_CLASSES + 1 or 2 * census.masks_of[top] < census.filled:
        return False
    low, high = (share * top for share in SOFT)
    between = sum(census.pixels[value] for value in values if low <= value < high)
    return between < sum(census.pixels[value] for value in values if value >= high)


def _of_several_shades(census: Census, values: Sequence[int], greys: Sequence[int]) -> bool:
    """Return True if the masks hold many values, most greys are noise, and the values that are not noise form areas.

    For masks with objects of one pixel each, the result is False, because the values that are not noise form no areas.
    """
    if len(values) <= MOST_CLASSES + 1:
        return False
    noise = set(noisy(census, values))
    rest = [value for value in values if value and value not in noise]
    solid, textured = (sum(counts[value] for value in rest) for counts in (census.solid, census.textured))
    return 2 * len(noise) > len(greys) and 4 * solid > textured


def refuse_white_beside_ids(census: Census, values: Sequence[int], options: ImportOptions) -> None:
    """Refuse masks that hold 255 and small values, unless `options` say what 255 means.

    Raises
    ------
    LayoutError
        The value 255 may mean ignored pixels, the foreground (and the small values are noise), or noise.
    """
    small = [value for value in values if 0 < value < IGNORE]
    if values[-1] != IGNORE or not small or small[-1] > MOST_CLASSES or options.labels == "instances":
        return
    if not census.beside_ignore:
        raise LayoutError(
            f"the masks hold the values {first_few(values)}, but no mask holds both {IGNORE} and another value above 0."
            f" If {IGNORE} and {small[-1]} mean the same class in different masks, use one value in all masks. If "
            f"{IGNORE} marks ignored pixels, add --ignore {IGNORE}"
        )
    counts = first_few([f"{value} ({census.pixels[value]} px)" for value in (*small, IGNORE)])
    middle = IGNORE // 2 if census.pixels[IGNORE] > sum(census.pixels[value] for value in small) else 0
    raise LayoutError(
        f"the masks hold the values {counts}; of all masks, {census.most_of[IGNORE][1]} has the most pixels with the "
        f"value {IGNORE}. If {IGNORE} marks ignored pixels, add --ignore {IGNORE}. If there is only one "
        f"foreground class, and the other values are noise, add --threshold {middle}: larger values are foreground. "
        "Otherwise give the class of each value with --colours"
    )


def refuse_noisy_classes(census: Census, values: Sequence[int], options: ImportOptions) -> None:
    """Refuse masks with few values if some values look like noise, unless --class names the class of each noise value.

    Raises
    ------
    LayoutError
        Some values are noise.
    """
    if len(values) > MOST_CLASSES + 1:
        return
    noise = noisy(census, values)
    numbers = {value: value if values[-1] <= MOST_CLASSES else place for place, value in enumerate(_with_0(values))}
    if not noise or all(numbers[value] in options.names for value in noise):
        return
    named = " ".join(f"--class {numbers[value]}=NAME" for value in noise[:3]) + " ..." * (len(noise) > 3)
    raise LayoutError(
        f"{_noise_message(census, values, noise)}, or save the masks in a lossless format; "
        f"to keep {'this value as a class' if len(noise) == 1 else 'these values as classes'}, add {named}"
    )


def refuse_noisy_instances(census: Census, values: Sequence[int]) -> None:
    """Refuse instance masks if one value fills nearly the whole foreground and some other values are noise.

    Masks that meet only one of these two conditions are not refused.

    Raises
    ------
    LayoutError
        The masks meet both conditions.
    """
    if not 2 < len(values) <= MOST_CLASSES + 1 or values[-1] <= MOST_CLASSES:
        return
    foreground = sum(census.pixels[value] for value in values if value)
    most = max((value for value in values if value), key=lambda value: census.pixels[value])
    noise = noisy(census, values)
    bulk = 10 * census.pixels[most] > 9 * foreground and 2 * census.masks_of[most] > census.filled
    if noise and bulk and most not in noise:
        raise LayoutError(f"{_noise_message(census, values, noise)}, or save the masks in a lossless format")


def _with_0(values: Sequence[int]) -> list[int]:
    return sorted({0, *values})


def _noise_message(census: Census, values: Sequence[int], noise: Sequence[int]) -> str:
    """Return a message that names the noise values, the mask with the most noise, and the option that helps."""
    counts = first_few([f"{value} ({census.pixels[value]} px)" for value in noise], 5)
    file = max((census.most_of[value] for value in noise), key=lambda pixels_and_file: pixels_and_file[0])[1]
    rest = [value for value in values if value not in noise]
    if len(rest) <= 2:
        middle = sum(_with_0(rest)[-2:]) // 2
        flag = f"add --threshold {middle} to take values above {middle} as foreground"
    else:
        flag = "give the class of each value with --colours"
    are = "is" if len(noise) == 1 else "are"
    return (
        f"{file}: the masks hold the values {first_few(values)}, but {counts} {are} rare and probably the result of "
        f"compression, smoothing or resizing of the values {first_few(rest)}; {flag}"
    )
