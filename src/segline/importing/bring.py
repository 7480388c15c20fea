"""Brings a foreign layout into a dataset folder: all of it or nothing, and the source is only read."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np

from segline import files, names
from segline.data import georeference, imagefiles
from segline.data.checks import duplicates, filenotes, per_dataset
from segline.data.checks.problems import Problem
from segline.data.dataset import GROUPS, IGNORE, NAME, READING, SPEC, Dataset, DatasetError, Spec, spec_of, write_spec
from segline.files import FileError
from segline.importing import converting, cutting, preview, staging
from segline.importing.formats import Each, Layout, LayoutError, Wishes, drawings, layouts, some
from segline.model.metadata import Note
from segline.text import shown

RAW = Path("data/raw")
SHEET = "contact_sheet.png"


Memory = Callable[[Any], int]


@dataclass(frozen=True)
class Imported:
    """What import made: the folder, what it says of itself, why, what it holds, what is to be minded.

    Of `images`, so many as `found` were there from a call that was interrupted.
    """

    folder: Path
    spec: Spec
    reasons: tuple[str, ...]
    images: int
    instances: int | None  # where there are label images of them
    table: tuple[str, ...]
    problems: tuple[Problem, ...]
    found: int


PIXEL = 16  # bytes in memory for a pixel of a mask while it is looked at


def _plainly(what: str, memory: Memory) -> Each:
    del what, memory
    return map


def _memory(item: Any) -> int:
    """About how many bytes are needed to look at `item`, a file or something that says which its file is."""
    try:
        height, width, channels, dtype = imagefiles.image_size(item if isinstance(item, Path) else item.file)
    except (files.FileError, AttributeError):
        return 0  # whoever reads it will say so
    return height * width * max(READING * channels * np.dtype(dtype).itemsize, PIXEL)


def _none(item: Any) -> int:
    """Bytes that are needed to look at the head of a file: too few to count."""
    del item
    return 0


def bring(
    source: Path,
    name: str,
    wishes: Wishes | None = None,
    *,
    licence: str = "",
    origin: str = "",
    replace: bool = False,
    raw: Path = RAW,
    each: Callable[[str, Memory], Each] = _plainly,
) -> Imported:
    """Make the dataset folder `raw`/`name` of `source`; images are copied byte for byte.

    Interrupted, it leaves data/raw/.NAME.partial, and the same call on the same files goes on there.

    Parameters
    ----------
    wishes : what is not to be guessed.
    licence, origin : go into dataset.yaml as licence and source.
    replace : whether a folder that is there may be replaced.
    each : makes something like `map` for a step of that name, in which an item needs about so much memory; hand over
        one that uses all cores and shows progress.

    Raises
    ------
    DatasetError, LayoutError, FileError, UnfitError, BusyError
        The target is there already or in the making, or something in `source` cannot be meant; nothing is left behind.
    """
    wishes, source = wishes or Wishes(), names.on_disk(source)
    if not re.fullmatch(NAME, name) or len(name) > names.LONGEST:
        raise DatasetError(
            f"--name {shown(name)}: use letters, digits, . _ -, {names.LONGEST} at most, and begin with a letter "
            "or digit"
        )
    target = raw / name
    _refuse_target(source, target, replace)
    layout = layouts.recognise(source, wishes, each("read masks", _memory))
    refuse_apart(layout, each("compare places", _none))
    noted, kinds = told(layout, each("read notes", _none))
    groups, of_groups = _groups(layout, wishes)
    cut = cutting.plan(layout, groups, wishes.cut)
    spec = _spec(layout, name, licence, origin)
    key = staging.fingerprint(source, _used(layout), wishes, spec.model_dump())
    with staging.folder(target, key) as folder:
        _refuse_target(source, target, replace)  # once more: another import may have come first
        found, instances = _fill(folder, layout, cut.blocks, each("write", lambda stem: _memory(layout.images[stem])))
        if cut.groups is not None:
            _write_groups(folder / GROUPS, cut.groups)
        write_spec(folder / SPEC, spec)
        dataset = Dataset.open(folder)
        checked = per_dataset.inspect(dataset, each("check", dataset.memory))
        dataset, of_twins = _united(folder, dataset, checked)
        problems = [problem for problem in per_dataset.judge(dataset, checked) if problem.kind not in kinds]
        _refuse_errors(problems, layout.reasons)
        imagefiles.write_png(folder / SHEET, preview.contact_sheet(dataset, checked))
        table = tuple(preview.lines(dataset, checked, instances))
    reasons = (*layout.reasons, *noted, *of_groups, *cut.reasons, *of_twins)
    return Imported(target, spec, reasons, len(dataset.images), instances, table, tuple(problems), found)


def _refuse_target(source: Path, target: Path, replace: bool) -> None:
    inner, outer = sorted((source.resolve(), target.resolve()), key=lambda path: len(path.parts), reverse=True)
    if inner.is_relative_to(outer):
        raise DatasetError(f"{source} and {target} lie in one another; import from a folder elsewhere")
    if target.exists() and not replace:
        raise DatasetError(f"{target} is there already; say --replace to replace it, or choose another --name")


def _used(layout: Layout) -> Iterator[Path]:
    yield from (picture.file for picture in layout.images.values())
    yield from (mask.file for mask in (*layout.classes.values(), *layout.instances.values()))


def _spec(layout: Layout, name: str, licence: str, origin: str) -> Spec:
    ignores = layout.class_of is not None and IGNORE in layout.class_of.values()
    fields = {
        "name": name,
        "classes": dict(layout.names),
        "ignore": IGNORE if ignores else None,
        "labels": layout.labels,
        "licence": licence,
        "source": origin,
    }
    return spec_of(fields, f"import {name}")


def _groups(layout: Layout, wishes: Wishes) -> tuple[dict[str, str] | None, list[str]]:
    """Group by stem, as the layout has them or as wished, and why if that is new."""
    if wishes.group_by is None:
        return None if layout.groups is None else dict(layout.groups), []
    try:
        pattern = re.compile(names.composed(wishes.group_by))
    except re.error as error:
        raise LayoutError(f"--group-by {wishes.group_by!r} is no regular expression: {error}") from error
    found = {stem: pattern.search(stem) for stem in layout.images}
    without = [stem for stem, match in found.items() if not match]
    if without:
        raise LayoutError(
            f"--group-by {wishes.group_by!r} finds no group in {some(without, 5)}; it is a regular expression, whose "
            r"first parenthesis is the group, such as '^(patient\d+)_'"
        )
    groups = {stem: match[1] if match.groups() else match[0] for stem, match in found.items() if match}
    return groups, [f"groups: what {wishes.group_by} finds in the names"]


def _refuse_errors(problems: Sequence[Problem], reasons: Sequence[str]) -> None:
    """Refuse files that are unfit, and say how they were understood: the masks may be the wrong ones."""
    try:
        per_dataset.refuse_errors([problem for problem in problems if not problem.of_set])
    except per_dataset.UnfitError as error:
        raise per_dataset.UnfitError("\n  ".join([f"{error}\nHow the source was understood:", *reasons])) from None


def _united(folder: Path, dataset: Dataset, checked: Sequence[per_dataset.Checked]) -> tuple[Dataset, list[str]]:
    """`dataset` with one group for images of the same pixels, and which these are; prepare refuses to split them."""
    groups = duplicates.groups(dataset, checked, exactly=True)
    joined = sorted(stem for stem, group in groups.items() if group != dataset.groups[stem])
    if not joined:
        return dataset, []
    _write_groups(folder / GROUPS, groups)
    return changed(dataset, groups=groups), [f"groups: {some(joined, 5)} joined the image that has the same pixels"]


def _write_groups(file: Path, groups: dict[str, str]) -> None:
    import pandas as pd

    files.write_table(file, pd.DataFrame(sorted(groups.items()), columns=["image", "group"]))


def _fill(folder: Path, layout: Layout, blocks: Mapping[str, cutting.Windows], each: Each) -> tuple[int, int | None]:
    """Write what is not there yet; return how many images were there, and the number of instances."""
    for kind in ("images", "instances", "classes"):
        if getattr(layout, kind):
            (folder / kind).mkdir(exist_ok=True)

    def write(stem: str) -> tuple[bool, int]:
        windows = blocks[stem]
        there = converting.write_image(layout.images[stem], folder / "images", windows)
        if layout.classes:
            converting.write_classes(layout, folder / "classes", stem, windows)
        count = converting.write_instances(layout, folder / "instances", stem, windows) if layout.instances else 0
        return there, count

    found = instances = 0
    for there, count in each(write, sorted(layout.images)):
        found += there
        instances += count
    return found, instances if layout.instances else None


def told(layout: Layout, each: Each) -> tuple[list[str], set[str]]:
    """Lines about the notes of all images and masks, and which kinds of notes of images these tell of."""
    images = _readable(picture.file for picture in layout.images.values())
    masks = _readable(mask.file for found in (layout.classes, layout.instances) for mask in found.values())
    noted = dict(zip([*images, *masks], each(filenotes.notes, [*images, *masks]), strict=True))
    # Whether missing values occur is known when pixels are: check says it.
    of_images = [(file, tuple(note for note in noted[file] if not _later(note))) for file in images]
    kinds = {note.kind for _, found in of_images for note in found}
    of_masks = [(file, noted[file]) for file in masks]
    return [*filenotes.lines("image", of_images), *filenotes.lines("mask", of_masks)], kinds


def _later(note: Note) -> bool:
    return note.kind in (filenotes.NODATA, filenotes.OF_MASKS)


def _readable(used: Iterable[Path]) -> list[Path]:
    """The image files among `used`, each once; others, such as JSON and folders, have no notes."""
    return [file for file in dict.fromkeys(used) if file.suffix.lower() in imagefiles.READABLE and file.is_file()]


def refuse_apart(layout: Layout, each: Each) -> None:
    """Refuse masks whose georeference places them elsewhere than their images.

    Raises
    ------
    LayoutError
        There are such masks; some are named, with how far they are from their images.
    """
    pairs = [
        (picture.file, mask.file)
        for stem, picture in layout.images.items()
        for mask in {found[stem] for found in (layout.classes, layout.instances) if stem in found}
        if picture.file != mask.file and mask.file.suffix.lower() in georeference.GEOREFERENCED
    ]
    drawings.refuse([message for message in each(_apart, list(dict.fromkeys(pairs))) if message])


def _apart(pair: tuple[Path, Path]) -> str:
    image, mask = pair
    try:
        if imagefiles.image_size(image)[:2] != imagefiles.image_size(mask)[:2]:
            return ""  # which is said when both are compared
        message = georeference.apart(image, mask)
    except FileError:
        return ""  # whoever reads it says so
    return f"{mask}: {message}; give the mask of this place, or save it without georeference if that is wrong" * bool(
        message
    )
