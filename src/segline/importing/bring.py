"""Import a folder or file with annotated images into a dataset folder, without changing the source.

The dataset folder appears only after the import has succeeded.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segline import files, names
from segline.data import imagefiles
from segline.data.checks import per_dataset
from segline.data.checks.problems import Problem
from segline.data.dataset import GROUPS, IGNORE, NAME, READING, SPEC, Dataset, DatasetError, Spec, spec_of, write_spec
from segline.importing import converting, cutting, formats, grouping, preview, source_notes, staging
from segline.importing.layout import ImportOptions, Layout, Mapper
from segline.text import shown

RAW = Path("data/raw")
SHEET = "contact_sheet.png"
MASK_PIXEL = 16  # bytes of memory needed for each pixel of a mask

Memory = Callable[[Any], int]
MapperFactory = Callable[[str, Memory], Mapper]


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    `reasons` explain all guesses. `images` and `instances` are counts. `table` describes the content, line by line.
    `resumed` is the number of images that an interrupted import had already written.
    """

    folder: Path
    spec: Spec
    reasons: tuple[str, ...]
    images: int
    instances: int | None  # None if the source has no instance masks
    table: tuple[str, ...]
    problems: tuple[Problem, ...]
    resumed: int


def _serial(step: str, memory: Memory) -> Mapper:
    del step, memory
    return map


def _memory(item: Any) -> int:
    """Estimate the memory, in bytes, for reading a file; `item` is a path, or an object with the field `file`."""
    try:
        height, width, channels, dtype = imagefiles.image_size(item if isinstance(item, Path) else item.file)
    except (files.FileError, AttributeError):
        return 0  # a later step that reads the file reports the error
    return height * width * max(READING * channels * np.dtype(dtype).itemsize, MASK_PIXEL)


def _header_memory(item: Any) -> int:
    """Return 0 as the estimated memory for reading the header of a file, because the header is small."""
    del item
    return 0


def bring(
    source: Path,
    name: str,
    options: ImportOptions | None = None,
    *,
    licence: str = "",
    origin: str = "",
    replace: bool = False,
    raw: Path = RAW,
    mapper_for: MapperFactory = _serial,
) -> Imported:
    """Import `source` into the dataset folder `raw`/`name`.

    Image files are copied byte for byte, unless they are cut into blocks or split into pages. An interrupted import
    leaves data/raw/.NAME.partial, and the same call on the same files resumes there.

    Parameters
    ----------
    options : what the user states about the source, in place of guesses.
    licence, origin : values of the fields `licence` and `source` in dataset.yaml.
    replace : whether an existing folder may be replaced.
    mapper_for : returns a function that works like `map`, but may use all cores and show progress. `mapper_for` takes
        the name of a step, and a function that estimates how many bytes of memory an item needs.

    Raises
    ------
    DatasetError, LayoutError, FileError, UnfitError, BusyError
        The target exists already, another import is writing it, or `source` is faulty; nothing is left behind.
    """
    options, source, target = options or ImportOptions(), names.on_disk(source), raw / _checked(name)
    _refuse_target(source, target, replace)
    layout = formats.recognise(source, options, mapper_for("read masks", _memory))
    source_notes.refuse_misplaced_masks(layout, mapper_for("compare locations", _header_memory))
    notes, noted_kinds = source_notes.notes(layout, mapper_for("read metadata", _header_memory))
    groups, group_reasons = grouping.pattern_groups(layout, options)
    plan = cutting.plan(layout, groups, options.cut)
    spec = _spec(layout, name, licence, origin)
    key = staging.fingerprint(source, _used_files(layout), options, spec.model_dump())
    with staging.folder(target, key) as folder:
        _refuse_target(source, target, replace)  # checked again, because another import may have finished meanwhile
        resumed, instances = _write(folder, layout, spec, plan, mapper_for)
        dataset = Dataset.open(folder)
        checked = per_dataset.inspect(dataset, mapper_for("check", dataset.memory))
        dataset, twin_reasons = grouping.with_twins_joined(folder, dataset, checked)
        problems = [problem for problem in per_dataset.judge(dataset, checked) if problem.kind not in noted_kinds]
        _refuse_errors(problems, layout.reasons)
        imagefiles.write_png(folder / SHEET, preview.contact_sheet(dataset, checked))
        table = tuple(preview.lines(dataset, checked, instances))
    reasons = (*layout.reasons, *notes, *group_reasons, *plan.reasons, *twin_reasons)
    return Imported(target, spec, reasons, len(dataset.images), instances, table, tuple(problems), resumed)


def is_name(name: str) -> bool:
    """Return whether a dataset may have this name."""
    return re.fullmatch(NAME, name) is not None and len(name) <= names.LONGEST


def _checked(name: str) -> str:
    if not is_name(name):
        raise DatasetError(
            f"--name {shown(name)} is not a valid name; use at most {names.LONGEST} letters, digits, '.', '_' and '-', "
            "and begin with a letter or digit"
        )
    return name


def _refuse_target(source: Path, target: Path, replace: bool) -> None:
    inner, outer = sorted((source.resolve(), target.resolve()), key=lambda path: len(path.parts), reverse=True)
    if inner.is_relative_to(outer):
        raise DatasetError(
            f"the source {source} and the dataset folder {target} are the same, or one is inside the other; move the "
            "source to another folder"
        )
    if target.exists() and not replace:
        raise DatasetError(f"{target} already exists; add --replace to replace it, or choose another --name")


def _used_files(layout: Layout) -> Iterator[Path]:
    yield from (image.file for image in layout.images.values())
    yield from (mask.file for mask in (*layout.classes.values(), *layout.instances.values()))


def _spec(layout: Layout, name: str, licence: str, origin: str) -> Spec:
    has_ignored = layout.class_of is not None and IGNORE in layout.class_of.values()
    fields = {
        "name": name,
        "classes": dict(layout.names),
        "ignore": IGNORE if has_ignored else None,
        "labels": layout.labels,
        "licence": licence,
        "source": origin,
    }
    return spec_of(fields, f"import {name}")


def _refuse_errors(problems: Sequence[Problem], reasons: Sequence[str]) -> None:
    """Raise UnfitError if `problems` contain errors in single files; ignore errors that concern the dataset as a whole.

    The message also lists the reasons for all guesses, because a wrong guess may have caused the errors.
    """
    try:
        per_dataset.refuse_errors([problem for problem in problems if not problem.of_set])
    except per_dataset.UnfitError as error:
        raise per_dataset.UnfitError(
            "\n  ".join([f"{error}\nHow `segline import` understood the source:", *reasons])
        ) from None


def _write(
    folder: Path, layout: Layout, spec: Spec, plan: cutting.CutPlan, mapper_for: MapperFactory
) -> tuple[int, int | None]:
    """Write the dataset files that do not exist yet.

    Return two values: the number of images that existed already, and the number of instances. The second value is None
    if the source has no instance masks.
    """
    mapper = mapper_for("write", lambda stem: _memory(layout.images[stem]))
    counts = _write_pixels(folder, layout, plan.blocks, mapper)
    if plan.groups is not None:
        grouping.write(folder / GROUPS, plan.groups)
    write_spec(folder / SPEC, spec)
    return counts


def _write_pixels(
    folder: Path, layout: Layout, blocks: Mapping[str, cutting.Windows], mapper: Mapper
) -> tuple[int, int | None]:
    for kind in ("images", "instances", "classes"):
        if getattr(layout, kind):
            (folder / kind).mkdir(exist_ok=True)

    def write(stem: str) -> tuple[bool, int]:
        windows = blocks[stem]
        existed = converting.write_image(layout.images[stem], folder / "images", windows)
        if layout.classes:
            converting.write_classes(layout, folder / "classes", stem, windows)
        count = converting.write_instances(layout, folder / "instances", stem, windows) if layout.instances else 0
        return existed, count

    resumed = instances = 0
    for existed, count in mapper(write, sorted(layout.images)):
        resumed += existed
        instances += count
    return resumed, instances if layout.instances else None
