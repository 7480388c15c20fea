"""Layout: a multi-page TIFF with images and one with their labels, as ISBI 2012 publishes it; or several such pairs."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from segline import names
from segline.data import imagefiles
from segline.importing.formats import (
    Each,
    Layout,
    LayoutError,
    Mask,
    Picture,
    Wishes,
    drawings,
    finding,
    flags,
    masklayout,
    pairs,
    series,
    some,
)
from segline.importing.formats.folders import IMAGES, MASKS

TIFF = (".tif", ".tiff")
ASKED = 50
VOLUME = "volumes?|vol|images?|imgs?|raw|stack"
LABELS = "labels?|lbl|masks?|gt|ground[-_ ]?truth|seg|segmentations?|annotations?"


def recognise(source: Path, wishes: Wishes, each: Each = map) -> Layout | None:
    """What `source`, a stack or a folder with stacks, holds; None when no TIFF in it has several pages.

    A stack and its labels have names alike but for a word such as volume and labels, side by side or in images/ and
    masks/. Page n of the one belongs to page n of the other.

    Raises
    ------
    LayoutError
        Stacks without labels, or of other page counts or sizes than their labels.
    """
    found, images, strays = _pairs(source)
    if not found:
        return None
    flags.refuse(wishes, "the labels of stacks", "ignore", "threshold")
    skipped = finding.refuse_or_skip(
        [f"{label} has no stack of images of its name in {label.parent}; add it" for label in strays],
        wishes,
        "stack(s) of labels",
    )
    pictures, labels, stems = dict[str, Picture](), dict[str, Mask](), dict[str, list[str]]()
    for image, label in found.items():
        pages, name = _refuse_unlike(image, label), pairs.stem(image)
        if name in stems:
            raise LayoutError(f"{image} and another stack have one stem; a stem names one: rename one, and its labels")
        stems[name] = [f"{name}_{page:0{len(str(pages - 1))}}" for page in range(pages)]
        for page, stem in enumerate(stems[name]):
            pictures[stem] = Picture(image, page)
            labels[stem] = Mask(label, partial(imagefiles.read_labels, label, page))
    groups, why = series.groups(stems, "stack")
    first, label = next(iter(found.items()))
    more = f", and {len(found) - 1} more pairs of stacks" if len(found) > 1 else ""
    reasons = [f"{first.name} with labels {label.name}, paired page by page{more}: {len(pictures)} pages", *skipped]
    if images:
        reasons.append(f"no labels for {some([file.name for file in images])}: left out")
    return masklayout.layout(pictures, labels, wishes, reasons=[*reasons, why], groups=groups, each=each)


def _pairs(source: Path) -> tuple[dict[Path, Path], list[Path], list[Path]]:
    """The labels of each stack, the stacks without labels, and the labels without stack."""
    if source.is_file():
        return _of_file(source), [], []
    beside = _tiffs(source)
    labels = list(filter(_is_labels, beside))
    images = [file for file in beside if file not in labels]
    if not labels:
        images, labels = (_tiffs(_inside(source, usual)) for usual in (IMAGES, MASKS))
    # Some of many tell: opening 100,000 files to find no stack among them would take a minute.
    asked = images[:: max(1, len(images) // ASKED)]
    if not labels or not any(imagefiles.pages(file) > 1 for file in asked):
        return {}, [], []
    found = _matched(images, labels)
    if not found:
        raise LayoutError(
            f"{some(images)} and {some(labels)} are stacks, but which belong together cannot be told from their names; "
            "name them alike but for a word, such as a-volume.tif and a-labels.tif"
        )
    left = [file for file in labels if file not in found.values()]
    return found, [file for file in images if file not in found], left


def _of_file(source: Path) -> dict[Path, Path]:
    if source.suffix.lower() not in TIFF or imagefiles.pages(source) < 2:
        return {}
    found = _matched([source], list(filter(_is_labels, _tiffs(source.parent))))
    if not found:
        raise LayoutError(
            f"{source} has {imagefiles.pages(source)} pages, but no labels of their own beside it; name them "
            f"{_key(source, VOLUME)}-labels.tif, say"
        )
    return found


def _matched(images: Sequence[Path], labels: Sequence[Path]) -> dict[Path, Path]:
    """Labels by image, where names are alike but for the words; or of one stack the only labels."""
    by_key = {_key(file, LABELS): file for file in labels}
    found = {file: by_key[key] for file in images if (key := _key(file, VOLUME)) in by_key}
    return found or (dict(zip(images, labels, strict=True)) if len(images) == len(labels) == 1 else {})


def _refuse_unlike(image: Path, label: Path) -> int:
    """The pages that both have."""
    pages, others = imagefiles.pages(image), imagefiles.pages(label)
    if pages != others:
        raise LayoutError(
            f"{image} has {pages} page(s), but its labels {label} have {others}; page n of one belongs to page n "
            "of the other: take out what has no partner"
        )
    shape, other = imagefiles.read_page(image, 0).shape[:2], imagefiles.read_labels(label, 0).shape
    if shape != other:
        raise LayoutError(
            f"{image} has pages of {drawings.size(shape)} px, but its labels {label} {drawings.size(other)}; "
            "they are of one size: are these the labels of this stack?"
        )
    return pages


def _is_labels(file: Path) -> bool:
    return _key(file, LABELS) != names.composed(file.stem)


def _key(file: Path, words: str) -> str:
    """The stem without one of `words`, which stands alone in it."""
    stem = re.sub(rf"(?:^|[-_. ])(?:{words})(?=$|[-_. ])", "", names.composed(file.stem), count=1, flags=re.IGNORECASE)
    return stem.strip("-_. ")


def _tiffs(folder: Path | None) -> list[Path]:
    found = sorted(folder.iterdir()) if folder and folder.is_dir() else []
    return [file for file in found if file.suffix.lower() in TIFF and file.name[0] != "." and file.is_file()]


def _inside(folder: Path, usual: Sequence[str]) -> Path | None:
    return next((folder / name for name in usual if (folder / name).is_dir()), None)
