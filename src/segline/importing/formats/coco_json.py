"""What a COCO JSON file says, checked field by field: images, categories and the outlines of objects."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segline import names
from segline.importing.formats import LayoutError, drawings, regions, some
from segline.importing.formats.drawings import Drawing, Object
from segline.importing.formats.regions import Points, Region, Shape, polygon, union
from segline.text import shown

LISTS = ("images", "annotations", "categories")
SIDES = ("height", "width")
LARGEST_SIDE = 2**31
WANTED = {str: "a text", int: "a whole number", object: "a number or a text"}


@dataclass(frozen=True)
class Runs:
    """Run lengths, as they are or compressed, of a mask of `shape`."""

    counts: list[int] | str
    shape: Shape


@dataclass(frozen=True)
class Annotation:
    """One object, or a crowd of them: its outlines or run lengths."""

    name: str
    label: str
    crowd: bool
    pieces: tuple[Points, ...] | Runs


@dataclass(frozen=True)
class Image:
    """One image, as `file` says of it, and what is annotated in it."""

    file: Path
    said: str
    shape: Shape
    annotations: list[Annotation] = field(default_factory=list)

    def drawing(self, file: Path, crowds_count: bool = False) -> Drawing:
        """Its objects and crowds, rasterised, where its pixels are in `file`; crowds are objects if they count.

        Raises
        ------
        LayoutError
            The file has another size; an outline lies outside the image, or run lengths do not fit it.
        """
        drawings.refuse_other_size(file, self.file, self.shape)
        regions = [(one, _region(one, self.shape, f"{self.file}: {one.name}")) for one in self.annotations]
        crowds = [region for one, region in regions if one.crowd and not crowds_count]
        objects = [Object(one.name, one.label, region) for one, region in regions if crowds_count or not one.crowd]
        return Drawing.outlined(self.file, self.shape, objects, crowds)


@dataclass(frozen=True)
class Said:
    """All that one file says; names of categories by id, and which of them are only the heading of others."""

    file: Path
    categories: Mapping[int, str]
    headings: frozenset[str]
    images: list[Image]
    cvat: bool = False  # whether annotations look like those of CVAT


def is_coco(content: Any) -> bool:
    """Whether `content` has the fields of COCO's instances; captions, say, have no categories and no outlines."""
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        return False
    return "categories" in content or any(
        isinstance(one, dict) and "segmentation" in one for one in content["annotations"][:1]
    )


def lacks(content: Any) -> str | None:
    """Which lists are missing in what is meant as COCO's instances; None where it is not meant so."""
    if not isinstance(content, dict):
        return None
    first = {key: content[key][0] for key in LISTS if isinstance(content.get(key), list) and content[key]}
    signs = {"images": ("file_name",), "annotations": ("segmentation", "category_id"), "categories": ("name", "id")}
    said = [key for key, one in first.items() if isinstance(one, dict) and set(signs[key]) <= set(one)]
    if not {"images", "annotations"} & set(said) or ("annotations" in first and "annotations" not in said):
        return None  # captions, say, are annotations of another kind
    return " and ".join(key for key in LISTS if not isinstance(content.get(key), list))


def read(file: Path, content: Mapping[str, Any]) -> Said:
    """What `content` of `file` says.

    Raises
    ------
    LayoutError
        Fields that are missing, of another type, or name what is not there: the first few of them.
    """
    listed = content.get("categories")
    if not isinstance(listed, list) or not listed:
        raise LayoutError(f"{file}: categories is missing or empty; it lists id and name of each class")
    errors: list[str] = []
    # Ids of entries that are wrong themselves: nothing more is said of what names them.
    wrong: dict[str, set[object]] = {"categories": set(), "images": set()}
    categories: dict[Any, str] = {}
    for one in _sound(listed, f"{file}: categories", {"id": int, "name": str}, errors, wrong["categories"]):
        _put(categories, one["id"], names.composed(one["name"].strip()), f"{file}: categories", errors)
        if fault := names.fault(one["name"].strip()):
            errors.append(f"{file}: categories: name {shown(one['name'])} {fault}; rename it")
    fields = {"id": object, "file_name": str, "height": int, "width": int}
    images: dict[Any, Image] = {}
    for one in _sound(content["images"], f"{file}: images", fields, errors, wrong["images"]):
        image = Image(file, one["file_name"], (one["height"], one["width"]))
        _put(images, one["id"], image, f"{file}: images", errors)
    fields = {"image_id": object, "category_id": int}
    for one in _sound(content["annotations"], f"{file}: annotations", fields, errors, set()):
        if _is_of_wrong(one["image_id"], images, wrong["images"]):
            continue
        if _is_of_wrong(one["category_id"], categories, wrong["categories"]):
            continue
        try:
            _add(one, images, categories, file)
        except LayoutError as error:
            errors.append(str(error))
    drawings.refuse(errors)
    headings = frozenset(str(one.get("supercategory")) for one in listed if one.get("supercategory") != one["name"])
    return Said(file, categories, headings, list(images.values()), _is_cvat(content["annotations"]))


def _is_of_wrong(key: object, found: Mapping[Any, object], wrong: set[object]) -> bool:
    """Whether `key` names an entry that is wrong itself, or may do so, for the entry's id is what is wrong."""
    return key not in found and (key in wrong or None in wrong)


def _put(found: dict[Any, Any], key: object, value: object, where: str, errors: list[str]) -> None:
    if key in found:
        errors.append(f"{where}: id {key} is there twice (1 and '1' are one id); give each its own")
    found[key] = value


def _is_cvat(annotations: list[Any]) -> bool:
    """Whether annotations have the attribute that CVAT and Datumaro write with each."""
    return any(isinstance(one, dict) and "occluded" in _mapping(one.get("attributes")) for one in annotations[:1000])


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _sound(
    listed: list[Any], where: str, fields: Mapping[str, type], errors: list[str], wrong: set[object]
) -> Iterator[dict[str, Any]]:
    """The items of a list that have `fields` of their types, whole numbers as int.

    What is wrong with others goes to `errors`, and their ids to `wrong`.
    """
    for number, one in enumerate(listed):
        if not isinstance(one, dict):
            errors.append(f"{where}[{number}] is {str(one)[:40]!r}, not fields such as {', '.join(fields)}")
            continue
        values = {key: _value(one.get(key), type_) for key, type_ in fields.items()}
        values |= {key: None for key in SIDES if key in fields and not 0 < (values[key] or 0) < LARGEST_SIDE}
        lacking = next((key for key, value in values.items() if value is None), None)
        if lacking is None:
            yield one | values
            continue
        wrong.add(_value(one.get("id"), object))
        is_ = "missing" if lacking not in one else f"{one[lacking]!r}"[:60]
        needs = "a positive whole number" if lacking in SIDES else WANTED[fields[lacking]]
        errors.append(
            f"{where}[{number}] (id {str(one.get('id'))[:40]}): {lacking} is {is_}; COCO needs it, as {needs}: mend it"
        )


def _value(value: object, type_: type) -> Any:
    """`value` as `type_`, a whole number as int however it is written (1, 1.0, "1"); None where it is no such value."""
    if isinstance(value, bool | list | dict) or value is None:
        return None
    if type_ is str:
        return value if isinstance(value, str) and value.strip() else None
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d{0,17})(\.0+)?", value):
        return int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type_ is object or isinstance(value, int) else None


def _add(one: Mapping[str, Any], images: Mapping[Any, Image], categories: Mapping[int, str], file: Path) -> None:
    """Put one annotation with its image."""
    name = f"annotation {one.get('id', '(without id)')}"
    where = f"{file}: {name}"
    image_id, category_id = one["image_id"], one["category_id"]
    if image_id not in images:
        there = "" if not images else f", whose ids are such as {next(iter(images))!r}"
        raise LayoutError(
            f"{where}: image_id {image_id if isinstance(image_id, int) else repr(image_id)[:60]} is none of images"
            f"{there}; add the image or remove it"
        )
    if category_id not in categories:
        there = some([f"{id_} {category}" for id_, category in categories.items()])
        raise LayoutError(f"{where}: category_id {category_id} is none of categories ({there}); mend it")
    crowd = one.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise LayoutError(f"{where}: iscrowd is {str(crowd)[:40]!r}; it is 0 for one object and 1 for a crowd: mend it")
    image = images[image_id]
    pieces = _pieces(one.get("segmentation"), image.shape, where)
    image.annotations.append(Annotation(name, categories[category_id], bool(crowd), pieces))


def _pieces(segmentation: Any, shape: Shape, where: str) -> tuple[Points, ...] | Runs:
    if isinstance(segmentation, dict):
        return _runs(segmentation, shape, where)
    if not isinstance(segmentation, list) or not segmentation:
        raise LayoutError(f"{where}: no segmentation; a box alone says not which pixels: outline it, or remove it")
    return tuple(_points(piece, where) for piece in segmentation)


def _points(piece: Any, where: str) -> Points:
    """The outline [x, y, x, y, ...]."""
    try:
        numbers = np.array(piece, np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = np.empty((0, 0))
    if numbers.ndim != 1 or numbers.size % 2 or not np.isfinite(numbers).all():
        raise LayoutError(f"{where}: segmentation {str(piece)[:60]} is no list x, y, x, y, ...; mend or remove it")
    if numbers.size < 6:
        raise LayoutError(f"{where}: a polygon of {numbers.size // 2} points encloses nothing; 3 at least: remove it")
    return numbers.reshape(-1, 2)


def _runs(segmentation: Mapping[str, Any], shape: Shape, where: str) -> Runs:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    sides = [_value(side, int) for side in size] if isinstance(size, list) else []
    if len(sides) != 2 or None in sides:
        raise LayoutError(
            f"{where}: size {str(size)[:40]!r} of the run lengths is not [height, width]; mend or remove it"
        )
    if (sides[0], sides[1]) != shape:
        raise LayoutError(
            f"{where}: run lengths of {str(sides[1])[:20]}x{str(sides[0])[:20]} px in an image of "
            f"{drawings.size(shape)}; mend or remove it"
        )
    if isinstance(counts, str):
        return Runs(counts, shape)
    runs: list[Any] = [None]
    if isinstance(counts, list):
        runs = [run if type(run) is int else _value(run, int) for run in counts]
    if None in runs:
        raise LayoutError(f"{where}: counts {str(counts)[:40]!r} are neither run lengths nor a string of them; mend it")
    return Runs(runs, shape)


def _region(one: Annotation, shape: Shape, where: str) -> Region:
    if not isinstance(one.pieces, Runs):
        return union([polygon(drawings.outline(piece, shape, where), shape) for piece in one.pieces])
    counts = one.pieces.counts
    try:
        runs = regions.decompress(counts, shape[0] * shape[1]) if isinstance(counts, str) else counts
        return regions.region(runs, shape)
    except regions.RunsError as error:
        raise LayoutError(f"{where}: {error}; mend or remove it") from error
