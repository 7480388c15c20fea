"""Decide how to read the masks of a source: as numbers, as greys, or as colours that stand for classes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from segline.data.dataset import IGNORE
from segline.data.imagefiles import Labels
from segline.importing.formats import noise, pixels
from segline.importing.formats.legends import CSV, LabelMap
from segline.importing.formats.pixels import GREY, Look, Packed, translated
from segline.importing.layout import Colour, ImportOptions, LayoutError, MaskSource, first_few

NEAR = 10  # lossy compression changes each channel of a colour by at most this much, on a scale of 0 to 255
MOST_COLOURS = 32  # if all masks together hold more colours than this, the colours are not classes
VOID = 0xE0E0C0  # the colour of index 255 (ignored pixels) in the Pascal VOC palette

Reading = Literal["numbers", "greys", "colours"]


@dataclass(frozen=True)
class Key:
    """Decision on how to read all masks of a source: as numbers, greys or colours.

    If colours mean classes, `classes` holds the class id of each colour, and `names` holds the name of each class
    id. `ignore` is the mask value of ignored pixels, if the palettes indicate this value.
    """

    reading: Reading
    reasons: tuple[str, ...] = ()
    classes: Mapping[Packed, int] = field(default_factory=dict)
    names: Mapping[int, str] | None = None
    ignore: int | None = None

    def mask(self, file: Path) -> MaskSource:
        """Return a MaskSource that reads the mask in `file` as this decision says."""
        if self.names is not None:
            return MaskSource(file, partial(_classes, file, self.classes))
        return MaskSource(file, partial(getattr(pixels, self.reading), file))


def key(looks: Iterable[Look], options: ImportOptions, labelmap: LabelMap | None = None) -> Key:
    """Decide how to read the masks of a source.

    `looks` yields the palette and colours of each mask. `labelmap` is the content of labelmap.txt, if the source has
    this file.

    Raises
    ------
    LayoutError
        There are too many colours for classes, or some colours are noise.
    """
    total = _Total()
    for look in looks:
        total.add(look)
    if options.colours:
        classes = {_packed(colour): class_id for colour, class_id in options.colours.items()}
        class_names = {class_id: options.names.get(class_id, "") for class_id in classes.values()}
        return Key("colours", ("classes by the table of colours (--colours)",), classes, class_names)
    if labelmap and _is_of(total, labelmap, options):
        classes = {_packed(colour): class_id for colour, class_id in labelmap.classes.items()}
        table = first_few([f"{text(colour)} -> {class_id}" for colour, class_id in classes.items()])
        class_names = {class_id: labelmap.names.get(class_id, "") for class_id in classes.values()}
        return Key("colours", (f"classes and their names by labelmap.txt: {table}",), classes, class_names)
    if not total.pixels or not (total.coloured or total.conflict or total.dark_last or (total.palette and total.greys)):
        return _of_numbers(total, options)
    if not any(colour % GREY for colour in total.pixels):
        why = "the indices are in another order" if total.dark_last else "the indices differ between masks"
        return Key("greys", (f"the mask values are the greys in the palettes, because {why}",))
    if options.labels == "instances":
        return Key("colours", ("each colour is an object",))
    return _guessed(total, options)


def _is_of(total: "_Total", labelmap: LabelMap, options: ImportOptions) -> bool:
    """Return whether to read the masks with the label map, that is, the colours and classes of labelmap.txt.

    A label map does not apply to grey masks without palette. With --labels instances, it does not apply either if the
    masks hold a colour that is not in the label map, because each colour is then an object.
    """
    unlisted = set(total.pixels) - {_packed(colour) for colour in labelmap.classes}
    return bool(total.coloured or total.palette) and not (unlisted and options.labels == "instances")


def _of_numbers(total: "_Total", options: ImportOptions) -> Key:
    reasons = ("the mask values are the palette indices",) if total.palette else ()
    if options.ignore is not None or total.palette.get(IGNORE) != VOID:
        return Key("numbers", reasons)
    why = f"palettes show index {IGNORE} as {text(VOID)}, the colour of ignored pixels in Pascal VOC"
    if options.labels == "instances":
        raise LayoutError(
            f"{why}, but instance masks cannot hold ignored pixels; set all pixels of index {IGNORE} to 0 (background)"
        )
    return Key("numbers", (*reasons, why), ignore=IGNORE)


@dataclass
class _Total:
    """Colours of all masks, with the number of pixels of each colour, and the common palette."""

    pixels: Counter[Packed] = field(default_factory=Counter)
    solid: Counter[Packed] = field(default_factory=Counter)
    linked: Counter[Packed] = field(default_factory=Counter)
    # For each colour: the largest number of pixels of this colour in one mask, and the file of that mask.
    most_of: dict[Packed, tuple[int, Path]] = field(default_factory=dict)
    palette: dict[int, Packed] = field(default_factory=dict)
    conflict: bool = False  # True if two masks give the same index different colours
    coloured: int = 0
    greys: int = 0  # number of masks whose three channels are equal
    most: tuple[int, Path] = (0, Path())  # largest number of colours in one mask, and the file of this mask

    def add(self, look: Look) -> None:
        self.coloured += look.coloured
        self.greys += look.palette is None and bool(look.pixels) and not look.coloured
        self.most = max(self.most, (len(look.pixels), look.file), key=_first)
        if len(self.pixels) <= 2**16:
            self.pixels.update(look.pixels)
            self.solid.update(look.solid)
            self.linked.update(look.linked)
        if len(self.most_of) <= MOST_COLOURS:
            for colour, count in look.pixels.items():
                self.most_of[colour] = max(self.most_of.get(colour, (0, look.file)), (count, look.file), key=_first)
        for index, colour in (look.palette or {}).items():
            self.conflict |= self.palette.setdefault(index, colour) != colour

    @property
    def dark_last(self) -> bool:
        """True if the palette is grey, but its greys do not ascend with the index."""
        shown = [colour for _, colour in sorted(self.palette.items())]
        unique = len(set(shown)) == len(shown)
        return unique and shown != sorted(shown) and not any(colour % GREY for colour in shown)


def _first(pair: tuple[int, Path]) -> int:
    return pair[0]


def _guessed(total: _Total, options: ImportOptions) -> Key:
    shown = sorted(set(total.pixels) - {0})
    if len(shown) > MOST_COLOURS:
        count, file = total.most
        raise LayoutError(
            f"the masks hold {len(shown)} colours ({count} in {file} alone), too many for classes. If edges are "
            "smoothed or the compression is lossy, save the masks without smoothing and with lossless compression. If "
            f"each colour is an object, add --labels instances. Otherwise give the classes with {CSV}"
        )
    classes = {0: 0} | {colour: class_id for class_id, colour in enumerate(shown, 1)}
    _refuse_noisy(total, classes, options)
    class_names = {0: "background"} | {classes[colour]: text(colour) for colour in shown}
    if len(shown) == 1:
        class_names[1] = "object"
    order = first_few([f"{text(colour)} -> {class_id}" for colour, class_id in classes.items()], MOST_COLOURS)
    reasons = [
        (
            f"colours to classes (black is background; the other colours are sorted by code): {order}; "
            f"to change the classes, give {CSV}"
        )
    ]
    if total.conflict:
        reasons.append("palettes differ between masks, so the colours are used instead of the palette indices")
    if 0 not in total.pixels:
        reasons.append("no mask holds black, so class 0, background, has no pixels")
    return Key("colours", tuple(reasons), classes, class_names)


def _refuse_noisy(total: _Total, classes: Mapping[Packed, int], options: ImportOptions) -> None:
    """Refuse masks in which some colours look like noise, unless --class names the class of each of these colours."""
    noisy = [colour for colour in sorted(total.pixels) if colour and _is_noise(total, colour)]
    if not noisy or all(classes[colour] in options.names for colour in noisy):
        return
    counts = first_few([f"{text(colour)} ({total.pixels[colour]} px)" for colour in noisy], 5)
    file = max((total.most_of[colour] for colour in noisy), key=_first)[1]
    rest = first_few([text(colour) for colour in sorted(total.pixels) if colour not in noisy])
    raise LayoutError(
        f"{file}: the masks hold the rare colour(s) {counts}. Compression, smoothing or resizing probably produced "
        f"the rare colour(s) from the colour(s) {rest}. Save the masks in a lossless format without smoothing, or give "
        f"the class of each colour with {CSV}"
    )


def _is_noise(total: _Total, colour: Packed) -> bool:
    """Return whether `colour` is noise.

    A colour is noise if it is close to a much more frequent colour. A colour that seldom forms areas is also noise if
    it forms only rare specks, or is a blend of two more frequent colours.
    """
    count = total.pixels[colour]
    count_of = {other: other_count for other, other_count in total.pixels.items() if other != colour}
    for other, other_count in count_of.items():
        distance = max(abs(a - b) for a, b in zip(_channels(colour), _channels(other), strict=True))
        factor = noise.CLOSE_RARE if distance <= noise.CLOSE else noise.RARE
        if distance <= NEAR and factor * count < other_count:
            return True
    if len(count_of) < 2 or 4 * total.solid[colour] >= count:
        return False
    foreground = sum(pixel_count for shade, pixel_count in total.pixels.items() if shade)
    specks = 2 * total.linked[colour] < count and noise.RARE * count < foreground
    frequent = [other for other, other_count in count_of.items() if other_count > count]
    return specks or any(_is_mixture(colour, first, second) for first, second in combinations(frequent, 2))


def _is_mixture(colour: Packed, first: Packed, second: Packed) -> bool:
    """Return whether `colour` is a blend of `first` and `second`; smoothing produces such blends."""
    start, end, point = (np.array(_channels(packed), float) for packed in (first, second, colour))
    way = end - start
    share = float((point - start) @ way / (way @ way))
    return 0 < share < 1 and bool(np.abs(start + share * way - point).max() <= NEAR)


def _channels(colour: Packed) -> Colour:
    return colour >> 16, colour >> 8 & 255, colour & 255


def _classes(file: Path, classes: Mapping[Packed, int]) -> Labels:
    """Read the mask in `file`, and return the class id of each pixel (H, W) as uint8."""
    drawn = pixels.colours(file)
    class_ids, known = translated(drawn, classes)
    if not known.all():
        unknown = Counter(drawn[~known].tolist())
        examples = first_few([f"{text(colour)} ({count} px)" for colour, count in unknown.most_common()], 5)
        raise LayoutError(
            f"{file}: {len(unknown)} colour(s) without a class: {examples}; correct the mask, or give these colours "
            f"a class with {CSV}; the colours with a class are {first_few([text(colour) for colour in classes])}"
        )
    return class_ids


def text(colour: Packed) -> str:
    """Return the colour as #rrggbb."""
    return f"#{colour:06x}"


def _packed(colour: Colour) -> Packed:
    red, green, blue = colour
    return red << 16 | green << 8 | blue
