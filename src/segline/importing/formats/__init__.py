"""Foreign layouts that import understands, one module each, and what each says of a folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segline.data import imagefiles
from segline.data.dataset import Kind
from segline.data.imagefiles import Labels

Colour = tuple[int, int, int]  # red, green, blue, each 0 to 255
Each = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
"""Like `map`; handed over by whoever has cores to use and progress to show."""

READABLE = imagefiles.READABLE


class LayoutError(ValueError):
    """A folder that no layout fits, or that cannot be meant; the message says what was found and what to do."""


def some(values: Sequence[object], most: int = 8) -> str:
    """Join the first `most` values by commas, and say how many there are if these are not all."""
    shown = ", ".join(str(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown}, ... ({len(values)} in all)"


@dataclass(frozen=True)
class Wishes:
    """What the person says of the source; whatever is left out is guessed.

    ``names`` by class id; ``ignore`` a mask value; ``threshold``: mask values above it are 1, others 0; ``colours``:
    class id by colour, IGNORE for colours that do not count; ``images`` and ``masks``: patterns of files below the
    source, `*` where they pair; ``group_by``: regular expression whose first parenthesis is the group in a stem;
    ``skip_unpaired``: leave out what has no partner instead of refusing it; ``missing_as_background``: images without
    labels hold background only; ``cut``: side in px of the blocks into which larger images are cut; ``crowd``: whether
    crowds of COCO are ignored or count as objects; ``skip_shapes``: leave out shapes of LabelMe that enclose nothing.
    """

    labels: Kind | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    ignore: int | None = None
    threshold: float | None = None
    colours: Mapping[Colour, int] = field(default_factory=dict)
    images: str | None = None
    masks: str | None = None
    group_by: str | None = None
    skip_unpaired: bool = False
    missing_as_background: bool = False
    cut: int | None = None
    crowd: Literal["ignore", "objects"] | None = None
    skip_shapes: bool = False


@dataclass(frozen=True)
class Picture:
    """Where the pixels of one image come from: a whole file, copied byte for byte, or one page of a stack."""

    file: Path
    page: int | None = None


@dataclass(frozen=True)
class Mask:
    """Where labels of one image come from: `read` opens `file` when called, and gives (H, W) integers."""

    file: Path
    read: Callable[[], Labels]


@dataclass(frozen=True)
class Layout:
    """What a foreign source holds, by stem, and how its masks are to be read.

    There are class masks, instance masks or both. `class_of` gives the class of each value in a class mask, IGNORE for
    pixels that do not count; None: the values are class ids already. `joined` makes every connected piece of an
    instance mask an instance. `groups` by stem; None: each image is its own.
    """

    images: Mapping[str, Picture]
    labels: Kind
    names: Mapping[int, str]  # by class id
    reasons: tuple[str, ...]
    classes: Mapping[str, Mask] = field(default_factory=dict)
    instances: Mapping[str, Mask] = field(default_factory=dict)
    class_of: Mapping[int, int] | None = None
    joined: bool = False
    groups: Mapping[str, str] | None = None
