"""Stack layout: pairs of multi-page TIFF files, one with images and one with their labels, as in ISBI 2012."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from segline import names
from segline.data import imagefiles
from segline.importing.formats import masks, object_lists, pairs
from segline.importing.formats.folders import IMAGES, MASKS
from segline.importing.grouping import series_groups
from segline.importing.layout import (
    ImageSource,
    ImportOptions,
    Layout,
    LayoutError,
    Mapper,
    MaskSource,
    first_few,
    refuse_options,
    refuse_or_skip,
)

TIFF = (".tif", ".tiff")
MOST_OPENED = 50  # approximate number of files opened to look for stacks
VOLUME = "volumes?|vol|images?|imgs?|raw|stack"
LABELS = "labels?|lbl|masks?|gt|ground[-_ ]?truth|seg|segmentations?|annotations?"


def recognise(source: Path, options: ImportOptions, mapper: Mapper = map) -> Layout | None:
    """Return the Layout of `source` if it is a stack or a folder with stacks; otherwise None.

    A stack is a TIFF file with several pages. The names of a stack and its labels differ in one word, such as volume
    and labels. Either both files are in one folder, or the stack is in images/ and the labels are in masks/. Page n
    of the stack belongs to page n of the labels.

    Raises
    ------
    LayoutError
        A stack has no labels, or its labels have another number of pages or another size.
    """
    labels_of, unlabelled, strays = _pairs(source)
    if not labels_of:
        return None
    refuse_options(options, "the labels of stacks", "ignore", "threshold")
    skipped = refuse_or_skip(
        [
            f"the stack of labels {label} has no stack of images with a matching name in {label.parent}; add the images"
            for label in strays
        ],
        options,
        "stack(s) of labels",
    )
    images, labels, stems = dict[str, ImageSource](), dict[str, MaskSource](), dict[str, list[str]]()
    for image, label in labels_of.items():
        pages, name = _common_pages(image, label), pairs.stem(image)
        if name in stems:
            raise LayoutError(f"{image} and another stack have the same stem; rename one stack and its labels")
        stems[name] = [f"{name}_{page:0{len(str(pages - 1))}}" for page in range(pages)]
        for page, stem in enumerate(stems[name]):
            images[stem] = ImageSource(image, page)
            labels[stem] = MaskSource(label, partial(imagefiles.read_labels, label, page))
    groups, group_reason = series_groups(stems, "stack")
    first, label = next(iter(labels_of.items()))
    more = f", and {len(labels_of) - 1} more pairs of stacks" if len(labels_of) > 1 else ""
    reasons = [f"stack {first.name} with labels {label.name}{more}, paired page by page: {len(images)} pages", *skipped]
    if unlabelled:
        reasons.append(f"stacks without labels are left out: {first_few([file.name for file in unlabelled])}")
    return masks.layout(images, labels, options, reasons=[*reasons, group_reason], groups=groups, mapper=mapper)


def _pairs(source: Path) -> tuple[dict[Path, Path], list[Path], list[Path]]:
    """Pair stacks with label files.

    Return three values: the label file of each stack, the stacks without label file, and the label files without stack.
    """
    if source.is_file():
        return _labels_of_file(source), [], []
    beside = _tiffs(source)
    labels = list(filter(_is_labels, beside))
    images = [file for file in beside if file not in labels]
    if not labels:
        images, labels = (_tiffs(_first_existing(source, usual_names)) for usual_names in (IMAGES, MASKS))
    # To find out whether there are stacks, open only some files; opening 100,000 files would take a minute.
    sample = images[:: max(1, len(images) // MOST_OPENED)]
    if not labels or not any(imagefiles.pages(file) > 1 for file in sample):
        return {}, [], []
    labels_of = _matched(images, labels)
    if not labels_of:
        raise LayoutError(
            f"{first_few(images)} and {first_few(labels)} are stacks, but their names do not tell which files "
            "belong together; give names that differ in one word, such as a-volume.tif and a-labels.tif"
        )
    strays = [file for file in labels if file not in labels_of.values()]
    return labels_of, [file for file in images if file not in labels_of], strays


def _labels_of_file(source: Path) -> dict[Path, Path]:
    if source.suffix.lower() not in TIFF or imagefiles.pages(source) < 2:
        return {}
    labels_of = _matched([source], list(filter(_is_labels, _tiffs(source.parent))))
    if not labels_of:
        raise LayoutError(
            f"the stack {source} has {imagefiles.pages(source)} pages, but no file with its labels is in the same "
            f"folder; put the labels there, for example as {_key(source, VOLUME)}-labels.tif"
        )
    return labels_of


def _matched(images: Sequence[Path], labels: Sequence[Path]) -> dict[Path, Path]:
    """Pair stacks of images with label files if the names differ only in one word, such as volume and labels.

    A single stack and a single label file are a pair whatever their names.
    """
    by_key = {_key(file, LABELS): file for file in labels}
    labels_of = {file: by_key[key] for file in images if (key := _key(file, VOLUME)) in by_key}
    return labels_of or (dict(zip(images, labels, strict=True)) if len(images) == len(labels) == 1 else {})


def _common_pages(image: Path, label: Path) -> int:
    """Return the number of pages, which must be the same in a stack and its labels.

    Raises
    ------
    LayoutError
        The number or the size of the pages differs between the stack and its labels.
    """
    pages, label_pages = imagefiles.pages(image), imagefiles.pages(label)
    if pages != label_pages:
        raise LayoutError(
            f"{image} has {pages} page(s), but its labels {label} have {label_pages} page(s). Page n of the stack "
            "belongs to page n of the labels; remove pages without a partner"
        )
    shape, label_shape = imagefiles.read_page(image, 0).shape[:2], imagefiles.read_labels(label, 0).shape
    if shape != label_shape:
        raise LayoutError(
            f"{image} has pages of {object_lists.size(shape)} px, but its labels {label} are "
            f"{object_lists.size(label_shape)} px; both must have the same size; check that these are "
            "the labels of this stack"
        )
    return pages


def _is_labels(file: Path) -> bool:
    return _key(file, LABELS) != names.composed(file.stem)


def _key(file: Path, words: str) -> str:
    """Return the stem of `file` without the first word that matches the regular expression `words`."""
    stem = re.sub(rf"(?:^|[-_. ])(?:{words})(?=$|[-_. ])", "", names.composed(file.stem), count=1, flags=re.IGNORECASE)
    return stem.strip("-_. ")


def _tiffs(folder: Path | None) -> list[Path]:
    files = sorted(folder.iterdir()) if folder and folder.is_dir() else []
    return [file for file in files if file.suffix.lower() in TIFF and file.name[0] != "." and file.is_file()]


def _first_existing(folder: Path, usual_names: Sequence[str]) -> Path | None:
    return next((folder / name for name in usual_names if (folder / name).is_dir()), None)
