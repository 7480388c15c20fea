"""Layout: COCO JSON, one file or several that list images, categories and the outline of each object."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from segline.data.dataset import IGNORE
from segline.importing.formats import (
    Each,
    Layout,
    LayoutError,
    Picture,
    Wishes,
    coco_json,
    drawings,
    finding,
    flags,
    some,
    survey,
)
from segline.importing.formats.coco_json import Image, Said
from segline.importing.formats.drawings import Sheet

SIGNS = (b'"annotations"', b'"categories"', b'"file_name"')
BACKGROUND = "background"
ELSE = "where masks are files, say --masks 'masks/*'"


def recognise(source: Path, wishes: Wishes, each: Each = map) -> Layout | None:
    """What `source`, a JSON file or a folder with some, holds; None when there is no COCO JSON.

    Categories become classes 1, 2, ... in the order of their ids. Polygons are filled by the rule of `regions`; where
    objects overlap, the smaller one has the pixels. Crowds (iscrowd 1) do not count where no object is. Several files
    are taken together. The JSON is read once.

    Raises
    ------
    LayoutError, FileError
        A field that is missing or names what is not there, files that do not go together, a missing image, an outline
        outside its image.
    """
    said = _all(source)
    if not said:
        return None
    flags.refuse(wishes, "COCO annotations", "missing_as_background", "crowd")
    _refuse_disagreeing(said)
    there = finding.Images.below(source)
    files, missing = _files(there, [image for one in said for image in one.images])
    skipped = finding.refuse_or_skip(missing, wishes, "image(s) without file")
    crowds = [one.crowd for image in files.values() for one in image.annotations]
    counted = wishes.crowd == "objects"
    if not counted:
        _refuse_only_crowds(crowds, said)
    names, why = _classes(said, list(files.values()))
    left = there.left(files)
    blank = left if wishes.missing_as_background else []
    drawn = {file: Sheet(image.file, partial(image.drawing, file, counted)) for file, image in files.items()}
    drawn |= {file: Sheet.blank(file) for file in blank}
    stems = finding.stems(list(drawn), there.root)
    sheets = dict(zip(stems, drawn.values(), strict=True))
    return survey.layout(
        there.root,
        wishes,
        pictures=dict(zip(stems, map(Picture, drawn), strict=True)),
        sheets=sheets,
        names=names,
        found=survey.survey(sheets, each),
        reasons=[
            *_reasons(said, 0 if blank else len(left)),
            why,
            *_crowds(crowds, said, wishes),
            *finding.blank(len(blank)),
            *skipped,
        ],
    )


def _reasons(said: Sequence[Said], left: int) -> list[str]:
    lines = [f"COCO annotations of {some([one.file.name for one in said])}"]
    if len(said) > 1:
        counts = ", ".join(f"{one.file.name} {len(one.images)}" for one in said)
        lines.append(
            f"files taken together ({counts} images); to keep them apart, name images in prepare.validation and "
            "prepare.test, or import one of them by its name"
        )
    if left:
        lines.append(
            f"{left} image file(s) are listed in no JSON and were left out; if they hold no object, say "
            "--missing-as-background"
        )
    return lines


def _all(source: Path) -> list[Said]:
    """What each COCO file says; a folder whose first JSON is LabelMe's is left to that layout."""
    said: list[Said] = []
    faulty = []
    for file, content in finding.contents(source, SIGNS):
        if coco_json.is_coco(content):
            said.append(coco_json.read(file, content))
        elif isinstance(content, dict) and "shapes" in content and not said:
            break
        elif lacking := coco_json.lacks(content):
            faulty.append(f"{file}: no list of {lacking}, which COCO needs; mend it, or, {ELSE}")
    if not said:
        drawings.refuse(faulty)
    return said


def _refuse_disagreeing(said: Sequence[Said]) -> None:
    for other in said[1:]:
        if other.categories != said[0].categories:
            first, second = set(said[0].categories.items()), set(other.categories.items())
            only = sorted(first ^ second)[0]
            raise LayoutError(
                f"{said[0].file} and {other.file} differ in categories, such as {only[0]} {only[1]!r}; make them "
                "alike, or import one file by its name"
            )


def _files(there: finding.Images, listed: Sequence[Image]) -> tuple[dict[Path, Image], list[str]]:
    """The image that each file is, and what is wrong where there is no file."""
    missing, twice, found = [], [], dict[Path, Image]()
    for image in listed:
        try:
            file = there.find(image.said, image.file, "file_name")
        except LayoutError as error:
            missing.append(str(error))
            continue
        if file in found:
            both = " and ".join(sorted({found[file].file.name, image.file.name}))
            twice.append(f"{image.file}: {file} is listed twice, in {both}; keep one, or import one JSON by its name")
        found[file] = image
    drawings.refuse(twice)
    return found, missing


def _refuse_only_crowds(crowds: Sequence[bool], said: Sequence[Said]) -> None:
    if crowds and all(crowds):
        raise LayoutError(
            f"{said[0].file}: iscrowd is 1 for all {len(crowds)} annotations, so that none is an object. CVAT and "
            "Datumaro write 1 for whatever is drawn with the brush: if these are objects, say --crowd objects, or set "
            "iscrowd to 0 where the outline is of one object"
        )


def _crowds(crowds: Sequence[bool], said: Sequence[Said], wishes: Wishes) -> list[str]:
    """What became of annotations with iscrowd 1."""
    count, total = sum(crowds), len(crowds)
    if not count:
        return []
    if wishes.crowd:
        what = "are objects" if wishes.crowd == "objects" else "do not count"
        return [f"{count} of {total} annotations have iscrowd 1 and {what}, as told"]
    tool = "This looks like an export of CVAT, which writes" if any(one.cvat for one in said) else "CVAT writes"
    lost = f"warning: {count} of {total} annotations have iscrowd 1 and are no objects: their pixels do not count"
    way = "say --crowd objects if these are objects, --crowd ignore if not"
    return [f"{lost}. {tool} 1 for whatever is drawn with the brush; {way}"]


def _classes(said: Sequence[Said], listed: Sequence[Image]) -> tuple[dict[int, str], str]:
    """Names by class id, and how categories became classes.

    Left out are a category that is only the heading of others, as some tools write one, and an unused `background`.
    """
    used = {one.label for image in listed for one in image.annotations}
    categories: Mapping[int, str] = dict(sorted(said[0].categories.items()))
    if len(set(categories.values())) < len(categories):
        raise LayoutError(f"{said[0].file}: categories {list(categories.values())}: two have one name; rename one")
    headings = said[0].headings | {BACKGROUND}
    dropped = [name for name in categories.values() if name not in used and _lowest(name) in map(_lowest, headings)]
    clash = [name for name in used if _lowest(name) == BACKGROUND]
    if clash:
        raise LayoutError(
            f"{said[0].file}: category {clash[0]!r} has annotations, but background is what no object covers; "
            "remove or rename them"
        )
    kept = {id_: name for id_, name in categories.items() if name not in dropped}
    if len(kept) >= IGNORE:
        raise LayoutError(f"{said[0].file}: {len(kept)} categories; {IGNORE - 1} at most")
    names = {0: BACKGROUND} | dict(enumerate(kept.values(), 1))
    table = some([f"{id_} {name} -> {class_id}" for class_id, (id_, name) in enumerate(kept.items(), 1)])
    unused = [name for name in kept.values() if name not in used]
    also = f"; left out: {', '.join(dropped)}" if dropped else ""
    also += f"; without any object: {some(unused)}" if unused else ""
    return names, f"categories to classes: {table}{also}"


def _lowest(name: str) -> str:
    return name.strip().lower()
