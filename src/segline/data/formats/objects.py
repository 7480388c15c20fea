"""Layout: one mask file an object, as the Data Science Bowl 2018 publishes it.

Either a folder an image, STEM/images/FILE and STEM/masks/*, or the same laid flat, images/STEM.* and masks/STEM/*.
"""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segline.data import files
from segline.data.dataset import by_stem
from segline.data.formats import READABLE, Each, Layout, LayoutError, Picture, Wishes, drawings, finding, flags, survey
from segline.data.formats.drawings import Drawing, Object, Sheet
from segline.data.formats.folders import IMAGES, MASKS
from segline.data.formats.regions import Region

LABEL = "object"

Pairs = tuple[dict[str, tuple[Path, Path]], list[str]]


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
    found, alone = nested or _flat(source) or ({}, [])
    if not found:
        return None
    flags.refuse(wishes, "files of one object each", "threshold")
    skipped = finding.refuse_or_skip(alone, wishes, "image(s) or folder(s) of masks")
    pictures = {stem: Picture(image) for stem, (image, _) in found.items()}
    sheets = {
        stem: Sheet(folder, partial(_read, image, folder, wishes.threshold)) for stem, (image, folder) in found.items()
    }
    return survey.layout(
        source,
        wishes,
        pictures=pictures,
        sheets=sheets,
        names={0: "background", 1: LABEL},
        found=survey.survey(sheets, each),
        reasons=[f"one mask file an object, one folder {'an image' if nested else 'of masks an image'}", *skipped],
    )


def _nested(source: Path) -> Pairs | None:
    """Image and folder of masks by stem, of STEM/images/FILE and STEM/masks/, and what is wrong with others."""
    parts = {
        folder.name: (_inside(folder, IMAGES), _inside(folder, MASKS))
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
        if len(found) != 1 or not parts[stem][1]
    ]
    pairs = {stem: (found[0], masks) for stem, found in images.items() if len(found) == 1 and (masks := parts[stem][1])}
    return pairs, alone


def _flat(source: Path) -> Pairs | None:
    """Image and folder of masks by stem, of images/STEM.* and masks/STEM/, and what is wrong with others."""
    image_folder, mask_folder = _inside(source, IMAGES), _inside(source, MASKS)
    if not image_folder or not mask_folder:
        return None
    masks = {path.name: path for path in sorted(mask_folder.iterdir()) if path.is_dir() and path.name[0] != "."}
    images = by_stem(image_folder, READABLE) if masks else {}
    both = {stem: (image, masks[stem]) for stem, image in images.items() if stem in masks}
    if not both:
        return None
    alone = [
        f"{image} has no folder {stem} in {mask_folder}; make an empty one where there is no object"
        for stem, image in images.items()
        if stem not in masks
    ]
    alone += [f"{masks[stem]} has no image of its name in {image_folder}" for stem in masks if stem not in images]
    return both, alone


def _inside(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _read(image: Path, folder: Path, threshold: float | None) -> Drawing:
    """The objects of one image, a file each."""
    found = list(by_stem(folder, READABLE).values())
    if not found:
        return Drawing(folder, drawings.image_shape(image), ())
    objects, shape = [], (0, 0)
    for number, file in enumerate(found):
        mask = files.read_labels(file)
        shape = shape if number else mask.shape
        if mask.shape != shape:
            raise LayoutError(
                f"{file}: {drawings.size(mask.shape)} px, but {found[0].name} beside it {drawings.size(shape)}; "
                "masks of one image are of its size: mend or remove it"
            )
        objects.append(Object(file.name, LABEL, Region.of(_object(file, mask, threshold))))
    drawings.refuse_other_size(image, folder, shape)
    return Drawing(folder, shape, objects)


def _object(file: Path, mask: files.Labels, threshold: float | None) -> npt.NDArray[np.bool_]:
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
