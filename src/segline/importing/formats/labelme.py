"""LabelMe layout: one JSON file per image, with polygons, rectangles, circles and masks."""

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
from segline.importing.formats import lookup, object_lists
from segline.importing.formats.object_lists import ListSource, Object, ObjectList
from segline.importing.formats.regions import Points, Region, Shape, disc, polygon, union
from segline.importing.formats.schemas import LabelMeShape, validated
from segline.importing.layout import (
    ImageSource,
    ImportOptions,
    Layout,
    LayoutError,
    Mapper,
    background_only,
    first_few,
    raise_errors,
    refuse_options,
    refuse_or_skip,
)
from segline.model.images import ImageError, decode
from segline.text import shown

KEYS = (b'"shapes"',)
# The numbers of points that each type of shape may have. A polygon may have 3 or more points.
POINTS = {
    "polygon": (), "rectangle": (2, 4), "circle": (2,), "mask": (2,),
    "rotation": (4,), "oriented_rectangle": (4,), "quadrilateral": (4,),
}  # fmt: skip
SKIP = "--skip-shapes leaves out shapes that enclose no area"
IGNORED, BACKGROUND = "__ignore__", "background"


def recognise(source: Path, options: ImportOptions, mapper: Mapper = map) -> Layout | None:
    """Return the Layout of `source` if it is a LabelMe file or a folder with LabelMe files; otherwise None.

    Labels become classes 1, 2, ... in alphabetical order, unless --class numbers them. Shapes with the label
    `__ignore__` mark ignored pixels. Shapes with the same label and `group_id` are one object. Outlines are filled as
    the module `regions` describes. Where objects overlap, the smaller object gets the pixels.

    Raises
    ------
    LayoutError, FileError
        A shape encloses no area or lies outside its image, an image is missing, or --class does not name every label.
    """
    documents = list(_documents(source))
    if not documents:
        return None
    refuse_options(options, "LabelMe shapes", "missing_as_background", "skip_shapes")
    available = lookup.Images.below(source)
    json_of, errors = _json_by_image(documents, available)
    notes = refuse_or_skip(errors, options, "JSON file(s) without image")
    unlabelled = available.without(json_of)
    _refuse_unreadable(unlabelled, set(lookup.json_files(source)) - {file for file, _, _ in documents})
    blank = unlabelled if options.missing_as_background else []
    sources = {
        image: ListSource(file, partial(_read, file, image, options.skip_shapes)) for image, file in json_of.items()
    }
    sources |= {image: ListSource.background(image) for image in blank}
    stems = lookup.stems(list(sources), available.root)
    lists = dict(zip(stems, sources.values(), strict=True))
    surveyed = object_lists.survey(lists, mapper)
    class_names, class_reason = _classes(surveyed.objects, options)
    if unlabelled and not blank:
        notes.append(
            f"{len(unlabelled)} image file(s) have no JSON and were left out; if they hold no object, add "
            "--missing-as-background"
        )
    return object_lists.layout(
        available.root,
        options,
        images=dict(zip(stems, map(ImageSource, sources), strict=True)),
        lists=lists,
        names=class_names,
        surveyed=surveyed,
        reasons=[f"LabelMe annotations, {len(json_of)} JSON files", class_reason, *background_only(len(blank)), *notes],
    )


def _documents(source: Path) -> Iterator[tuple[Path, object, bool]]:
    """Yield three values for each LabelMe file: its path, its imagePath, and whether the file also holds the image."""
    for file, content in lookup.json_contents(source, KEYS):
        if isinstance(content, dict) and "shapes" in content:
            if isinstance(content["shapes"], list):
                yield file, content.get("imagePath"), bool(content.get("imageData"))
            elif "imagePath" in content:
                raise LayoutError(
                    f"{file}: the field 'shapes' is {shown(content['shapes'], 40)}, not a list; write a list (use [] "
                    "if there are no objects)"
                )


def _refuse_unreadable(unlabelled: Sequence[Path], others: Set[Path]) -> None:
    """Refuse a JSON file that is not a LabelMe file, but has the stem of an unlabelled image in the same folder.

    Such a file may be truncated, or written by another tool.
    """
    beside = {image: image.with_suffix(".json") for image in unlabelled}
    raise_errors(
        [
            f"{file} {'is empty' if not file.stat().st_size else 'has no field shapes'}, but it lies beside the image "
            f"{image.name}, and other JSON files here are LabelMe files; correct or remove this JSON file"
            for image, file in beside.items()
            if file in others
        ]
    )


def _json_by_image(
    documents: Sequence[tuple[Path, object, bool]], available: lookup.Images
) -> tuple[dict[Path, Path], list[str]]:
    """Return two values: the JSON file of each image, and an error message for each JSON file without image."""
    missing, repeated, json_of = [], [], dict[Path, Path]()
    for file, name, has_pixels in documents:
        try:
            image = _image(file, name, has_pixels, available)
        except LayoutError as error:
            missing.append(str(error))
            continue
        if image in json_of:
            repeated.append(
                f"{file}: imagePath names {image}, but {json_of[image].name} names the same image; keep one of the two "
                "JSON files"
            )
        json_of[image] = file
    raise_errors(repeated)
    return json_of, missing


def _image(file: Path, name: object, has_pixels: bool, available: lookup.Images) -> Path:
    if not isinstance(name, str) or not name:
        raise LayoutError(f"{file}: imagePath is {shown(name)}, but must be the name of the image; correct imagePath")
    try:
        return available.find(name, file, "imagePath")
    except LayoutError as error:
        if not has_pixels:
            raise
        raise LayoutError(
            f"{error} (the field imageData of the JSON file holds the image; extract the image with the program "
            "labelme_export_json)"
        ) from None


def _read(file: Path, image: Path, skip: bool = False) -> ObjectList:
    """Read the objects of one image; if `skip` is True, leave out shapes that enclose no area."""
    content = files.read_json(file, parse.DATA_SIZE, loose=True)
    shape = content.get("imageHeight"), content.get("imageWidth")
    if not all(isinstance(side, int) and side > 0 for side in shape):
        shape = object_lists.image_shape(image)
    object_lists.refuse_other_size(image, file, shape)
    objects: dict[object, Object] = {}
    ignored, skipped = [], Counter[str]()
    for number, item in enumerate(content["shapes"]):
        if skip and (kind := _kind_without_area(item)):
            skipped[kind] += 1
            continue
        label, group, region = _labelled_region(item, shape, f"{file}: shapes[{number}]")
        if label == IGNORED:
            ignored.append(region)
            continue
        key = number if group is None else (label, group)
        name = f"shapes[{number}] ({label})"
        if key in objects:
            name, region = objects[key].name, union([objects[key].region, region])
        objects[key] = Object(name, label, region)
    return ObjectList.without_slivers(file, shape, list(objects.values()), ignored, skipped)


def _kind_without_area(item: Any) -> str | None:
    """Return the type of the shape `item` if the shape encloses no area; otherwise None.

    Such a shape has an unsupported type, or is a polygon with fewer than 3 points.
    """
    if not isinstance(item, dict):
        return None
    kind, points = item.get("shape_type") or "polygon", item.get("points")
    few = kind == "polygon" and isinstance(points, list) and len(points) < 3
    return str(kind)[:40] if few or (isinstance(kind, str) and kind not in POINTS) else None


def _labelled_region(item: Any, shape: Shape, where: str) -> tuple[str, object, Region]:
    """Return the label, the group_id and the pixels of one shape."""
    fields = validated(LabelMeShape, item, where)
    kind = fields.shape_type or "polygon"
    try:
        label = names.check(fields.label.strip(), f"{where}: label")
    except names.NamingError as error:
        raise LayoutError(str(error)) from None
    where = f"{where} ({label})"
    if not isinstance(kind, str) or kind not in POINTS:
        raise LayoutError(
            f"{where}: shape_type {shown(kind, 40)} is not supported, because such a shape encloses no area; outline "
            f"the object as {', '.join(POINTS)}, or remove the shape; {SKIP}"
        )
    counts = POINTS[kind] or range(3, len(fields.points) + 1)
    if len(fields.points) not in counts:
        needed = " or ".join(map(str, POINTS[kind])) or "at least 3"
        raise LayoutError(
            f"{where}: the {kind} has {len(fields.points)} point(s), but it needs {needed}; correct or remove the "
            f"shape; {SKIP}"
        )
    points = object_lists.refuse_outside(np.array(fields.points, np.float64), shape, where)
    return label, fields.group_id, _region(kind, points, fields.mask, shape, where)


def _region(kind: str, points: Points, mask: Any, shape: Shape, where: str) -> Region:
    if kind == "circle":
        return disc(points[0], float(np.hypot(*(points[1] - points[0]))), shape)
    if kind == "mask":
        return _decoded_mask(mask, points, shape, where)
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return polygon(points, shape)


def _decoded_mask(encoded: Any, points: Points, shape: Shape, where: str) -> Region:
    """Decode a base64-encoded mask; the upper left pixel of the mask lies at the first point of `points`."""
    try:
        mask = decode(base64.b64decode(encoded))[..., 0] > 0
    except (TypeError, binascii.Error, ImageError) as error:
        raise LayoutError(
            f"{where}: the field 'mask' is not a base64-encoded image ({error}); correct or remove the shape"
        ) from error
    left, top = np.rint(points[0]).astype(int)
    height, width = mask.shape
    if left < 0 or top < 0 or top + height > shape[0] or left + width > shape[1]:
        raise LayoutError(
            f"{where}: the mask of {object_lists.size(mask.shape)} px at x {left}, y {top} is not inside the image of "
            f"{object_lists.size(shape)} px; correct or remove the shape"
        )
    return Region(int(top), int(left), mask)


def _classes(labels: Counter[str], options: ImportOptions) -> tuple[dict[int, str], str]:
    """Return two values: the class names by id, and a line that tells the user the class of each label."""
    if labels[BACKGROUND] or labels["_background_"]:
        raise LayoutError(
            f"some shapes have the label {BACKGROUND}, but background means the pixels without any shape; remove or "
            "rename these shapes"
        )
    requested = {class_id: name for class_id, name in options.names.items() if class_id}
    if requested:
        _refuse_unnamed(labels, requested)
    classes = dict(sorted(requested.items())) or dict(enumerate(sorted(labels), 1))
    if len(classes) >= IGNORE:
        raise LayoutError(
            f"there are {len(classes)} labels, such as {first_few(list(classes.values()))}, but segline supports "
            f"{IGNORE - 1} classes at most; merge or remove some labels"
        )
    table = first_few([f"{name} -> {class_id}" for class_id, name in classes.items()])
    order = "--class" if requested else "in alphabetical order; for another order, give --class ID=LABEL for each label"
    return {0: BACKGROUND} | classes, f"labels to classes: {table} ({order})"


def _refuse_unnamed(labels: Mapping[str, int], requested: Mapping[int, str]) -> None:
    unnamed = sorted(set(labels) - set(requested.values()))
    if unnamed:
        raise LayoutError(
            f"--class gives no class to the labels {first_few(unnamed)}; give --class for every label, such as "
            f"--class {max(requested) + 1}={unnamed[0]}, or leave out --class"
        )
