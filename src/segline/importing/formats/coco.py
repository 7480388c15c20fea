"""COCO layout: one or several JSON files that list images, categories and the outline of each object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segline import names
from segline.data.dataset import IGNORE
from segline.importing.formats import lookup, object_lists, regions
from segline.importing.formats.object_lists import ListSource, Object, ObjectList
from segline.importing.formats.regions import Points, Region, Shape
from segline.importing.formats.schemas import CocoAnnotation, CocoCategory, CocoImage, RunLengths, valid_items
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
from segline.text import shown

KEYS = (b'"annotations"', b'"categories"', b'"file_name"')
LISTS = ("images", "annotations", "categories")
BACKGROUND = "background"


@dataclass(frozen=True)
class Annotation:
    """Annotation of one object or of a crowd of objects; the outline consists of polygons or run lengths."""

    name: str
    label: str
    crowd: bool
    outline: tuple[Points, ...] | RunLengths

    def region(self, shape: Shape, where: str) -> Region:
        """Rasterise the object or crowd in an image of `shape`.

        Raises
        ------
        LayoutError
            The outline does not fit the image; the message begins with `where`.
        """
        if not isinstance(self.outline, RunLengths):
            points = [object_lists.refuse_outside(polygon, shape, where) for polygon in self.outline]
            return regions.union([regions.polygon(polygon, shape) for polygon in points])
        counts = self.outline.counts
        try:
            runs = regions.decompress(counts, shape[0] * shape[1]) if isinstance(counts, str) else counts
            return regions.region(runs, shape)
        except regions.RunsError as error:
            raise LayoutError(f"{where}: {error}; correct or remove the annotation") from error


@dataclass(frozen=True)
class ListedImage:
    """One image that the COCO file `file` lists, and the annotations of this image."""

    file: Path
    file_name: str
    shape: Shape
    annotations: list[Annotation] = field(default_factory=list)

    def objects(self, image_file: Path, crowds_are_objects: bool = False) -> ObjectList:
        """Return the rasterised annotations as a list of objects; `image_file` is the file of the image.

        Raises
        ------
        LayoutError
            The image file has another size, an outline lies outside the image, or run lengths do not fit.
        """
        object_lists.refuse_other_size(image_file, self.file, self.shape)
        drawn = [(item, item.region(self.shape, f"{self.file}: {item.name}")) for item in self.annotations]
        crowds = [region for item, region in drawn if item.crowd and not crowds_are_objects]
        objects = [
            Object(item.name, item.label, region) for item, region in drawn if crowds_are_objects or not item.crowd
        ]
        return ObjectList.without_slivers(self.file, self.shape, objects, crowds)


@dataclass(frozen=True)
class CocoFile:
    """Content of one COCO file: category names by id, names of supercategories, and listed images."""

    file: Path
    categories: Mapping[int, str]
    supercategories: frozenset[str]
    images: list[ListedImage]
    from_cvat: bool = False


def recognise(source: Path, options: ImportOptions, mapper: Mapper = map) -> Layout | None:
    """Return the Layout of `source` if it is a COCO file or a folder with COCO files; otherwise None.

    Categories become classes 1, 2, ... in the order of their ids. Polygons are filled as the module `regions`
    describes. Where objects overlap, the smaller object gets the pixels. A crowd is an annotation with iscrowd 1.
    Unless crowds are declared to be objects, the pixels of a crowd are ignored where no object covers them. Several
    files are merged. Each file is read once.

    Raises
    ------
    LayoutError, FileError
        A field is missing or refers to something that does not exist, files contradict each other, an image is
        missing, or an outline lies outside its image.
    """
    coco_files = _coco_files(source)
    if not coco_files:
        return None
    refuse_options(options, "COCO annotations", "missing_as_background", "crowd")
    _refuse_different_categories(coco_files)
    available = lookup.Images.below(source)
    listed, errors = _image_files(available, [image for coco_file in coco_files for image in coco_file.images])
    skipped = refuse_or_skip(errors, options, "image(s) without file")
    crowds = [annotation.crowd for image in listed.values() for annotation in image.annotations]
    crowds_are_objects = options.crowd == "objects"
    if not crowds_are_objects:
        _refuse_only_crowds(crowds, coco_files)
    class_names, class_reason = _classes(coco_files, list(listed.values()))
    unlisted = available.without(listed)
    blank = unlisted if options.missing_as_background else []
    sources = {
        file: ListSource(image.file, partial(image.objects, file, crowds_are_objects)) for file, image in listed.items()
    }
    sources |= {file: ListSource.background(file) for file in blank}
    stems = lookup.stems(list(sources), available.root)
    lists = dict(zip(stems, sources.values(), strict=True))
    return object_lists.layout(
        available.root,
        options,
        images=dict(zip(stems, map(ImageSource, sources), strict=True)),
        lists=lists,
        names=class_names,
        surveyed=object_lists.survey(lists, mapper),
        reasons=[
            *_reasons(coco_files, 0 if blank else len(unlisted)),
            class_reason,
            *_crowd_reasons(crowds, coco_files, options),
            *background_only(len(blank)),
            *skipped,
        ],
    )


def _reasons(coco_files: Sequence[CocoFile], unlisted: int) -> list[str]:
    lines = [f"COCO annotations of {first_few([coco_file.file.name for coco_file in coco_files])}"]
    if len(coco_files) > 1:
        counts = ", ".join(f"{coco_file.file.name} {len(coco_file.images)}" for coco_file in coco_files)
        lines.append(
            f"these JSON files are merged (file and its number of images): {counts}; to put the files into different "
            "splits, list their images in prepare.validation and prepare.test, or import a single file"
        )
    if unlisted:
        lines.append(
            f"{unlisted} image file(s) are not listed in any JSON and were left out; if they hold no object, add "
            "--missing-as-background"
        )
    return lines


def _coco_files(source: Path) -> list[CocoFile]:
    """Read all COCO files in `source`; return an empty list if a LabelMe file is found before any COCO file."""
    coco_files: list[CocoFile] = []
    errors = []
    for file, content in lookup.json_contents(source, KEYS):
        if _is_coco(content):
            coco_files.append(_read(file, content))
        elif isinstance(content, dict) and "shapes" in content and not coco_files:
            break
        elif missing := _missing_lists(content):
            errors.append(
                f"{file} has no list of {missing}, which COCO requires; add it, or, if the masks are image files, give "
                "--masks 'masks/*'"
            )
    if not coco_files:
        raise_errors(errors)
    return coco_files


def _is_coco(content: Any) -> bool:
    """Return whether `content` is COCO with objects, not COCO with captions.

    A file with captions has no categories and no outlines.
    """
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        return False
    return "categories" in content or any(
        isinstance(item, dict) and "segmentation" in item for item in content["annotations"][:1]
    )


def _missing_lists(content: Any) -> str | None:
    """Return the names of the missing lists if `content` is incomplete COCO; None if `content` is not COCO."""
    if not isinstance(content, dict):
        return None
    first = {key: content[key][0] for key in LISTS if isinstance(content.get(key), list) and content[key]}
    fields = {"images": ("file_name",), "annotations": ("segmentation", "category_id"), "categories": ("name", "id")}
    typical = [key for key, item in first.items() if isinstance(item, dict) and set(fields[key]) <= set(item)]
    if not {"images", "annotations"} & set(typical) or ("annotations" in first and "annotations" not in typical):
        return None  # the file holds other annotations, such as captions
    return " and ".join(key for key in LISTS if not isinstance(content.get(key), list))


def _read(file: Path, content: Mapping[str, Any]) -> CocoFile:
    """Validate `content`, which was read from `file`, and return it as a CocoFile.

    Raises
    ------
    LayoutError
        Some fields are missing or invalid; the message lists the first few errors.
    """
    listed = content.get("categories")
    if not isinstance(listed, list) or not listed:
        raise LayoutError(
            f"{file}: the list `categories` is missing or empty; list the id and name of each class there"
        )
    errors: list[str] = []
    invalid_images, invalid_categories = set[object](), set[object]()
    categories, supercategories, images = dict[int, str](), set[str](), dict[object, ListedImage]()
    for category in valid_items(CocoCategory, listed, f"{file}: categories", errors, invalid_categories):
        name = category.name.strip()
        if fault := names.fault(name):
            errors.append(f"{file}: categories: name {shown(category.name)} {fault}; rename it")
        _add(categories, category.id, names.composed(name), f"{file}: categories", errors)
        if category.supercategory != category.name:
            supercategories.add(str(category.supercategory))
    for item in valid_items(CocoImage, content["images"], f"{file}: images", errors, invalid_images):
        _add(images, item.id, ListedImage(file, item.file_name, (item.height, item.width)), f"{file}: images", errors)
    for annotation in valid_items(CocoAnnotation, content["annotations"], f"{file}: annotations", errors, set()):
        # Skip an annotation that refers to an invalid entry, because an error already reports that entry.
        if _is_invalid(annotation.image_id, images, invalid_images) or _is_invalid(
            annotation.category_id, categories, invalid_categories
        ):
            continue
        try:
            _annotate(annotation, images, categories, file)
        except LayoutError as error:
            errors.append(str(error))
    raise_errors(errors)
    return CocoFile(
        file, categories, frozenset(supercategories), list(images.values()), _is_from_cvat(content["annotations"])
    )


def _is_invalid(key: object, entries: Mapping[Any, object], invalid: set[object]) -> bool:
    """Return whether the id `key` belongs, or may belong, to an invalid entry.

    Any id that no valid entry has may belong to an entry whose id is missing or invalid.
    """
    return key not in entries and (key in invalid or None in invalid)


def _add(entries: dict[Any, Any], key: object, value: object, where: str, errors: list[str]) -> None:
    if key in entries:
        errors.append(f"{where}: id {key} occurs twice (1 and '1' are the same id); give each entry its own id")
    entries[key] = value


def _is_from_cvat(annotations: list[Any]) -> bool:
    """Return whether the annotations have the attribute `occluded`, which CVAT and Datumaro write."""
    attributes = [item.get("attributes") for item in annotations[:1000] if isinstance(item, dict)]
    return any(isinstance(item, dict) and "occluded" in item for item in attributes)


def _annotate(
    item: CocoAnnotation, images: Mapping[Any, ListedImage], categories: Mapping[int, str], file: Path
) -> None:
    """Add an annotation to its image."""
    name = f"annotation {item.id}"
    where = f"{file}: {name}"
    if item.image_id not in images:
        ids = f" (ids such as {next(iter(images))!r})" if images else ""
        raise LayoutError(
            f"{where}: image_id {shown(item.image_id)} is not listed in `images`{ids}; add the image or remove "
            "the annotation"
        )
    if item.category_id not in categories:
        existing = first_few([f"{id_} {category}" for id_, category in categories.items()])
        raise LayoutError(
            f"{where}: category_id {item.category_id} is not listed in `categories` ({existing}); correct category_id"
        )
    image = images[item.image_id]
    outline = _outline(item.segmentation, image.shape, where)
    image.annotations.append(Annotation(name, categories[item.category_id], item.iscrowd, outline))


def _outline(segmentation: list[list[float]] | RunLengths, shape: Shape, where: str) -> tuple[Points, ...] | RunLengths:
    if isinstance(segmentation, RunLengths):
        if segmentation.size != shape:
            height, width = (shown(side, 20) for side in segmentation.size)
            raise LayoutError(
                f"{where}: segmentation.size is {width}x{height} px, but the image is {object_lists.size(shape)} px; "
                "correct or remove the annotation"
            )
        return segmentation
    if not segmentation:
        raise LayoutError(
            f"{where}: the field segmentation is empty, and a box alone does not define pixels; outline the object, or "
            "remove the annotation"
        )
    for number, polygon in enumerate(segmentation):
        if len(polygon) % 2:
            raise LayoutError(
                f"{where}: segmentation[{number}] has {len(polygon)} numbers, but a list of x, y pairs has an even "
                "number of numbers; correct or remove this list"
            )
        if len(polygon) < 6:
            raise LayoutError(
                f"{where}: segmentation[{number}] has {len(polygon) // 2} points, but a polygon needs at least 3 "
                "to enclose an area; remove this polygon"
            )
    return tuple(np.array(polygon, np.float64).reshape(-1, 2) for polygon in segmentation)


def _refuse_different_categories(coco_files: Sequence[CocoFile]) -> None:
    first = coco_files[0]
    for second in coco_files[1:]:
        if second.categories != first.categories:
            differing = sorted(set(first.categories.items()) ^ set(second.categories.items()))[0]
            raise LayoutError(
                f"{first.file} and {second.file} have different categories; for example, only one of the files has the "
                f"category with id {differing[0]} and name {differing[1]!r}; make the categories equal, or import a "
                "single file"
            )


def _image_files(available: lookup.Images, images: Sequence[ListedImage]) -> tuple[dict[Path, ListedImage], list[str]]:
    """Find the file of each listed image.

    Return two values: the listed images by file, and an error message for each listed image without a file.
    """
    missing, repeated, image_of = [], [], dict[Path, ListedImage]()
    for image in images:
        try:
            file = available.find(image.file_name, image.file, "file_name")
        except LayoutError as error:
            missing.append(str(error))
            continue
        if file in image_of:
            both = " and ".join(sorted({image_of[file].file.name, image.file.name}))
            repeated.append(
                f"{image.file}: the image {file} is listed twice, in {both}; keep one entry, or import a single "
                "JSON file"
            )
        image_of[file] = image
    raise_errors(repeated)
    return image_of, missing


def _refuse_only_crowds(crowds: Sequence[bool], coco_files: Sequence[CocoFile]) -> None:
    if crowds and all(crowds):
        raise LayoutError(
            f"{coco_files[0].file}: iscrowd is 1 for all {len(crowds)} annotations, so none counts as an object. "
            "CVAT and Datumaro write iscrowd 1 for every annotation drawn with the brush. If each annotation outlines "
            "one object, add --crowd objects. Otherwise set iscrowd to 0 for the annotations that outline one object"
        )


def _crowd_reasons(crowds: Sequence[bool], coco_files: Sequence[CocoFile], options: ImportOptions) -> list[str]:
    """Return a list of one line on how annotations with iscrowd 1 are treated, or [] if no annotation has iscrowd 1."""
    count, total = sum(crowds), len(crowds)
    if not count:
        return []
    if options.crowd:
        treatment = "are objects" if options.crowd == "objects" else "are ignored pixels"
        return [f"{count} of {total} annotations have iscrowd 1 and {treatment} (--crowd {options.crowd})"]
    from_cvat = any(coco_file.from_cvat for coco_file in coco_files)
    tool = "This looks like an export of CVAT, which writes" if from_cvat else "CVAT writes"
    warning = f"warning: {count} of {total} annotations have iscrowd 1 and are not objects, so their pixels are ignored"
    way_out = "add --crowd objects if these annotations are objects, or --crowd ignore if they are not"
    return [f"{warning}. {tool} 1 for everything drawn with the brush; {way_out}"]


def _classes(coco_files: Sequence[CocoFile], images: Sequence[ListedImage]) -> tuple[dict[int, str], str]:
    """Return two values: the class names by id, and a line that tells the user the class of each category.

    Some tools also list supercategories and `background` as categories. These are left out if they have no objects.
    """
    file = coco_files[0].file
    used = {annotation.label for image in images for annotation in image.annotations}
    categories: Mapping[int, str] = dict(sorted(coco_files[0].categories.items()))
    if len(set(categories.values())) < len(categories):
        raise LayoutError(
            f"{file}: two of the categories {list(categories.values())} have the same name; rename one category"
        )
    headings = {_normalised(name) for name in coco_files[0].supercategories | {BACKGROUND}}
    dropped = [name for name in categories.values() if name not in used and _normalised(name) in headings]
    background = [name for name in used if _normalised(name) == BACKGROUND]
    if background:
        raise LayoutError(
            f"{file}: category {background[0]!r} has annotations, but background means the pixels without any "
            "object; remove the annotations, or rename the category"
        )
    kept = {id_: name for id_, name in categories.items() if name not in dropped}
    if len(kept) >= IGNORE:
        raise LayoutError(
            f"{file}: {len(kept)} categories, but segline supports {IGNORE - 1} at most; remove categories"
        )
    class_names = {0: BACKGROUND} | dict(enumerate(kept.values(), 1))
    table = first_few([f"{id_} {name} -> {class_id}" for class_id, (id_, name) in enumerate(kept.items(), 1)])
    unused = [name for name in kept.values() if name not in used]
    notes = f"; left out: {', '.join(dropped)}" if dropped else ""
    notes += f"; without any object: {first_few(unused)}" if unused else ""
    return class_names, f"categories to classes: {table}{notes}"


def _normalised(name: str) -> str:
    return name.strip().lower()
