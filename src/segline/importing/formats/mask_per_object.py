"""Mask-per-object layout: one mask file for each object, as in the Data Science Bowl 2018.

Such a source has one of two forms. Either each image has a folder STEM, which holds STEM/images/FILE and STEM/masks/*.
Or the source has the folders images/ and masks/, which hold images/STEM.* and masks/STEM/*.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segline import names
from segline.data import imagefiles
from segline.data.dataset import by_stem
from segline.importing.formats import object_lists
from segline.importing.formats.folders import IMAGES, MASKS
from segline.importing.formats.object_lists import ListSource, Object, ObjectList
from segline.importing.formats.regions import Region
from segline.importing.layout import (
    READABLE,
    ImageSource,
    ImportOptions,
    Layout,
    LayoutError,
    Mapper,
    background_only,
    first_few,
    refuse_options,
    refuse_or_skip,
)

LABEL = "object"


@dataclass(frozen=True)
class ObjectFolder:
    """The images of a source, its mask folders, and error messages about them.

    `pairs` holds the image and the mask folder of each stem. `bare` holds the images without mask folder, by stem.
    """

    pairs: dict[str, tuple[Path, Path]]
    bare: dict[str, Path]
    errors: list[str]
    folder_per_image: bool


def recognise(source: Path, options: ImportOptions, mapper: Mapper = map) -> Layout | None:
    """Return the Layout of `source` if each object has its own mask file; None otherwise.

    Pixels above the threshold, or above 0 if no threshold is set, belong to the object. Where objects overlap, the
    smaller object gets the pixels.

    Raises
    ------
    LayoutError, DatasetError
        An image has no masks, or masks have no image. Or a mask file is empty, is grey, or has another size than the
        image.
    """
    if not source.is_dir():
        return None
    content = _folder_per_image(source) or _two_folders(source)
    if content is None or not content.pairs:
        return None
    refuse_options(options, "mask files with one object each", "threshold", "missing_as_background")
    bare, errors = content.bare, content.errors
    if not options.missing_as_background:
        way_out = "if the image holds no object, add an empty folder, or --missing-as-background for all such images"
        errors = [*(f"{image} has no folder of masks; {way_out}" for image in bare.values()), *errors]
        bare = {}
    skipped = refuse_or_skip(errors, options, "image(s) or folder(s) of masks")
    images = {stem: ImageSource(image) for stem, (image, _) in content.pairs.items()}
    images |= {stem: ImageSource(image) for stem, image in bare.items()}
    lists = {
        stem: ListSource(folder, partial(_read, image, folder, options.threshold))
        for stem, (image, folder) in content.pairs.items()
    }
    lists |= {stem: ListSource.background(image) for stem, image in bare.items()}
    folders = "one folder per image" if content.folder_per_image else "one folder of masks per image"
    return object_lists.layout(
        source,
        options,
        images=images,
        lists=lists,
        names={0: "background", 1: LABEL},
        surveyed=object_lists.survey(lists, mapper),
        reasons=[f"one mask file per object, {folders}", *background_only(len(bare)), *skipped],
    )


def _folder_per_image(source: Path) -> ObjectFolder | None:
    """Read a source with folders STEM/images/ and STEM/masks/; return None for any other source."""
    folders = {
        names.composed(folder.name): (_first_existing(folder, IMAGES), _first_existing(folder, MASKS))
        for folder in sorted(source.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    images = {stem: list(by_stem(images, READABLE).values()) for stem, (images, _) in folders.items() if images}
    single = {stem: files[0] for stem, files in images.items() if len(files) == 1}
    if 2 * len(single) <= len(images) or not any(masks for _, masks in folders.values()):
        return None
    errors = [
        f"{source / stem} has {len(files)} image(s) and {'a' if folders[stem][1] else 'no'} folder {MASKS[0]}/; put "
        f"one image into {IMAGES[0]}/ and its masks into {MASKS[0]}/; if there is no object, leave {MASKS[0]}/ empty"
        for stem, files in images.items()
        if len(files) != 1
    ]
    pairs = {stem: (image, masks) for stem, image in single.items() if (masks := folders[stem][1])}
    return ObjectFolder(pairs, {stem: image for stem, image in single.items() if stem not in pairs}, errors, True)


def _two_folders(source: Path) -> ObjectFolder | None:
    """Read a source with files images/STEM.* and folders masks/STEM/; return None for any other source."""
    image_folder, mask_folder = _first_existing(source, IMAGES), _first_existing(source, MASKS)
    if not image_folder or not mask_folder:
        return None
    masks = {
        names.composed(path.name): path
        for path in sorted(mask_folder.iterdir())
        if path.is_dir() and path.name[0] != "."
    }
    images = by_stem(image_folder, READABLE) if masks else {}
    pairs = {stem: (image, masks[stem]) for stem, image in images.items() if stem in masks}
    errors = [
        f"the folder of masks {masks[stem]} has no image with the same name in {image_folder}; add the image"
        for stem in masks
        if stem not in images
    ]
    return ObjectFolder(pairs, {stem: image for stem, image in images.items() if stem not in masks}, errors, False)


def _first_existing(folder: Path, usual_names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in usual_names if (folder / name).is_dir()), None)


def _read(image: Path, folder: Path, threshold: float | None) -> ObjectList:
    """Read the objects of one image; each file in `folder` is the mask of one object."""
    mask_files = list(by_stem(folder, READABLE).values())
    if not mask_files:
        return ObjectList(folder, object_lists.image_shape(image), ())
    objects, shape = [], (0, 0)
    for number, file in enumerate(mask_files):
        mask = imagefiles.read_labels(file)
        shape = shape if number else mask.shape
        if mask.shape != shape:
            raise LayoutError(
                f"the mask {file} is {object_lists.size(mask.shape)} px, but the mask {mask_files[0].name} of the same "
                f"image is {object_lists.size(shape)} px; masks of one image must have the same size; correct or "
                "remove the wrong mask"
            )
        objects.append(Object(file.name, LABEL, Region.of(_object_pixels(file, mask, threshold))))
    object_lists.refuse_other_size(image, folder, shape)
    empty = [listed.name for listed in objects if not listed.region.area]
    if empty:
        raise LayoutError(f"{folder} has masks that cover no pixel: {first_few(empty)}; correct or remove them")
    return ObjectList(folder, shape, objects)


def _object_pixels(file: Path, mask: imagefiles.Labels, threshold: float | None) -> npt.NDArray[np.bool_]:
    if threshold is not None:
        return np.greater(mask, threshold)
    highest = mask.max(initial=0)
    grey = int(np.count_nonzero((mask > 0) & (mask < highest)))
    if grey:
        raise LayoutError(
            f"{file}: {grey} pixels are neither 0 nor {highest}, but the mask of one object must hold only these two "
            f"values; if the edge of the object is soft, add --threshold, such as --threshold {highest // 2}"
        )
    return mask > 0
