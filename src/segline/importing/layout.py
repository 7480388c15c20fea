"""Description of any source that segline can import: its images, its masks and what the mask values mean."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segline.data import imagefiles
from segline.data.dataset import Kind
from segline.data.imagefiles import Labels

Colour = tuple[int, int, int]  # red, green, blue, each 0 to 255
Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
"""A function that works like `map`, but may use all cores and show progress."""

READABLE = imagefiles.READABLE
MOST_ERRORS = 5  # largest number of errors that a message lists


class LayoutError(ValueError):
    """Raised for a source of unknown layout or contradictory content; the message names the file and the remedy."""


@dataclass(frozen=True)
class ImportOptions:
    """What the user states about the source; `segline import` guesses everything else.

    ``names``: class names by class id. ``ignore``: mask value of ignored pixels. ``threshold``: mask values above the
    threshold become 1, and the other values become 0. ``colours``: class id by colour; the id IGNORE means ignored
    pixels. ``images``, ``masks``: patterns of files below the source; an image and a mask are a pair if `*` matches the
    same text in both. ``group_by``: regular expression; the text in its first parenthesis is the group of a stem.
    ``skip_unpaired``: leave out files without partner instead of refusing them. ``missing_as_background``: treat all
    pixels of images without labels as background. ``cut``: side in px of the blocks into which larger images are cut.
    ``crowd``: treat COCO crowds as ignored pixels or as objects. ``skip_shapes``: leave out LabelMe shapes that enclose
    no area.
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
class ImageSource:
    """Source of the pixels of one image: a whole file, or one page of a multi-page file."""

    file: Path
    page: int | None = None


@dataclass(frozen=True)
class MaskSource:
    """Source of the labels of one image; `read` opens `file` and returns integer labels (H, W)."""

    file: Path
    read: Callable[[], Labels]


@dataclass(frozen=True)
class Layout:
    """Images and masks of the source (dicts with stems as keys), and the meaning of the mask values.

    A layout has class masks, instance masks or both. `class_of` gives the class of each value in a class mask, and
    IGNORE for the value of ignored pixels; None means that the values are class ids. With `label_components`, every
    connected component of an instance mask is an instance. `groups` gives the group of each stem; None means that each
    image is its own group.
    """

    images: Mapping[str, ImageSource]
    labels: Kind
    names: Mapping[int, str]  # class names by class id
    reasons: tuple[str, ...]
    classes: Mapping[str, MaskSource] = field(default_factory=dict)
    instances: Mapping[str, MaskSource] = field(default_factory=dict)
    class_of: Mapping[int, int] | None = None
    label_components: bool = False
    groups: Mapping[str, str] | None = None


def first_few(values: Sequence[object], most: int = 8) -> str:
    """Join the first values (up to `most`) by commas; if values are left out, add the total number of values."""
    shown = ", ".join(str(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown}, ... ({len(values)} in all)"


def raise_errors(errors: Sequence[str]) -> None:
    """Raise LayoutError with the first few `errors` and the number of further errors; without errors, do nothing."""
    if errors:
        rest = [f"... and {len(errors) - MOST_ERRORS} more errors like these"] if len(errors) > MOST_ERRORS else []
        raise LayoutError("\n".join([*errors[:MOST_ERRORS], *rest]))


def refuse_or_skip(errors: Sequence[str], options: ImportOptions, files: str) -> list[str]:
    """Raise LayoutError with the `errors`, which name unpaired files; with --skip-unpaired, only report these files.

    Then return a line that tells the user how many files are left out. If there are no errors, return no line.
    """
    if not options.skip_unpaired:
        raise_errors(errors)
    return [f"{len(errors)} {files} left out because of --skip-unpaired; the first: {errors[0]}"] if errors else []


def background_only(count: int) -> list[str]:
    """Return a list with one line about `count` images without labels; an empty list if `count` is 0.

    The option --missing-as-background treats all pixels of these images as background.
    """
    return [f"{count} image(s) without labels are background only (--missing-as-background)"] if count else []


def refuse_options(options: ImportOptions, labels: str, *supported: str) -> None:
    """Raise LayoutError if the user set an option that this kind of source does not support.

    The message uses `labels` as the description of the labels. `supported` lists the supported options. Each format
    module itself checks `options.labels` and `options.names`.
    """
    for name in ("ignore", "threshold", "colours"):
        if name not in supported and getattr(options, name) not in (None, {}):
            raise LayoutError(f"--{name} is not supported for {labels}; leave the option out")
    if options.crowd and "crowd" not in supported:
        raise LayoutError(f"--crowd is supported only for COCO annotations, not for {labels}; leave the option out")
    if options.skip_shapes and "skip_shapes" not in supported:
        raise LayoutError(f"--skip-shapes is supported only for LabelMe shapes, not for {labels}; leave the option out")
    if options.missing_as_background and "missing_as_background" not in supported:
        raise LayoutError(f"--missing-as-background is not supported for {labels}; leave the option out")
