"""Layout: images and masks as files of one image each, in two folders, in one, or where patterns say."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from segline.data import imagefiles
from segline.data.dataset import GROUPS, read_groups
from segline.importing.formats import (
    READABLE,
    Each,
    Layout,
    LayoutError,
    Picture,
    Wishes,
    colours,
    flags,
    foreign,
    labelmap,
    maskfile,
    masklayout,
    pairs,
    some,
)
from segline.importing.formats.colours import Key
from segline.importing.formats.pairs import Pairs

IMAGES = (
    "images", "image", "imgs", "img", "jpegimages", "imagestr", "raw", "inputs", "input", "x", "photos",
    "pictures", "frames",
)  # fmt: skip
MASKS = (
    "masks", "mask", "labels", "label", "labelstr", "segmentationclass", "annotations", "annotation", "gt",
    "groundtruth", "segmentations", "segmentation", "seg", "targets", "target", "y", "manual",
)  # fmt: skip
OTHERS = (
    ".webp", ".heic", ".npy", ".npz", ".mat", ".h5", ".nii", ".gz", ".dcm", ".czi", ".nd2", ".lif",
)  # fmt: skip
PATTERNS = "say where they are, such as --images 'raw/*_img.tif' --masks 'gt/*_seg.png', `*` being what both share"


def recognise(source: Path, wishes: Wishes, each: Each = map) -> Layout | None:
    """What `source` holds, where it is images and masks of one image each; None where it has no such folders.

    Folders are known by their usual names, in any case; exact ones before those that have such a word in them.

    Raises
    ------
    LayoutError, DatasetError, FileError
        Images or masks are missing, stay alone or are in nested folders; or masks cannot be meant.
    """
    if not source.is_dir():
        return None
    found = _pairs(source, wishes)
    if found is None:
        return None
    _refuse_stacks(found)
    flags.refuse(wishes, "masks", "ignore", "threshold", "colours", "missing_as_background")
    key = Key("greys")
    if wishes.threshold is not None and wishes.colours:
        raise LayoutError("--threshold and --colours: masks are either grey or in colours; leave one out")
    if wishes.threshold is None:
        looks = each(maskfile.look, list(found.masks.values()))
        key = colours.key(looks, wishes, labelmap.read(source))
        wishes = wishes if key.ignore is None else replace(wishes, ignore=key.ignore)
    groups = None
    if (source / GROUPS).exists():
        groups = read_groups(source / GROUPS, found.images, others=_in_part(wishes))
    return masklayout.layout(
        {stem: Picture(file) for stem, file in found.images.items()},
        {stem: key.mask(file) for stem, file in found.masks.items()},
        wishes,
        reasons=(found.how, *key.reasons, *([] if groups is None else [f"groups: as {GROUPS} says"])),
        groups=groups,
        named=key.names,
        blank={stem: file for stem, file in found.images.items() if stem not in found.masks},
        each=each,
    )


def _refuse_stacks(found: Pairs) -> None:
    """Refuse files of several pages: here, each image and each mask is a file of one page."""
    for stem, image in found.images.items():
        mask = found.masks.get(stem, image)
        of_image, of_mask = (
            imagefiles.pages(file) if file.suffix.lower() in (".tif", ".tiff") else 1 for file in (image, mask)
        )
        if of_mask > 1 and of_image == 1:
            raise LayoutError(
                f"{mask} has {of_mask} pages, but its image {image.name} has one. If each page is a class (one-hot), "
                "save one page whose values are the ids of classes; if only one page is the mask, save that. Pages are "
                "read only of a stack of labels beside a stack of images of as many pages"
            )
        if of_image > 1:
            raise LayoutError(
                f"{image} is a stack of {of_image} pages, and its mask {mask.name} has {of_mask}: a stack needs "
                "a stack of labels of as many pages, in a folder without other images; else save both page by page"
            )


def _in_part(wishes: Wishes) -> bool:
    """Whether not all images of the source may be taken."""
    return bool(wishes.images or wishes.masks or wishes.skip_unpaired)


def _pairs(source: Path, wishes: Wishes) -> Pairs | None:
    """The files that belong together, and how that was found."""
    if wishes.images or wishes.masks:
        images_at = wishes.images or _implied(_find(source, IMAGES, but=MASKS), "images")
        masks_at = wishes.masks or _implied(_find(source, MASKS), "masks")
        return pairs.by_pattern(source, sorted(_below(source)), images_at, masks_at, wishes)
    images, masks_ = _find(source, IMAGES, but=MASKS), _find(source, MASKS)
    if not images and not masks_:
        _refuse_parts(source)
        found = pairs.in_one_folder(_files(source), wishes)
        return found and replace(found, how=f"images and {found.how}")
    if not images and not _files(source):
        raise LayoutError(
            f"{source} has masks in {masks_[0].name}/, but no folder of images; {PATTERNS}{unread(source)}"
        )
    one = images[0] if images else source
    if not masks_:
        found = pairs.in_one_folder(_files(one), wishes)
        if found is None:
            there = some(sorted(f"{path.name}/" for path in source.iterdir() if path.is_dir()))
            raise LayoutError(
                f"{source} has images in {one.name}/, but no masks: no folder {', '.join(MASKS[:5])} or the like with "
                f"images in it, and beside the images no STEM_mask, STEM_label, STEM-seg; there are {there}; {PATTERNS}"
                f"{unread(source)}"
            )
        return replace(found, how=f"images from {_said(images, 'images')}, {found.how}")
    _refuse_nested(source, one, masks_[0])
    found = pairs.in_two_folders(_files(one), _files(masks_[0]), wishes)
    whence = _said(images, "images") if images else "the folder itself"
    return replace(found, how=f"images from {whence}, masks from {_said(masks_, 'masks')}, {found.how}")


def _find(source: Path, words: Sequence[str], but: Sequence[str] = ()) -> list[Path]:
    """The folders in `source` that have one of `words` as name, or else in it (and none of `but`), best first.

    Only those count that hold something readable, at least further below.
    """
    ranked: list[tuple[int, int, Path]] = []
    for folder in _folders(source):
        name = re.sub("[^a-z0-9]", "", folder.name.lower())
        parts = set(re.split("[^a-z0-9]+", folder.name.lower()))
        if name in words:
            ranked.append((0, words.index(name), folder))
        elif parts & set(words) and not parts & set(but):
            ranked.append((1, min(words.index(part) for part in parts & set(words)), folder))
    found = sorted(place for place in ranked if next(_below(place[2]), None))
    if len(found) > 1 and found[0][0] == 1:
        names = some([f"{folder.name}/" for _, _, folder in found])
        raise LayoutError(f"{source} has several folders for {words[0]}: {names}; {PATTERNS}")
    return [folder for _, _, folder in found]


def _said(found: Sequence[Path], what: str) -> str:
    """The folder that was taken, and which would have done."""
    others = [f"--{what} '{folder.name}/*'" for folder in found[1:]]
    return f"{found[0].name}/" + (f" (others would fit: {some(others, 3)})" if others else "")


def _implied(found: Sequence[Path], what: str) -> str:
    if not found:
        raise LayoutError(f"--{what} is missing, and there is no folder {what} to take them from; give both patterns")
    return f"{found[0].name}/*"


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    """The files in `folder` that may be images, in alphabetical order."""
    # Path.is_file is False of a link to itself, os.DirEntry.is_file raises.
    return [file for file in sorted(folder.iterdir()) if _may_be_image(file.name) and file.is_file()]


def _below(folder: Path) -> Iterator[Path]:
    """The files in `folder` and the folders in it that may be images."""
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(path) / name for name in names if _may_be_image(name))


def _may_be_image(name: str) -> bool:
    return name.lower().endswith(READABLE) and not name.startswith(".")


def unread(folder: Path) -> str:
    """What to do with images of kinds and exports of tools that are not read, where there are some below `folder`."""
    endings = Counter(Path(name).suffix.lower() for _, _, names in os.walk(folder) for name in names)
    found = [f"{endings[ending]} {ending}" for ending in OTHERS if endings[ending]]
    files_ = f"\nnot read are {', '.join(found)} files; convert them to PNG or TIFF" if found else ""
    return files_ + foreign.hint(folder)


def _refuse_nested(source: Path, images: Path, masks_: Path) -> None:
    """Images or masks that are in folders within their folder."""
    every, one = ([_inside(source, folder, deep) for folder in (images, masks_)] for deep in (True, False))
    for folder in (images, masks_):
        if not _files(folder):
            inside = next(_below(folder)).parent.relative_to(folder).as_posix()
            raise LayoutError(
                f"{folder} holds no image itself, but folders that do, such as {inside}; take all with --images "
                f"'{every[0]}' --masks '{every[1]}', or some with --images '{one[0]}' --masks '{one[1]}'"
            )


def _inside(source: Path, folder: Path, deep: bool) -> str:
    """The pattern of the files in `folder` or, where it holds none itself, in all folders in it or in the first."""
    name = folder.relative_to(source).as_posix()
    if _files(folder):
        return f"{name}/*"
    return f"{name}/**/*" if deep else f"{next(_below(folder)).parent.relative_to(source).as_posix()}/*"


def _refuse_parts(source: Path) -> None:
    """Folders in `source` that have images and masks of their own, train and test for instance."""
    parts = [(part, _find(part, IMAGES, but=MASKS), _find(part, MASKS)) for part in _folders(source)]
    both = [(part.name, images[0].name, masks_[0].name) for part, images, masks_ in parts if images and masks_]
    if both:
        part, images_name, masks_name = both[0]
        raise LayoutError(
            f"{source} has images and masks in {some([name for name, _, _ in both])}, each apart; take all with "
            f"--images '*/{images_name}/*' --masks '*/{masks_name}/*', or one with segline import {source / part}"
        )
