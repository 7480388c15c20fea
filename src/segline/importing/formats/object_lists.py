"""Create a Layout for a source that lists the objects of each image; draw the objects into label images."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from segline.data import imagefiles
from segline.data.dataset import GROUPS, IGNORE, Kind, read_groups
from segline.data.imagefiles import Labels
from segline.files import FileError
from segline.importing.formats.regions import Painted, Points, Region, Shape, paint
from segline.importing.layout import (
    ImageSource,
    ImportOptions,
    Layout,
    LayoutError,
    Mapper,
    MaskSource,
    raise_errors,
)

TOLERANCE = 1.0  # px; a point may lie this far outside its image, because tools round coordinates
NO_SHAPES: Mapping[str, int] = {}


@dataclass(frozen=True)
class Object:
    """One object: its name in the file, the name of its class, and its pixels."""

    name: str
    label: str
    region: Region


@dataclass(frozen=True)
class ObjectList:
    """Objects and ignored regions of one image.

    Pixels of the `ignored` regions get the class IGNORE, unless an object covers them. `slivers` is the number of
    further objects that are too thin to cover the centre of a pixel. `skipped` is the number of shapes that
    --skip-shapes left out, by shape type.
    """

    file: Path
    shape: Shape
    objects: Sequence[Object]
    ignored: Sequence[Region] = ()
    slivers: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def without_slivers(
        cls,
        file: Path,
        shape: Shape,
        objects: Sequence[Object],
        ignored: Sequence[Region],
        skipped: Mapping[str, int] = NO_SHAPES,
    ) -> Self:
        """Return an ObjectList of those `objects` that cover at least one pixel; its `slivers` counts the others."""
        visible = [listed for listed in objects if listed.region.area]
        return cls(file, shape, visible, ignored, len(objects) - len(visible), skipped)

    def painted(self) -> Painted:
        """Draw all objects into one label image, with the ids 1, 2, ... in the order of the list."""
        return paint([listed.region for listed in self.objects], self.shape)


@dataclass(frozen=True)
class ListSource:
    """Source of the object list of one image; `read` opens `file` and returns the list."""

    file: Path
    read: Callable[[], ObjectList]

    @classmethod
    def background(cls, image: Path) -> Self:
        """Return a ListSource whose `read` returns an empty object list, for an image without objects."""
        return cls(image, lambda: ObjectList(image, image_shape(image), ()))


@dataclass(frozen=True)
class Survey:
    """Totals over all object lists, such as the numbers of objects, images and ignored regions.

    `objects` holds the number of objects by class name. `empty` is the number of images without objects, and `ignored`
    is the number of ignored regions. The classes Painted and ObjectList explain the other fields.
    """

    objects: Counter[str]
    images: int
    empty: int
    ignored: int
    overlapping: int
    hidden: int
    slivers: int
    skipped: Counter[str] = field(default_factory=Counter)

    def reasons(self) -> list[str]:
        """Return the totals as lines for the user."""
        several = len(self.objects) > 1
        kinds = ": " + ", ".join(f"{count} {label}" for label, count in self.objects.most_common()) if several else ""
        none = f"; {self.empty} image(s) have no object" if self.empty else ""
        lines = [f"{self.objects.total()} objects in {self.images} images{kinds}{none}"]
        if self.overlapping:
            hidden = f"; {self.hidden} object(s) are hidden by others and left out" if self.hidden else ""
            lines.append(
                f"objects overlap: {self.overlapping} pixels went to the smaller object, or to the later of two "
                f"equally large objects{hidden}"
            )
        if self.slivers:
            lines.append(f"{self.slivers} object(s) cover no pixel centre and are left out")
        if self.skipped:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.skipped.most_common())
            lines.append(f"{self.skipped.total()} shape(s) that enclose no area are left out (--skip-shapes): {kinds}")
        if self.ignored:
            lines.append(f"the pixels of {self.ignored} region(s) are ignored (crowds, or the label __ignore__)")
        return lines


def survey(lists: Mapping[str, ListSource], mapper: Mapper) -> Survey:
    """Read every object list once and sum the counts of all lists.

    Raises
    ------
    LayoutError
        Some lists are faulty, or there is no object at all.
    """
    results = list(mapper(_survey_of, [lists[stem] for stem in sorted(lists)]))
    raise_errors([error for error in results if isinstance(error, str)])
    surveys = [result for result in results if isinstance(result, Survey)]
    objects: Counter[str] = sum((part.objects for part in surveys), Counter())
    empty, ignored, overlapping, hidden, slivers = (
        sum(getattr(part, field) for part in surveys)
        for field in ("empty", "ignored", "overlapping", "hidden", "slivers")
    )
    if not objects:
        thin = f" ({slivers} object(s) cover no pixel centre; coordinates must be in pixels)" if slivers else ""
        raise LayoutError(f"none of the {len(surveys)} images has an object{thin}; are these the right labels?")
    skipped: Counter[str] = sum((part.skipped for part in surveys), Counter())
    return Survey(objects, len(surveys), empty, ignored, overlapping, hidden, slivers, skipped)


def _survey_of(source: ListSource) -> Survey | str:
    """Return the totals of one object list; if the list is faulty, return the error message."""
    try:
        listed = source.read()
    except (LayoutError, FileError) as error:
        return str(error)
    painted = listed.painted()
    labels = Counter(item.label for item in listed.objects)
    empty, ignored = int(not listed.objects), len(listed.ignored)
    return Survey(
        labels, 1, empty, ignored, painted.overlapping, painted.hidden, listed.slivers, Counter(listed.skipped)
    )


def layout(
    source: Path,
    options: ImportOptions,
    *,
    images: Mapping[str, ImageSource],
    lists: Mapping[str, ListSource],
    names: Mapping[int, str],
    surveyed: Survey,
    reasons: Sequence[str],
) -> Layout:
    """Return a Layout that describes a source with one object list per image; `names` holds the class names by id.

    The layout has instance masks and, if there are several classes or ignored regions, class masks. With
    --labels classes it has only class masks. Groups come from groups.csv in `source`.

    Raises
    ------
    LayoutError
        `options` hold an option that lists of objects do not support.
    """
    kind, reason = _kind(options)
    with_classes = kind == "classes" or len(names) > 2 or surveyed.ignored > 0
    ids = {name: class_id for class_id, name in names.items()}
    ignored = {IGNORE: IGNORE} if surveyed.ignored else {}
    return Layout(
        images,
        kind,
        renamed(names, options),
        (*reasons, reason, *surveyed.reasons()),
        classes=_masks(lists, partial(_classes, ids=ids)) if with_classes else {},
        instances=_masks(lists, _instances) if kind == "instances" else {},
        class_of={class_id: class_id for class_id in names} | ignored if with_classes else None,
        groups=read_groups(source / GROUPS, images) if (source / GROUPS).exists() else None,
    )


def _kind(options: ImportOptions) -> tuple[Kind, str]:
    """Return two values: the kind of labels, and a line with the reason for this kind.

    The kind is instances, unless --labels states another kind.
    """
    if options.labels == "boundaries":
        raise LayoutError(
            "--labels boundaries: this source lists objects one by one, not borders; leave the option out"
        )
    if options.labels:
        return options.labels, f"labels: {options.labels} (--labels)"
    return "instances", "labels: instances, because objects are listed one by one; for areas, add --labels classes"


def renamed(names: Mapping[int, str], options: ImportOptions) -> dict[int, str]:
    """Return the class names as a dict with ids as keys; a name given with --class replaces the name in `names`.

    Raises
    ------
    LayoutError
        --class names a class that does not exist.
    """
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        existing = ", ".join(f"{class_id} {name}" for class_id, name in sorted(names.items()))
        raise LayoutError(f"--class {unknown[0]}: there is no such class; the classes are {existing}")
    return dict(sorted({**names, **options.names}.items()))


def _masks(lists: Mapping[str, ListSource], labels_of: Callable[[ObjectList], Labels]) -> dict[str, MaskSource]:
    return {stem: MaskSource(source.file, partial(_read, source, labels_of)) for stem, source in lists.items()}


def _read(source: ListSource, labels_of: Callable[[ObjectList], Labels]) -> Labels:
    return labels_of(source.read())


def _instances(listed: ObjectList) -> Labels:
    return listed.painted().labels


def _classes(listed: ObjectList, ids: Mapping[str, int]) -> Labels:
    instances = listed.painted().labels
    classes: Labels = np.array([0, *(ids[item.label] for item in listed.objects)], np.uint8)[instances]
    for region in listed.ignored:
        part, objects = classes[region.window], instances[region.window] > 0
        part[region.inside & ~objects] = IGNORE
    return classes


def refuse_other_size(image: Path, file: Path, shape: Shape) -> None:
    """Raise LayoutError if `shape`, as stated in `file`, differs from the size of `image`.

    Call this before drawing anything.
    """
    actual = image_shape(image)
    if actual != shape:
        raise LayoutError(
            f"{file} gives the size {size(shape)} px (width x height) for the image {image}, but this image is "
            f"{size(actual)} px. The image file is a different image, or was resized or rotated after labelling; use "
            f"the image that was labelled{imagefiles.turned(image)}"
        )


def refuse_outside(points: Points, shape: Shape, where: str) -> Points:
    """Return `points` (N, 2) unchanged; refuse points more than TOLERANCE px outside an image of `shape`.

    Raises
    ------
    LayoutError
        A point lies more than TOLERANCE px outside; the message begins with `where`.
    """
    outside = (points < -TOLERANCE) | (points > np.array(shape[::-1]) + TOLERANCE)
    if outside.any():
        x, y = points[outside.any(axis=1)][0]
        raise LayoutError(
            f"{where}: point x {x:g}, y {y:g} is outside the image of {size(shape)} px; give coordinates in pixels of "
            "this image, or remove the outline"
        )
    return points


def image_shape(file: Path) -> Shape:
    """Return the height and width of an image file."""
    header = imagefiles.image_size(file)
    return header.height, header.width


def size(shape: Sequence[int]) -> str:
    """Format a shape (height, width) as the text WIDTHxHEIGHT."""
    return f"{shape[1]}x{shape[0]}"
