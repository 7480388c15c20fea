"""Brings a foreign layout into a dataset folder: all of it or nothing, and the source is only read."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segline.data import check, files, labels
from segline.data.dataset import (
    GROUPS,
    IGNORE,
    NAME,
    SPEC,
    Dataset,
    DatasetError,
    Kind,
    Spec,
    read_groups,
    spec_of,
    write_spec,
)
from segline.data.formats import Layout, folders

RAW = Path("data/raw")
MOST_INSTANCES = np.iinfo(np.uint16).max

Each = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


@dataclass(frozen=True)
class Imported:
    """What import made: the folder, what it says of itself, why, how much there is, what is to be minded."""

    folder: Path
    spec: Spec
    reasons: tuple[str, ...]
    images: int
    instances: int | None  # where they can be counted
    pixels: Mapping[int, int]  # by class id
    problems: tuple[check.Problem, ...]


def bring(
    source: Path,
    name: str,
    *,
    kind: Kind | None = None,
    names: Mapping[int, str] | None = None,
    ignore: int | None = None,
    licence: str = "",
    origin: str = "",
    replace: bool = False,
    raw: Path = RAW,
    each: Each = map,
) -> Imported:
    """Make the dataset folder `raw`/`name` of `source`; images are copied byte for byte.

    Parameters
    ----------
    kind, names, ignore : see `folders.recognise`.
    licence, origin : go into dataset.yaml as licence and source.
    replace : whether a folder that is there may be replaced.
    each : like `map`; hand over one that uses all cores and shows progress.

    Raises
    ------
    DatasetError, LayoutError, FileError, UnfitError
        The target is there already, or something in `source` cannot be meant; nothing is left behind.
    """
    if not re.match(NAME, name):
        raise DatasetError(f"--name {name!r}: use letters, digits, . _ - and begin with a letter or digit")
    target = raw / name
    _refuse_target(source, target, replace)
    layout = folders.recognise(source, labels=kind, names=names, ignore=ignore, each=each)
    groups = read_groups(layout.groups, layout.images) if layout.groups else None
    ignores = layout.class_of is not None and IGNORE in layout.class_of.values()
    fields = {
        "name": name,
        "classes": dict(layout.classes),
        "ignore": IGNORE if ignores else None,
        "labels": layout.labels,
        "licence": licence,
        "source": origin,
    }
    spec = spec_of(fields, f"import {name}")
    with files.whole_folder(target) as folder:
        found = _fill(folder, layout, spec, groups, each)
        problems = check.problems(Dataset.open(folder), each)
        check.refuse_errors([problem for problem in problems if not problem.of_set])
    pixels: np.ndarray[Any, Any] = np.sum([pixels for _, pixels in found], axis=0)
    counted = sum(count for count, _ in found) if layout.labels == "instances" else None
    shares = {class_id: int(pixels[class_id]) for class_id in spec.classes}
    return Imported(target, spec, layout.reasons, len(layout.images), counted, shares, tuple(problems))


def _refuse_target(source: Path, target: Path, replace: bool) -> None:
    inner, outer = sorted((source.resolve(), target.resolve()), key=lambda path: len(path.parts), reverse=True)
    if inner.is_relative_to(outer):
        raise DatasetError(f"{source} and {target} lie in one another; import from a folder elsewhere")
    if target.exists() and not replace:
        raise DatasetError(f"{target} is there already; say --replace to replace it, or choose another --name")


def _fill(
    folder: Path, layout: Layout, spec: Spec, groups: Mapping[str, str] | None, each: Each
) -> list[tuple[int, "np.ndarray[Any, Any]"]]:
    """Write the dataset; return the number of instances and the pixels by class of each image."""
    kind = "instances" if layout.class_of is None else "classes"
    files.make_folder(folder / "images")
    files.make_folder(folder / kind)

    def write(stem: str) -> tuple[int, "np.ndarray[Any, Any]"]:
        files.copy(layout.images[stem], folder / "images" / layout.images[stem].name)
        mask = converted(layout, stem)
        files.write_png(folder / kind / f"{stem}.png", mask)
        if kind == "instances":
            return int(np.setdiff1d(mask, 0).size), np.bincount((mask > 0).ravel(), minlength=IGNORE + 1)
        return 0, np.bincount(mask.ravel(), minlength=IGNORE + 1)

    found = list(each(write, sorted(layout.images)))
    if groups is not None:
        import pandas as pd

        files.write_table(folder / GROUPS, pd.DataFrame(sorted(groups.items()), columns=["image", "group"]))
    write_spec(folder / SPEC, spec)
    return found


def converted(layout: Layout, stem: str) -> files.Labels:
    """The mask of one image as the dataset holds it: uint16 instances or uint8 classes (H, W)."""
    mask = files.read_labels(layout.masks[stem])
    if layout.class_of is not None:
        table = np.zeros(max(*layout.class_of, int(mask.max(initial=0))) + 1, np.uint8)
        table[list(layout.class_of)] = list(layout.class_of.values())
        return table[mask]
    instances = labels.components((mask > 0).astype(np.uint8)) if layout.joined else mask
    if instances.max(initial=0) > MOST_INSTANCES:
        instances, count = labels.renumber(instances)
        if count > MOST_INSTANCES:
            raise DatasetError(f"{layout.masks[stem]}: {count} instances; {MOST_INSTANCES} at most, cut the image")
    return instances.astype(np.uint16)
