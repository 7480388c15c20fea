"""Which classes the colours of masks stand for: as a table says, or guessed from the colours that there are."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from segline import files, names
from segline.data.dataset import IGNORE
from segline.data.imagefiles import Labels
from segline.importing.formats import Colour, LayoutError, Mask, Wishes, maskfile, noise, some
from segline.importing.formats.labelmap import LabelMap
from segline.importing.formats.maskfile import GREY, Look, Packed
from segline.importing.formats.tables import translated

NEAR = 10  # of 256 levels of a channel: so far compression with losses moves a colour
MOST_COLOURS = 32  # more in all masks are no classes
COLUMNS = ("colour", "class")
HOW = "--colours FILE.csv, a table with the columns colour (#rrggbb), class (id) and name"

VOID = 0xE0E0C0  # how the palette of Pascal VOC shows index 255, which does not count

Reading = Literal["numbers", "greys", "colours"]


@dataclass(frozen=True)
class Key:
    """How all masks of a set are read; `classes` by colour and their `names` by id, where colours stand for classes.

    `ignore` is a value that does not count by what its palette says of it.
    """

    reading: Reading
    reasons: tuple[str, ...] = ()
    classes: Mapping[Packed, int] = field(default_factory=dict)
    names: Mapping[int, str] | None = None
    ignore: int | None = None

    def mask(self, file: Path) -> Mask:
        """The mask in `file`, to be read so."""
        if self.names is not None:
            return Mask(file, partial(_classes, file, self.classes))
        return Mask(file, partial(getattr(maskfile, self.reading), file))


def key(looks: Iterable[Look], wishes: Wishes, labelmap: LabelMap | None = None) -> Key:
    """How to read masks drawn like `looks`, which are gone through once; `labelmap` is that of their source.

    Raises
    ------
    LayoutError
        There are too many colours for classes.
    """
    seen = _Seen()
    for look in looks:
        seen.add(look)
    if wishes.colours:
        classes = {_packed(colour): class_id for colour, class_id in wishes.colours.items()}
        named = {class_id: wishes.names.get(class_id, "") for class_id in classes.values()}
        return Key("colours", ("classes by the table of colours",), classes, named)
    if labelmap and _is_of(seen, labelmap, wishes):
        classes = {_packed(colour): class_id for colour, class_id in labelmap.classes.items()}
        table = some([f"{text(colour)} -> {class_id}" for colour, class_id in classes.items()])
        named = {class_id: labelmap.names.get(class_id, "") for class_id in classes.values()}
        return Key("colours", (f"classes and their names as labelmap.txt says: {table}",), classes, named)
    if not seen.pixels or not (seen.coloured or seen.conflict or seen.dark_last or (seen.palette and seen.greys)):
        return _of_numbers(seen, wishes)
    if not any(colour % GREY for colour in seen.pixels):
        why = "their order is another" if seen.dark_last else "their indices differ between masks"
        return Key("greys", (f"the greys that palettes show are the values, for {why}",))
    if wishes.labels == "instances":
        return Key("colours", ("each colour is an object",))
    return _guessed(seen, wishes)


def _is_of(seen: "_Seen", labelmap: LabelMap, wishes: Wishes) -> bool:
    """Whether masks are drawn in colours and a map of labels is of them: objects may have colours of their own."""
    strange = set(seen.pixels) - {_packed(colour) for colour in labelmap.classes}
    return bool(seen.coloured or seen.palette) and not (strange and wishes.labels == "instances")


def _of_numbers(seen: "_Seen", wishes: Wishes) -> Key:
    reasons = ("the indices of palettes are the values",) if seen.palette else ()
    if wishes.ignore is not None or seen.palette.get(IGNORE) != VOID:
        return Key("numbers", reasons)
    why = f"palettes show index {IGNORE} as {text(VOID)}, which is void in Pascal VOC"
    if wishes.labels == "instances":
        raise LayoutError(f"{why}: instance masks cannot say that pixels do not count; make these pixels 0, background")
    return Key("numbers", (*reasons, why), ignore=IGNORE)


@dataclass
class _Seen:
    """The looks of all masks, added up one by one."""

    pixels: Counter[Packed] = field(default_factory=Counter)
    solid: Counter[Packed] = field(default_factory=Counter)
    linked: Counter[Packed] = field(default_factory=Counter)
    most_of: dict[Packed, tuple[int, Path]] = field(default_factory=dict)  # of few colours, the mask with most pixels
    palette: dict[int, Packed] = field(default_factory=dict)
    conflict: bool = False  # one index shows two colours
    coloured: int = 0
    greys: int = 0  # masks with three equal channels
    most: tuple[int, Path] = (0, Path())  # most colours in one mask, and which

    def add(self, look: Look) -> None:
        self.coloured += look.coloured
        self.greys += look.palette is None and bool(look.pixels) and not look.coloured
        self.most = max(self.most, (len(look.pixels), look.file), key=lambda of: of[0])
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
        """Whether the palette is grey and a higher index is not lighter, so that greys and indices differ in order."""
        shown = [colour for _, colour in sorted(self.palette.items())]
        one_each = len(set(shown)) == len(shown)
        return one_each and shown != sorted(shown) and not any(colour % GREY for colour in shown)


def _first(pair: tuple[int, Path]) -> int:
    return pair[0]


def _guessed(seen: _Seen, wishes: Wishes) -> Key:
    shown = sorted(set(seen.pixels) - {0})
    if len(shown) > MOST_COLOURS:
        count, file = seen.most
        raise LayoutError(
            f"the masks hold {len(shown)} colours, {file} alone {count}; that many are no classes. If edges are "
            f"smoothed or compressed with losses, save the masks without; else give the classes with {HOW}; if each "
            "colour is an object, say --labels instances"
        )
    classes = {0: 0} | {colour: class_id for class_id, colour in enumerate(shown, 1)}
    _refuse_noisy(seen, classes, wishes)
    named = {0: "background"} | {classes[colour]: text(colour) for colour in shown}
    if len(shown) == 1:
        named[1] = "object"
    order = some([f"{text(colour)} -> {class_id}" for colour, class_id in classes.items()], MOST_COLOURS)
    reasons = [f"colours to classes, black as background, else in the order of their codes: {order}; else {HOW}"]
    if seen.conflict:
        reasons.append("palettes differ between masks, so their colours count, not their indices")
    if 0 not in seen.pixels:
        reasons.append("no mask holds black: class 0, background, has no pixels")
    return Key("colours", tuple(reasons), classes, named)


def _refuse_noisy(seen: _Seen, classes: Mapping[Packed, int], wishes: Wishes) -> None:
    """Refuse colours that nobody drew, unless the person names each of them as a class."""
    noisy = [colour for colour in sorted(seen.pixels) if colour and _is_noise(seen, colour)]
    if not noisy or all(classes[colour] in wishes.names for colour in noisy):
        return
    counts = some([f"{text(colour)} ({seen.pixels[colour]} px)" for colour in noisy], 5)
    file = max((seen.most_of[colour] for colour in noisy), key=_first)[1]
    rest = some([text(colour) for colour in sorted(seen.pixels) if colour not in noisy])
    rare = "is rare and lies" if len(noisy) == 1 else "are rare and lie"
    raise LayoutError(
        f"{file}: {counts} {rare} as compression, smoothing or resizing "
        f"leaves colours beside {rest}; save the masks without losses, or give the class of each colour with {HOW}"
    )


def _is_noise(seen: _Seen, colour: Packed) -> bool:
    """Whether a colour is near a more frequent one, or forms no areas and lies between two others or in specks."""
    count = seen.pixels[colour]
    others = {other: pixels for other, pixels in seen.pixels.items() if other != colour}
    for other, pixels in others.items():
        distance = max(abs(a - b) for a, b in zip(_channels(colour), _channels(other), strict=True))
        factor = noise.CLOSE_RARE if distance <= noise.CLOSE else noise.RARE
        if distance <= NEAR and factor * count < pixels:
            return True
    if len(others) < 2 or 4 * seen.solid[colour] >= count:
        return False
    foreground = sum(pixels for other, pixels in seen.pixels.items() if other)
    specks = 2 * seen.linked[colour] < count and noise.RARE * count < foreground
    frequent = [other for other, pixels in others.items() if pixels > count]
    return specks or any(_between(colour, one, other) for one, other in combinations(frequent, 2))


def _between(colour: Packed, one: Packed, other: Packed) -> bool:
    """Whether a colour is a mixture of two others, as smoothing makes it."""
    start, end, point = (np.array(_channels(each), float) for each in (one, other, colour))
    way = end - start
    share = float((point - start) @ way / (way @ way))
    return 0 < share < 1 and bool(np.abs(start + share * way - point).max() <= NEAR)


def _channels(colour: Packed) -> Colour:
    return colour >> 16, colour >> 8 & 255, colour & 255


def _classes(file: Path, classes: Mapping[Packed, int]) -> Labels:
    """Class ids (H, W) uint8 of the colours in `file`."""
    drawn = maskfile.colours(file)
    found, known = translated(drawn, classes)
    if not known.all():
        strange = Counter(drawn[~known].tolist())
        which = some([f"{text(colour)} ({count} px)" for colour, count in strange.most_common()], 5)
        raise LayoutError(
            f"{file}: {len(strange)} colour(s) that no class has: {which}; mend the mask, or give them a class with "
            f"{HOW}; classes have {some([text(colour) for colour in classes])}"
        )
    return found


def text(colour: Packed) -> str:
    """As #rrggbb."""
    return f"#{colour:06x}"


def _packed(colour: Colour) -> Packed:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def read_table(file: Path) -> tuple[dict[Colour, int], dict[int, str]]:
    """Class by colour, and name by class, of a CSV file with the columns colour, class and, if wanted, name.

    A colour is #rrggbb or red,green,blue. Class 255, or `ignore`, is for pixels that do not count.

    Raises
    ------
    LayoutError, FileError
        A column is missing, or a line cannot be meant.
    """
    table = files.read_table(file)
    for column in COLUMNS:
        if column not in table:
            raise LayoutError(f"{file} has no column {column}, but {', '.join(table.columns)}; give {HOW}")
    classes: dict[Colour, int] = {}
    said: dict[int, str] = {}
    for line, row in enumerate(table.to_dict("records"), 2):
        colour, class_id, name = _row(f"{file}, line {line}", {str(key): str(value) for key, value in row.items()})
        if classes.setdefault(colour, class_id) != class_id:
            raise LayoutError(f"{file}, line {line}: {row['colour']} is class {classes[colour]} already")
        name = names.check(name, f"{file}, line {line}: name") if name else name
        if name and class_id != IGNORE and said.setdefault(class_id, name) != name:
            raise LayoutError(f"{file}, line {line}: class {class_id} is {said[class_id]!r} already, not {name!r}")
    if set(classes.values()) <= {IGNORE}:
        raise LayoutError(f"{file} has {'no class but ignore' if classes else 'no line'}; give {HOW}")
    return classes, said


def _row(where: str, row: Mapping[str, str]) -> tuple[Colour, int, str]:
    written, class_id, name = row["colour"].strip(), row["class"].strip().lower(), row.get("name", "").strip()
    digits = written.lstrip("#")
    if len(digits) == 6 and not set(digits.lower()) - set("0123456789abcdef"):
        parts = [int(digits[start : start + 2], 16) for start in (0, 2, 4)]
    else:
        parts = [int(part) for part in written.split(",") if part.strip().isdecimal() and len(part) < 10]
    if len(parts) != 3 or max(parts) > 255 or (written.count(",") not in (0, 2)):
        raise LayoutError(f"{where}: colour {written!r}; write #rrggbb, such as #ff0000, or red,green,blue in quotes")
    if class_id != "ignore" and (not class_id.isdecimal() or len(class_id) > 9 or int(class_id) > IGNORE):
        raise LayoutError(f"{where}: class {row['class']!r}; write a number from 0 to {IGNORE - 1}, or ignore")
    return (parts[0], parts[1], parts[2]), IGNORE if class_id == "ignore" else int(class_id), name
