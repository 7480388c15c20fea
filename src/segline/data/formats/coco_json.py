"""What a COCO JSON file says, checked field by field: images, categories and the outlines of objects."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segline.data.formats import LayoutError, drawings, rle, some
from segline.data.formats.drawings import Drawing, Object
from segline.data.formats.regions import Points, Region, Shape, polygon, union

LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Runs:
    """Run lengths, as they are or compressed, of a mask of `shape`."""

    counts: npt.NDArray[np.int64] | str
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

    def drawing(self, file: Path) -> Drawing:
        """Its objects and crowds, rasterised, where its pixels are in `file`.

        Raises
        ------
        LayoutError
            The file has another size; an outline lies outside the image, or run lengths do not fit it.
        """
        drawings.refuse_other_size(file, self.file, self.shape)
        regions = [(one, _region(one, self.shape, f"{self.file}: {one.name}")) for one in self.annotations]
        objects = [Object(one.name, one.label, region) for one, region in regions if not one.crowd]
        return Drawing.outlined(self.file, self.shape, objects, [region for one, region in regions if one.crowd])


@dataclass(frozen=True)
class Said:
    """All that one file says; names of categories by id, and which of them are only the heading of others."""

    file: Path
    categories: Mapping[int, str]
    headings: frozenset[str]
    images: list[Image]


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
    categories = {
        one["id"]: one["name"] for one in _sound(listed, "categories", {"id": int, "name": str}, file, errors)
    }
    fields = {"id": object, "file_name": str, "height": int, "width": int}
    images: dict[Any, Image] = {}
    for one in _sound(content["images"], "images", fields, file, errors):
        if one["id"] in images:
            errors.append(f"{file}: images: id {one['id']} is there twice; give each image its own")
        images[one["id"]] = Image(file, one["file_name"], (one["height"], one["width"]))
    for one in _sound(content["annotations"], "annotations", {"image_id": object, "category_id": int}, file, errors):
        try:
            _add(one, images, categories, file)
        except LayoutError as error:
            errors.append(str(error))
    drawings.refuse(errors)
    headings = frozenset(str(one.get("supercategory")) for one in listed if one.get("supercategory") != one["name"])
    return Said(file, categories, headings, list(images.values()))


def _sound(
    listed: list[Any], name: str, fields: Mapping[str, type], file: Path, errors: list[str]
) -> Iterator[dict[str, Any]]:
    """The items of a list that have `fields` of their types; what is wrong with others goes to `errors`."""
    for number, one in enumerate(listed):
        if not isinstance(one, dict):
            errors.append(f"{file}: {name}[{number}] is {str(one)[:40]!r}, not fields such as {', '.join(fields)}")
            continue
        for key, type_ in fields.items():
            value = one.get(key)
            if value is None or not isinstance(value, type_) or isinstance(value, bool | list | dict):
                what = "missing" if key not in one else f"{value!r}"[:60]
                errors.append(f"{file}: {name}[{number}] (id {one.get('id')}): {key} is {what}; COCO needs it: mend it")
                break
        else:
            yield one


def _add(one: Mapping[str, Any], images: Mapping[Any, Image], categories: Mapping[int, str], file: Path) -> None:
    """Put one annotation with its image."""
    name = f"annotation {one.get('id', '(without id)')}"
    where = f"{file}: {name}"
    if one["image_id"] not in images:
        raise LayoutError(f"{where}: image_id {one['image_id']} is none of images; add the image or remove it")
    if one["category_id"] not in categories:
        there = some([f"{id_} {category}" for id_, category in categories.items()])
        raise LayoutError(f"{where}: category_id {one['category_id']} is none of categories ({there}); mend it")
    crowd = one.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise LayoutError(f"{where}: iscrowd is {str(crowd)[:40]!r}; it is 0 for one object and 1 for a crowd: mend it")
    pieces = _pieces(one.get("segmentation"), where)
    label = categories[one["category_id"]]
    images[one["image_id"]].annotations.append(Annotation(name, label, bool(crowd), pieces))


def _pieces(segmentation: Any, where: str) -> tuple[Points, ...] | Runs:
    if isinstance(segmentation, dict):
        return _runs(segmentation, where)
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


def _runs(segmentation: Mapping[str, Any], where: str) -> Runs:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise LayoutError(f"{where}: size {size!r} of the run lengths is not [height, width]; mend or remove it")
    if isinstance(counts, list) and all(isinstance(run, int) for run in counts):
        try:
            return Runs(np.array(counts, np.int64), (size[0], size[1]))
        except OverflowError:
            raise LayoutError(f"{where}: counts hold a run of {max(counts)} pixels; mend or remove it") from None
    if not isinstance(counts, str):
        raise LayoutError(f"{where}: counts {str(counts)[:40]!r} are neither run lengths nor a string of them; mend it")
    return Runs(counts, (size[0], size[1]))


def _region(one: Annotation, shape: Shape, where: str) -> Region:
    if not isinstance(one.pieces, Runs):
        return union([polygon(drawings.outline(piece, shape, where), shape) for piece in one.pieces])
    if one.pieces.shape != shape:
        raise LayoutError(
            f"{where}: run lengths of {drawings.size(one.pieces.shape)} px in an image of {drawings.size(shape)}; "
            "mend or remove it"
        )
    counts = one.pieces.counts
    try:
        return rle.region(rle.decompress(counts) if isinstance(counts, str) else counts.tolist(), shape)
    except rle.RunsError as error:
        raise LayoutError(f"{where}: {error}; mend or remove it") from error
