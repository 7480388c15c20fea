"""Layout: one mask file an object, as the Data Science Bowl 2018 publishes it.

Either a folder an image, STEM/images/FILE and STEM/masks/*, or the same laid flat, images/STEM.* and masks/STEM/*.
"""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segline import names
from segline.data import imagefiles
from segline.data.dataset import by_stem
from segline.importing.formats import (
    READABLE,
    Each,
    Layout,
    LayoutError,
    Picture,
    Wishes,
    drawings,
    finding,
    flags,
    some,
    survey,
)
from segline.importing.formats.drawings import Drawing, Object, Sheet
from segline.importing.formats.folders import IMAGES, MASKS
from segline.importing.formats.regions import Region

LABEL = "object"

# Image and folder of masks by stem; what is wrong with others; images without such a folder.
Found = tuple[dict[str, tuple[Path, Path]], list[str], dict[str, Path]]


def recognise(source: Path, wishes: Wishes, each: Each = map) -> Layout | None:
    """What `source` holds, when each object has a mask file of its own; None otherwise.

    Pixels above the threshold, or above 0, are the object. Where objects overlap, the smaller one has the pixels.

    Raises
    ------
    LayoutError, DatasetError
        An image without masks or the other way round, a mask file that is empty, grey or of another size.
    """
    if not source.is_dir():
        return None
    nested = _nested(source)
    found, alone, bare = nested or _flat(source) or ({}, [], {})
    if not found:
        return None
    flags.refuse(wishes, "files of one object each", "threshold", "missing_as_background")
    if not wishes.missing_as_background:
        without = "an empty folder says that there is no object, as does --missing-as-background for all such images"
        alone = [*(f"{image} has no folder of masks; {without}" for image in bare.values()), *alone]
        bare = {}
    skipped = finding.refuse_or_skip(alone, wishes, "image(s) or folder(s) of masks")
    pictures = {stem: Picture(image) for stem, (image, _) in found.items()}
    pictures |= {stem: Picture(image) for stem, image in bare.items()}
    sheets = {
        stem: Sheet(folder, partial(_read, image, folder, wishes.threshold)) for stem, (image, folder) in found.items()
    }
    sheets |= {stem: Sheet.blank(image) for stem, image in bare.items()}
    return survey.layout(
        source,
        wishes,
        pictures=pictures,
        sheets=sheets,
        names={0: "background", 1: LABEL},
        found=survey.survey(sheets, each),
        reasons=[
            f"one mask file an object, one folder {'an image' if nested else 'of masks an image'}",
            *finding.blank(len(bare)),
            *skipped,
        ],
    )


def _nested(source: Path) -> Found | None:
    """What there is of STEM/images/FILE and STEM/masks/."""
    parts = {
        names.composed(folder.name): (_inside(folder, IMAGES), _inside(folder, MASKS))
        for folder in sorted(source.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    images = {stem: list(by_stem(images, READABLE).values()) for stem, (images, _) in parts.items() if images}
    single = sum(len(found) == 1 for found in images.values())
    if 2 * single <= len(images) or not any(masks for _, masks in parts.values()):
        return None
    alone = [
        f"{source / stem} has {len(found)} image(s) and {'a' if parts[stem][1] else 'no'} folder {MASKS[0]}; "
        f"each folder holds one image in {IMAGES[0]}/ and a folder {MASKS[0]}/, empty where there is no object"
        for stem, found in images.items()
        if len(found) != 1
    ]
    one = {stem: found[0] for stem, found in images.items() if len(found) == 1}
    pairs = {stem: (image, masks) for stem, image in one.items() if (masks := parts[stem][1])}
    return pairs, alone, {stem: image for stem, image in one.items() if stem not in pairs}


def _flat(source: Path) -> Found | None:
    """What there is of images/STEM.* and masks/STEM/."""
    image_folder, mask_folder = _inside(source, IMAGES), _inside(source, MASKS)
    if not image_folder or not mask_folder:
        return None
    masks = {
        names.composed(path.name): path
        for path in sorted(mask_folder.iterdir())
        if path.is_dir() and path.name[0] != "."
    }
    images = by_stem(image_folder, READABLE) if masks else {}
    both = {stem: (image, masks[stem]) for stem, image in images.items() if stem in masks}
    if not both:
        return None
    alone = [f"{masks[stem]} has no image of its name in {image_folder}" for stem in masks if stem not in images]
    return both, alone, {stem: image for stem, image in images.items() if stem not in masks}


def _inside(folder: Path, usual: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in usual if (folder / name).is_dir()), None)


def _read(image: Path, folder: Path, threshold: float | None) -> Drawing:
    """The objects of one image, a file each."""
    found = list(by_stem(folder, READABLE).values())
    if not found:
        return Drawing(folder, drawings.image_shape(image), ())
    objects, shape = [], (0, 0)
    for number, file in enumerate(found):
        mask = imagefiles.read_labels(file)
        shape = shape if number else mask.shape
        if mask.shape != shape:
            raise LayoutError(
                f"{file}: {drawings.size(mask.shape)} px, but {found[0].name} beside it {drawings.size(shape)}; "
                "masks of one image are of its size: mend or remove it"
            )
        objects.append(Object(file.name, LABEL, Region.of(_object(file, mask, threshold))))
    drawings.refuse_other_size(image, folder, shape)
    empty = [thing.name for thing in objects if not thing.region.area]
    if empty:
        raise LayoutError(f"{folder}: {some(empty)}: covers no pixel; remove what is no object, or mend it")
    return Drawing(folder, shape, objects)


def _object(file: Path, mask: imagefiles.Labels, threshold: float | None) -> npt.NDArray[np.bool_]:
    if threshold is not None:
        return np.greater(mask, threshold)
    highest = mask.max(initial=0)
    grey = int(np.count_nonzero((mask > 0) & (mask < highest)))
    if grey:
        raise LayoutError(
            f"{file}: {grey} pixels are neither 0 nor {highest}, but the file of one object holds two values; "
            f"if its edge is soft, say --threshold, such as --threshold {highest // 2}"
        )
    return mask > 0
