"""Folder layout: one mask file per image. The files lie in two folders or in one folder, or are found by patterns."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from segline.data import imagefiles
from segline.data.dataset import GROUPS, read_groups
from segline.importing.formats import colours, legends, masks, pairs, pixels, unsupported
from segline.importing.formats.colours import Key
from segline.importing.formats.pairs import Pairs
from segline.importing.layout import (
    READABLE,
    ImageSource,
    ImportOptions,
    Layout,
    LayoutError,
    Mapper,
    first_few,
    refuse_options,
)

IMAGES = (
    "images", "image", "imgs", "img", "jpegimages", "imagestr", "raw", "inputs", "input", "x", "photos",
    "pictures", "frames",
)  # fmt: skip
MASKS = (
    "masks", "mask", "labels", "label", "labelstr", "segmentationclass", "annotations", "annotation", "gt",
    "groundtruth", "segmentations", "segmentation", "seg", "targets", "target", "y", "manual",
)  # fmt: skip
PATTERNS = (
    "give file patterns, such as --images 'raw/*_img.tif' --masks 'gt/*_seg.png', where `*` is the text that the names "
    "of an image and its mask share"
)


def recognise(source: Path, options: ImportOptions, mapper: Mapper = map) -> Layout | None:
    """Return the Layout of `source` if it has one mask file per image; None otherwise.

    Folders are recognised by usual names, in upper or lower case. A folder with exactly such a name is preferred to a
    folder whose name only contains such a name.

    Raises
    ------
    LayoutError, DatasetError, FileError
        Images or masks are missing, unpaired or in nested folders; or mask values are ambiguous.
    """
    if not source.is_dir():
        return None
    paired = _pairs(source, options)
    if paired is None:
        return None
    _refuse_stacks(paired)
    refuse_options(options, "masks", "ignore", "threshold", "colours", "missing_as_background")
    key = Key("greys")
    if options.threshold is not None and options.colours:
        raise LayoutError(
            "--threshold needs grey masks, but --colours needs masks in colour; leave out one of these options"
        )
    if options.threshold is None:
        looks = mapper(pixels.look, list(paired.masks.values()))
        key = colours.key(looks, options, legends.read_labelmap(source))
        options = options if key.ignore is None else replace(options, ignore=key.ignore)
    groups = None
    if (source / GROUPS).exists():
        groups = read_groups(source / GROUPS, paired.images, others=_is_partial(options))
    return masks.layout(
        {stem: ImageSource(file) for stem, file in paired.images.items()},
        {stem: key.mask(file) for stem, file in paired.masks.items()},
        options,
        reasons=(paired.rule, *key.reasons, *([] if groups is None else [f"groups: from {GROUPS}"])),
        groups=groups,
        named=key.names,
        blank={stem: file for stem, file in paired.images.items() if stem not in paired.masks},
        mapper=mapper,
    )


def _refuse_stacks(paired: Pairs) -> None:
    """Refuse files with several pages; each image and each mask must be a file with one page."""
    for stem, image in paired.images.items():
        mask = paired.masks.get(stem, image)
        image_pages, mask_pages = (
            imagefiles.pages(file) if file.suffix.lower() in (".tif", ".tiff") else 1 for file in (image, mask)
        )
        if mask_pages > 1 and image_pages == 1:
            raise LayoutError(
                f"the mask {mask} has {mask_pages} pages, but its image {image.name} has one page. If each page is a "
                "class (one-hot), save a single page whose values are class ids. If only one page is the mask, save "
                "that page alone. Several pages are supported only in a stack of images and a stack of labels with the "
                "same number of pages"
            )
        if image_pages > 1:
            raise LayoutError(
                f"the image {image} is a stack of {image_pages} pages, and its mask {mask.name} has {mask_pages} "
                "page(s). Put the stack of images and a stack of labels with the same number of pages into a folder "
                "without other images, or save each page of both files as a separate file"
            )


def _is_partial(options: ImportOptions) -> bool:
    """Return whether `options` allow the import to leave out images of the source."""
    return bool(options.images or options.masks or options.skip_unpaired)


def _pairs(source: Path, options: ImportOptions) -> Pairs | None:
    """Pair the images and masks of `source`; return None if `source` does not have this layout.

    The result is None only if `source` has no image folder, no mask folder, and no pairs among its own files.
    """
    if options.images or options.masks:
        image_pattern = options.images or _default_pattern(_find(source, IMAGES, but=MASKS), "images")
        mask_pattern = options.masks or _default_pattern(_find(source, MASKS), "masks")
        return pairs.by_pattern(source, sorted(_below(source)), image_pattern, mask_pattern, options)
    image_folders, mask_folders = _find(source, IMAGES, but=MASKS), _find(source, MASKS)
    if not image_folders and not mask_folders:
        _refuse_splits(source)
        paired = pairs.in_one_folder(_files(source), options)
        return paired and replace(paired, rule=f"images from the folder itself, {paired.rule}")
    if not image_folders and not _files(source):
        raise LayoutError(
            f"{source} has masks in {mask_folders[0].name}/, but no folder of images; {PATTERNS}"
            f"{unsupported.hints(source)}"
        )
    images = image_folders[0] if image_folders else source
    if not mask_folders:
        return _pairs_in_one_folder(source, images, image_folders, options)
    _refuse_nested(source, images, mask_folders[0])
    paired = pairs.in_two_folders(_files(images), _files(mask_folders[0]), options)
    origin = _chosen(image_folders, "images") if image_folders else "the folder itself"
    return replace(paired, rule=f"images from {origin}, masks from {_chosen(mask_folders, 'masks')}, {paired.rule}")


def _pairs_in_one_folder(source: Path, images: Path, image_folders: Sequence[Path], options: ImportOptions) -> Pairs:
    paired = pairs.in_one_folder(_files(images), options)
    if paired is None:
        folders = first_few(sorted(f"{path.name}/" for path in source.iterdir() if path.is_dir()))
        raise LayoutError(
            f"{source} has images in {images.name}/, but no masks. It has no folder of mask files named "
            f"{', '.join(MASKS[:5])} or the like, and no files STEM_mask, STEM_label or STEM-seg beside the images. "
            f"The folders are {folders}; {PATTERNS}{unsupported.hints(source)}"
        )
    return replace(paired, rule=f"images from {_chosen(image_folders, 'images')}, {paired.rule}")


def _find(source: Path, words: Sequence[str], but: Sequence[str] = ()) -> list[Path]:
    """Return the folders in `source` whose names equal or contain one of `words`; the best match is first.

    A folder is left out if its name contains both a word of `words` and a word of `but`. But a folder whose whole name
    is a word of `words` is kept. A folder without readable images, in itself or in its subfolders, is left out as well.
    """
    ranked: list[tuple[int, int, Path]] = []
    for folder in _folders(source):
        name = re.sub("[^a-z0-9]", "", folder.name.lower())
        parts = set(re.split("[^a-z0-9]+", folder.name.lower()))
        if name in words:
            ranked.append((0, words.index(name), folder))
        elif parts & set(words) and not parts & set(but):
            ranked.append((1, min(words.index(part) for part in parts & set(words)), folder))
    candidates = sorted(candidate for candidate in ranked if next(_below(candidate[2]), None))
    if len(candidates) > 1 and candidates[0][0] == 1:
        names = first_few([f"{folder.name}/" for _, _, folder in candidates])
        raise LayoutError(f"{source} has several folders that may hold the {words[0]}: {names}; {PATTERNS}")
    return [folder for _, _, folder in candidates]


def _chosen(candidates: Sequence[Path], option: str) -> str:
    """Return a text that names the chosen folder and lists the options that would choose another folder."""
    alternatives = [f"--{option} '{folder.name}/*'" for folder in candidates[1:]]
    return f"{candidates[0].name}/" + (f" (alternatives: {first_few(alternatives, 3)})" if alternatives else "")


def _default_pattern(candidates: Sequence[Path], option: str) -> str:
    if not candidates:
        raise LayoutError(
            f"--{option} is missing, and the source has no folder of {option}; give both --images and --masks"
        )
    return f"{candidates[0].name}/*"


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    """Return the files in `folder` that may be images, in alphabetical order."""
    # Use Path.is_file, because os.DirEntry.is_file raises an error for a link that points to itself.
    return [file for file in sorted(folder.iterdir()) if _may_be_image(file.name) and file.is_file()]


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files in `folder` and its subfolders that may be images."""
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(path) / name for name in names if _may_be_image(name))


def _may_be_image(name: str) -> bool:
    return name.lower().endswith(READABLE) and not name.startswith(".")


def _refuse_nested(source: Path, images: Path, mask_folder: Path) -> None:
    """Refuse a folder of images or masks if all its files are in subfolders."""
    all_images, all_masks = (_pattern(source, folder, nested=True) for folder in (images, mask_folder))
    some_images, some_masks = (_pattern(source, folder, nested=False) for folder in (images, mask_folder))
    for folder in (images, mask_folder):
        if not _files(folder):
            subfolder = next(_below(folder)).parent.relative_to(folder).as_posix()
            raise LayoutError(
                f"{folder} holds no image itself, but its subfolders do, such as {subfolder}; import all subfolders "
                f"with --images '{all_images}' --masks '{all_masks}', or one subfolder with --images '{some_images}' "
                f"--masks '{some_masks}'"
            )


def _pattern(source: Path, folder: Path, nested: bool) -> str:
    """Return a glob pattern for the files in `folder` or, if there are none, for the files in its subfolders.

    If `nested` is True, the pattern covers all subfolders, otherwise only the first subfolder with files.
    """
    name = folder.relative_to(source).as_posix()
    if _files(folder):
        return f"{name}/*"
    return f"{name}/**/*" if nested else f"{next(_below(folder)).parent.relative_to(source).as_posix()}/*"


def _refuse_splits(source: Path) -> None:
    """Refuse a source whose subfolders, such as train and test, have their own folders of images and masks."""
    splits = [(split, _find(split, IMAGES, but=MASKS), _find(split, MASKS)) for split in _folders(source)]
    complete = [(split.name, images[0].name, masks_[0].name) for split, images, masks_ in splits if images and masks_]
    if complete:
        split, images_name, masks_name = complete[0]
        raise LayoutError(
            f"{source} has subsets with their own images and masks: {first_few([name for name, _, _ in complete])}; "
            f"import all subsets with --images '*/{images_name}/*' --masks '*/{masks_name}/*', or one subset with "
            f"`segline import {source / split}`"
        )
