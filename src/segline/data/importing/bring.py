"""Brings a foreign layout into a dataset folder: all of it or nothing, and the source is only read."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np

from segline import names
from segline.data import files
from segline.data.checks import alike, check
from segline.data.checks.problems import Problem
from segline.data.dataset import GROUPS, IGNORE, NAME, READING, SPEC, Dataset, DatasetError, Spec, spec_of, write_spec
from segline.data.formats import Each, Layout, LayoutError, Wishes, layouts, some
from segline.data.importing import converting, cutting, notes, overview, sheet, unfinished
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
        height, width, channels, dtype = files.image_size(item if isinstance(item, Path) else item.file)
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
    notes.refuse_apart(layout, each("compare places", _none))
    noted, kinds = notes.told(layout, each("read notes", _none))
    groups, of_groups = _groups(layout, wishes)
    cut = cutting.plan(layout, groups, wishes.cut)
    spec = _spec(layout, name, licence, origin)
    key = unfinished.fingerprint(source, _used(layout), wishes, spec.model_dump())
    with unfinished.folder(target, key) as folder:
        _refuse_target(source, target, replace)  # once more: another import may have come first
        found, instances = _fill(folder, layout, cut.blocks, each("write", lambda stem: _memory(layout.images[stem])))
        if cut.groups is not None:
            _write_groups(folder / GROUPS, cut.groups)
        write_spec(folder / SPEC, spec)
        dataset = Dataset.open(folder)
        checked = check.inspect(dataset, each("check", dataset.memory))
        dataset, of_twins = _united(folder, dataset, checked)
        problems = [problem for problem in check.judge(dataset, checked) if problem.kind not in kinds]
        _refuse_errors(problems, layout.reasons)
        files.write_png(folder / SHEET, sheet.contact_sheet(dataset, checked))
        table = tuple(overview.lines(dataset, checked, instances))
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
        check.refuse_errors([problem for problem in problems if not problem.of_set])
    except check.UnfitError as error:
        raise check.UnfitError("\n  ".join([f"{error}\nHow the source was understood:", *reasons])) from None


def _united(folder: Path, dataset: Dataset, checked: Sequence[check.Checked]) -> tuple[Dataset, list[str]]:
    """`dataset` with one group for images of the same pixels, and which these are; prepare refuses to split them."""
    groups = alike.groups(dataset, checked, exactly=True)
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
