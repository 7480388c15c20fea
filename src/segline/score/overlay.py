"""Draw pictures of predictions: outlines over the image, tinted errors, and contact sheets.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

RGB = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

CLASS_COLOURS: tuple[Colour, ...] = ((240, 228, 66), (86, 180, 233), (0, 158, 115), (230, 159, 0), (255, 255, 255))
"""Outline colours of classes 1, 2, ...; a sixth class reuses the first colour."""
MISSED: Colour = (0, 114, 178)
"""Tint of foreground that was predicted as background."""
FALSE: Colour = (213, 94, 0)
"""Tint of background that was predicted as foreground."""
CONFUSED: Colour = (204, 121, 167)
"""Tint of foreground that was predicted as another foreground class."""

BRIGHTNESS = 0.75
"""Brightness factor for the image below the outlines; yellow outlines would be invisible on white."""
SATURATION = 0.5
"""Saturation factor for the image below the outlines, so that stains do not compete with the colours above."""
OPACITY = 0.7
"""Opacity of the tints."""
MARGIN = 8
TITLE_HEIGHT = 22
KEY_WIDTH = 18
"""Distance in px from the left edge of a coloured square in the legend to the name."""
FONT_SIZE = 14
PAPER: Colour = (255, 255, 255)
INK: Colour = (32, 32, 32)


def view(image: npt.NDArray[Any]) -> RGB:
    """Stretch the contrast of a raw image (H, W, C) of any pixel type for display; return (H, W, 3) uint8.

    Of three or more channels, the first three are red, green and blue; otherwise the first is grey. All channels get
    the same stretch, from the 0.5 to the 99.5 percentile, so that hues are kept. Values that are not finite count as 0.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    values = np.nan_to_num(shown.astype(np.float32), nan=0, posinf=0, neginf=0)
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    if low == high:
        # Both percentiles are equal if nearly all pixels have the same value. Use the minimum and maximum instead.
        low, high = float(values.min()), float(values.max())
    with np.errstate(over="ignore", invalid="ignore"):  # of float images with extreme values
        stretched: RGB = np.clip((values - low) * (255 / (high - low or 1)), 0, 255).round().astype(np.uint8)
    return stretched if stretched.shape[2] == 3 else stretched.repeat(3, axis=2)


def overlay(
    image: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    truth: npt.NDArray[Any] | None = None,
    ignore: int | None = None,
    objects: npt.NDArray[Any] | None = None,
) -> RGB:
    """Outline the predicted classes or objects over the image and, if `truth` is given, tint the errors.

    Parameters
    ----------
    image
        (H, W, C), any type.
    predicted, truth
        (H, W) class ids, 0 = background. The kinds of errors are described at MISSED, FALSE and CONFUSED.
    ignore
        Pixels with this true id get no tint and are darkened.
    objects
        (H, W) ids of predicted objects, 0 = background. Each object is outlined in the colour of its class.

    Returns
    -------
    (H, W, 3) uint8. Outlines lie inside their object; they are one pixel wide for images up to 600 pixels.

    Raises
    ------
    ValueError
        The image and the labels differ in height or width.
    """
    for name, labels in (("predicted", predicted), ("truth", truth), ("objects", objects)):
        if labels is not None and labels.shape != image.shape[:2]:
            raise ValueError(
                f"{name} has shape {labels.shape}, but the image has shape {image.shape[:2]}; the shapes must be equal"
            )
    picture = _muted(view(image))
    if truth is not None:
        picture = _tinted(picture, predicted, truth, ignore)
    edge = _edges(predicted if objects is None else objects) & (predicted > 0)
    colours = np.array(CLASS_COLOURS, np.uint8)
    picture[edge] = colours[(predicted[edge].astype(np.intp) - 1) % len(colours)]
    return picture


def legend(classes: Mapping[int, str], errors: bool = True) -> list[tuple[str, Colour]]:
    """Return names and colours for the legend: foreground classes (`classes` maps id to name) and kinds of errors."""
    names = {number: name for number, name in sorted(classes.items()) if number > 0}
    entries = [(name, CLASS_COLOURS[(number - 1) % len(CLASS_COLOURS)]) for number, name in names.items()]
    if errors:
        entries += [("missed", MISSED), ("false", FALSE)]
    if errors and len(names) > 1:
        entries += [("other class", CONFUSED)]
    return entries


def gallery(
    panels: Sequence[tuple[str, RGB]], columns: int | None = None, legend: Sequence[tuple[str, Colour]] = ()
) -> RGB:
    """Arrange titled pictures (H, W, 3) uint8 of any sizes on a sheet, row by row, with the legend below.

    Pictures are scaled to fit equal squares of 256 to 512 pixels, small pictures by whole factors without smoothing.
    Without `columns`, there are about as many columns as rows.
    """
    if not panels:
        raise ValueError("there is no picture to arrange; pass at least one")
    columns = min(columns or math.ceil(math.sqrt(len(panels))), len(panels))
    side = min(max(256, *(size for _, picture in panels for size in picture.shape[:2])), 512)
    pictures = [_fitted(picture, side) for _, picture in panels]
    widths = [max(picture.shape[1] for picture in pictures[column::columns]) for column in range(columns)]
    heights = [
        max(picture.shape[0] for picture in pictures[start : start + columns])
        for start in range(0, len(pictures), columns)
    ]
    lefts, tops = _starts(widths, MARGIN), _starts(heights, MARGIN + TITLE_HEIGHT)
    corners = _legend_corners([name for name, _ in legend], lefts[-1])
    bottom = max((y + TITLE_HEIGHT for _, y in corners), default=0)
    sheet = Image.new("RGB", (lefts[-1], tops[-1] + bottom), PAPER)
    for index, (title, _) in enumerate(panels):
        row, column = divmod(index, columns)
        _write(sheet, (lefts[column], tops[row]), title, widths[column])
        sheet.paste(Image.fromarray(pictures[index]), (lefts[column], tops[row] + TITLE_HEIGHT))
    for (x, y), (name, colour) in zip(corners, legend, strict=True):
        ImageDraw.Draw(sheet).rectangle((x, tops[-1] + y + 2, x + 12, tops[-1] + y + 14), colour, INK)
        _write(sheet, (x + KEY_WIDTH, tops[-1] + y), name, sheet.width - MARGIN - x - KEY_WIDTH)
    return np.array(sheet)


def _starts(sizes: Sequence[int], gap: int) -> list[int]:
    """Return positions in px along one axis: the start of each row or column of pictures, then the end of the sheet."""
    return [MARGIN, *(MARGIN + end for end in accumulate(size + gap for size in sizes))]


def _muted(picture: RGB) -> RGB:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., np.newaxis]
    mixed = BRIGHTNESS * (SATURATION * picture + (1 - SATURATION) * grey)
    return mixed.round().astype(np.uint8)


def _tinted(picture: RGB, predicted: npt.NDArray[Any], truth: npt.NDArray[Any], ignore: int | None) -> RGB:
    counted = np.ones(truth.shape, np.bool_) if ignore is None else truth != ignore
    wrong = counted & (predicted != truth)
    colours = np.zeros(picture.shape, np.float32)
    colours[wrong] = CONFUSED
    colours[wrong & (predicted == 0)] = MISSED
    colours[wrong & (truth == 0)] = FALSE
    # Mix each tint with a greyscale version of the picture, so that tints look the same on all stains.
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., np.newaxis]
    tinted = np.where(wrong[..., np.newaxis], OPACITY * colours + (1 - OPACITY) * grey, picture)
    tinted[~counted] /= 3
    return tinted.round().astype(np.uint8)


def _edges(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return the outline pixels. If two ids touch, only the higher id is outlined. The image edge has no outline."""
    width = max(1, round(min(labels.shape) / 400))
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    # cv2.erode does not support int32. Use float32, which is exact for ids below 2**24.
    numbers = labels.astype(np.float32)
    edges: npt.NDArray[np.bool_] = cv2.erode(numbers, cross, iterations=width) < numbers
    return edges


def _fitted(picture: RGB, side: int) -> RGB:
    """Scale a picture so that its longer side is at most `side` pixels."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture.repeat(int(scale), axis=0).repeat(int(scale), axis=1)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _write(sheet: Image.Image, corner: tuple[int, int], text: str, width: int) -> None:
    """Write one line of text, shortened to `width` pixels if necessary."""
    font = ImageFont.load_default(FONT_SIZE)
    if font.getlength(text) > width:
        while text and font.getlength(text + "...") > width:
            text = text[:-1]
        text += "..."
    ImageDraw.Draw(sheet).text(corner, text, INK, font)


def _legend_corners(names: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Return the position of each entry in a legend `width` px wide; an entry that does not fit starts a new line."""
    font = ImageFont.load_default(FONT_SIZE)
    corners, x, y = [], MARGIN, 0
    for name in names:
        needed = KEY_WIDTH + math.ceil(font.getlength(name))
        if x > MARGIN and x + needed > width - MARGIN:
            x, y = MARGIN, y + TITLE_HEIGHT
        corners.append((x, y))
        x += needed + 2 * MARGIN
    return corners
