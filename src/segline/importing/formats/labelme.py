"""Layout: LabelMe, one JSON file an image, with polygons, rectangles, circles and masks."""

import base64
import binascii
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segline import files, names, parse
from segline.data.dataset import IGNORE
from segline.importing.formats import Each, Layout, LayoutError, Picture, Wishes, drawings, finding, flags, some, survey
from segline.importing.formats.drawings import Drawing, Object, Sheet
from segline.importing.formats.regions import Points, Region, Shape, disc, polygon, union
from segline.model.images import ImageError, decode

SIGNS = (b'"shapes"',)
# How many points a kind of shape has; a polygon has 3 or more.
POINTS = {
    "polygon": (), "rectangle": (2, 4), "circle": (2,), "mask": (2,),
    "rotation": (4,), "oriented_rectangle": (4,), "quadrilateral": (4,),
}  # fmt: skip
SKIP = "--skip-shapes leaves out what encloses nothing"
UNCOUNTED, BACKGROUND = "__ignore__", "background"


def recognise(source: Path, wishes: Wishes, each: Each = map) -> Layout | None:
    """What `source`, a JSON file or a folder with some, holds; None when there is no LabelMe JSON.

    Labels become classes 1, 2, ... in alphabetical order, or as the person numbers them; `__ignore__` does not count.
    Shapes of one label and `group_id` are one object. Outlines are filled by the rule of `regions`; where objects
    overlap, the smaller one has the pixels.

    Raises
    ------
    LayoutError, FileError
        A shape that encloses nothing or lies outside its image, a missing image, a label that the person does not name.
    """
    said = list(_said(source))
    if not said:
        return None
    flags.refuse(wishes, "LabelMe shapes", "missing_as_background", "skip_shapes")
    there = finding.Images.below(source)
    named, missing = _named(said, there)
    skipped = finding.refuse_or_skip(missing, wishes, "JSON file(s) without image")
    left = there.left(named)
    _refuse_passed_over(left, set(finding.jsons(source)) - {file for file, _, _ in said})
    blank = left if wishes.missing_as_background else []
    drawn = {image: Sheet(file, partial(_read, file, image, wishes.skip_shapes)) for image, file in named.items()}
    drawn |= {image: Sheet.blank(image) for image in blank}
    stems = finding.stems(list(drawn), there.root)
    sheets = dict(zip(stems, drawn.values(), strict=True))
    found = survey.survey(sheets, each)
    by_id, why = _classes(found.objects, wishes)
    if left and not blank:
        skipped.append(
            f"{len(left)} image file(s) have no JSON and were left out; if they hold no object, say "
            "--missing-as-background"
        )
    return survey.layout(
        there.root,
        wishes,
        pictures=dict(zip(stems, map(Picture, drawn), strict=True)),
        sheets=sheets,
        names=by_id,
        found=found,
        reasons=[f"LabelMe annotations, {len(named)} JSON files", why, *finding.blank(len(blank)), *skipped],
    )


def _said(source: Path) -> Iterator[tuple[Path, object, bool]]:
    """Each LabelMe file, which image it names, and whether it holds the image's pixels as well."""
    for file, content in finding.contents(source, SIGNS):
        if isinstance(content, dict) and "shapes" in content:
            if isinstance(content["shapes"], list):
                yield file, content.get("imagePath"), bool(content.get("imageData"))
            elif "imagePath" in content:
                raise LayoutError(f"{file}: shapes is {str(content['shapes'])[:40]}, not a list; [] says none: mend it")


def _refuse_passed_over(unnamed: Sequence[Path], others: Set[Path]) -> None:
    """A JSON file that lies beside its image, but says nothing of shapes: half written, or of another tool."""
    beside = {image: image.with_suffix(".json") for image in unnamed}
    drawings.refuse(
        [
            f"{file}: {'is empty' if not file.stat().st_size else 'has no field shapes'}, though it lies beside "
            f"{image.name}, and other files here are LabelMe's; mend or remove it"
            for image, file in beside.items()
            if file in others
        ]
    )


def _named(said: Sequence[tuple[Path, object, bool]], there: finding.Images) -> tuple[dict[Path, Path], list[str]]:
    """The JSON file of each image, and what is wrong where there is no image."""
    missing, twice, found = [], [], dict[Path, Path]()
    for file, name, pixels in said:
        try:
            image = _image(file, name, pixels, there)
        except LayoutError as error:
            missing.append(str(error))
            continue
        if image in found:
            twice.append(f"{file}: imagePath is {image}, as in {found[image].name}; keep one of them")
        found[image] = file
    drawings.refuse(twice)
    return found, missing


def _image(file: Path, name: object, pixels: bool, there: finding.Images) -> Path:
    if not isinstance(name, str) or not name:
        raise LayoutError(f"{file}: imagePath is {name!r}; it names the image: mend it")
    try:
        return there.find(name, file, "imagePath")
    except LayoutError as error:
        if not pixels:
            raise
        raise LayoutError(f"{error} (imageData has its pixels: labelme_export_json writes them out)") from None


def _read(file: Path, image: Path, skip: bool = False) -> Drawing:
    """The objects of one image."""
    content = files.read_json(file, parse.DATA_SIZE, loose=True)
    shape = content.get("imageHeight"), content.get("imageWidth")
    if not all(isinstance(side, int) and side > 0 for side in shape):
        shape = drawings.image_shape(image)
    drawings.refuse_other_size(image, file, shape)
    objects: dict[object, Object] = {}
    ignored, skipped = [], Counter[str]()
    for number, one in enumerate(content["shapes"]):
        if skip and (kind := _encloses_nothing(one)):
            skipped[kind] += 1
            continue
        label, group, region = _shape(one, shape, f"{file}: shapes[{number}]")
        if label == UNCOUNTED:
            ignored.append(region)
            continue
        key = number if group is None else (label, group)
        name = f"shapes[{number}] ({label})"
        if key in objects:
            name, region = objects[key].name, union([objects[key].region, region])
        objects[key] = Object(name, label, region)
    return Drawing.outlined(file, shape, list(objects.values()), ignored, skipped)


def _encloses_nothing(one: Any) -> str | None:
    """The kind of a shape that has no area: one that is not read, or a polygon of less than three points."""
    if not isinstance(one, dict):
        return None
    kind, points = one.get("shape_type") or "polygon", one.get("points")
    few = kind == "polygon" and isinstance(points, list) and len(points) < 3
    return str(kind)[:40] if few or (isinstance(kind, str) and kind not in POINTS) else None


def _shape(one: Any, shape: Shape, where: str) -> tuple[str, object, Region]:
    """Label, group and pixels of one shape."""
    if not isinstance(one, dict):
        raise LayoutError(f"{where} is {str(one)[:40]!r}, not fields such as label and points; mend or remove it")
    label, kind, group = one.get("label"), one.get("shape_type") or "polygon", one.get("group_id")
    if not isinstance(label, str) or not label.strip():
        raise LayoutError(f"{where}: label is {label!r}; it names the class: mend it")
    try:
        label = names.check(label.strip(), f"{where}: label")
    except names.NamingError as error:
        raise LayoutError(str(error)) from None
    where = f"{where} ({label})"
    if isinstance(group, dict | list):
        raise LayoutError(f"{where}: group_id is {str(group)[:40]}, not a number; mend it")
    if not isinstance(kind, str) or kind not in POINTS:
        raise LayoutError(
            f"{where}: shape_type {str(kind)[:40]} is not read, for it is no area; outline it as {', '.join(POINTS)}, "
            f"or remove it; {SKIP}"
        )
    points = drawings.outline(one.get("points") or [[]], shape, where)
    counts = POINTS[kind] or range(3, len(points) + 1)
    if len(points) not in counts:
        needs = " or ".join(map(str, POINTS[kind])) or "3 at least"
        raise LayoutError(f"{where}: a {kind} of {len(points)} point(s); it needs {needs}: mend or remove it; {SKIP}")
    return label, group, _region(kind, points, one, shape, where)


def _region(kind: str, points: Points, one: Mapping[str, Any], shape: Shape, where: str) -> Region:
    if kind == "circle":
        return disc(points[0], float(np.hypot(*(points[1] - points[0]))), shape)
    if kind == "mask":
        return _mask(one.get("mask"), points, shape, where)
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return polygon(points, shape)


def _mask(encoded: Any, points: Points, shape: Shape, where: str) -> Region:
    """Pixels that LabelMe drew itself, in a PNG whose upper left pixel is the first point."""
    try:
        mask = decode(base64.b64decode(encoded))[..., 0] > 0
    except (TypeError, binascii.Error, ImageError) as error:
        raise LayoutError(f"{where}: mask is no image in base64 ({error}); mend or remove it") from error
    left, top = np.rint(points[0]).astype(int)
    height, width = mask.shape
    if left < 0 or top < 0 or top + height > shape[0] or left + width > shape[1]:
        raise LayoutError(
            f"{where}: mask of {drawings.size(mask.shape)} px at x {left}, y {top} is not inside the image of "
            f"{drawings.size(shape)} px; mend or remove it"
        )
    return Region(int(top), int(left), mask)


def _classes(labels: Counter[str], wishes: Wishes) -> tuple[dict[int, str], str]:
    """Names by class id, and how labels became classes."""
    if labels[BACKGROUND] or labels["_background_"]:
        raise LayoutError(
            f"a label is {BACKGROUND}, but background is what no shape covers; remove or rename these shapes"
        )
    given = {class_id: name for class_id, name in wishes.names.items() if class_id}
    if given:
        _refuse_unnamed(labels, given)
    named = dict(sorted(given.items())) or dict(enumerate(sorted(labels), 1))
    if len(named) >= IGNORE:
        raise LayoutError(
            f"{len(named)} labels, such as {some(list(named.values()))}; {IGNORE - 1} at most are classes"
        )
    table = some([f"{name} -> {class_id}" for class_id, name in named.items()])
    how = "as told" if given else "in alphabetical order; to have another, say --class ID=LABEL for each"
    return {0: BACKGROUND} | named, f"labels to classes: {table} ({how})"


def _refuse_unnamed(labels: Mapping[str, int], given: Mapping[int, str]) -> None:
    unnamed = sorted(set(labels) - set(given.values()))
    if unnamed:
        raise LayoutError(
            f"--class: labels {some(unnamed)} have no class; name every label, such as "
            f"--class {max(given) + 1}={unnamed[0]}, or none"
        )
