"""What all listed objects together hold, and the layout that follows: painted into label images."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from segline.data.dataset import GROUPS, IGNORE, Kind, read_groups
from segline.data.imagefiles import Labels
from segline.files import FileError
from segline.importing.formats import Each, Layout, LayoutError, Mask, Picture, Wishes
from segline.importing.formats.drawings import Drawing, Sheet, refuse


@dataclass(frozen=True)
class Survey:
    """What all drawings together hold: objects by class, images without any, what overlaps cost, and slivers."""

    objects: Counter[str]
    images: int
    empty: int
    ignored: int
    taken: int
    gone: int
    slivers: int
    skipped: Counter[str] = field(default_factory=Counter)

    def reasons(self) -> list[str]:
        """One line a fact that the person should know."""
        several = len(self.objects) > 1
        kinds = ": " + ", ".join(f"{count} {label}" for label, count in self.objects.most_common()) if several else ""
        none = f"; {self.empty} image(s) have none" if self.empty else ""
        lines = [f"{self.objects.total()} objects in {self.images} images{kinds}{none}"]
        if self.taken:
            gone = f"; {self.gone} object(s) lie wholly under others and are left out" if self.gone else ""
            lines.append(
                f"objects overlap: {self.taken} pixels went to the smaller one, or of one size the later{gone}"
            )
        if self.slivers:
            lines.append(f"{self.slivers} object(s) cover the centre of no pixel and are left out")
        if self.skipped:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.skipped.most_common())
            lines.append(f"{self.skipped.total()} shape(s) that enclose nothing are left out, as told: {kinds}")
        if self.ignored:
            lines.append(f"{self.ignored} region(s) hold what was not told apart; their pixels do not count")
        return lines


def survey(sheets: Mapping[str, Sheet], each: Each) -> Survey:
    """Read everything once.

    Raises
    ------
    LayoutError
        What is wrong with any of them, or that there is no object at all.
    """
    looked = list(each(_look, [sheets[stem] for stem in sorted(sheets)]))
    refuse([error for error in looked if isinstance(error, str)])
    seen = [one for one in looked if isinstance(one, Survey)]
    objects: Counter[str] = sum((one.objects for one in seen), Counter())
    empty, ignored, taken, gone, slivers = (
        sum(getattr(one, field) for one in seen) for field in ("empty", "ignored", "taken", "gone", "slivers")
    )
    if not objects:
        thin = f" ({slivers} cover the centre of no pixel; coordinates are pixels)" if slivers else ""
        raise LayoutError(f"none of {len(seen)} images has an object{thin}; are these the right labels?")
    skipped: Counter[str] = sum((one.skipped for one in seen), Counter())
    return Survey(objects, len(seen), empty, ignored, taken, gone, slivers, skipped)


def _look(sheet: Sheet) -> Survey | str:
    """What one drawing holds, or what is wrong with it."""
    try:
        drawing = sheet.read()
    except (LayoutError, FileError) as error:
        return str(error)
    painted = drawing.painted()
    labels = Counter(thing.label for thing in drawing.objects)
    empty = int(not drawing.objects)
    return Survey(
        labels, 1, empty, len(drawing.ignored), painted.taken, painted.gone, drawing.slivers, Counter(drawing.skipped)
    )


def layout(
    source: Path,
    wishes: Wishes,
    *,
    pictures: Mapping[str, Picture],
    sheets: Mapping[str, Sheet],
    names: Mapping[int, str],
    found: Survey,
    reasons: Sequence[str],
) -> Layout:
    """The layout of objects whose labels are the `names` of classes from 1 on; groups as in groups.csv of `source`.

    Instances and, where there are several classes or ignored regions, classes; only classes where the person says so.

    Raises
    ------
    LayoutError
        A wish that cannot be granted.
    """
    kind, why = _kind(wishes)
    several = kind == "classes" or len(names) > 2 or found.ignored > 0
    ids = {name: class_id for class_id, name in names.items()}
    ignored = {IGNORE: IGNORE} if found.ignored else {}
    return Layout(
        pictures,
        kind,
        renamed(names, wishes),
        (*reasons, why, *found.reasons()),
        classes=_masks(sheets, partial(_classes, ids=ids)) if several else {},
        instances=_masks(sheets, _instances) if kind == "instances" else {},
        class_of={class_id: class_id for class_id in names} | ignored if several else None,
        groups=read_groups(source / GROUPS, pictures) if (source / GROUPS).exists() else None,
    )


def _kind(wishes: Wishes) -> tuple[Kind, str]:
    """What the labels are taken for, and why."""
    if wishes.labels == "boundaries":
        raise LayoutError("--labels boundaries: objects are listed one by one, not parted by a line; leave it out")
    if wishes.labels:
        return wishes.labels, f"labels: {wishes.labels}, as told"
    return "instances", "labels: instances, for objects are listed one by one; for areas, say --labels classes"


def renamed(names: Mapping[int, str], wishes: Wishes) -> dict[int, str]:
    """`names` by class id, as the person has them."""
    strange = sorted(set(wishes.names) - set(names))
    if strange:
        there = ", ".join(f"{class_id} {name}" for class_id, name in sorted(names.items()))
        raise LayoutError(f"--class {strange[0]}: there is no such class; there are {there}")
    return dict(sorted({**names, **wishes.names}.items()))


def _masks(sheets: Mapping[str, Sheet], labels_of: Callable[[Drawing], Labels]) -> dict[str, Mask]:
    return {stem: Mask(sheet.file, partial(_read, sheet, labels_of)) for stem, sheet in sheets.items()}


def _read(sheet: Sheet, labels_of: Callable[[Drawing], Labels]) -> Labels:
    return labels_of(sheet.read())


def _instances(drawing: Drawing) -> Labels:
    return drawing.painted().labels


def _classes(drawing: Drawing, ids: Mapping[str, int]) -> Labels:
    instances = drawing.painted().labels
    classes: Labels = np.array([0, *(ids[thing.label] for thing in drawing.objects)], np.uint8)[instances]
    for region in drawing.ignored:
        part, objects = classes[region.window], instances[region.window] > 0
        part[region.inside & ~objects] = IGNORE
    return classes
