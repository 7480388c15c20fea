"""Layout: a folder of images and a folder of masks of the same stems, one mask an image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from segline.data.dataset import GROUPS, SPEC, Kind, by_stem
from segline.data.formats import Layout, LayoutError
from segline.data.formats.masks import Facts, facts_of, guess

IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "label")
READABLE = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

Each = Callable[[Callable[[Path], Facts], Sequence[Path]], Iterator[Facts]]


def recognise(
    source: Path,
    *,
    labels: Kind | None = None,
    names: Mapping[int, str] | None = None,
    ignore: int | None = None,
    each: Each = map,
) -> Layout:
    """What `source` holds.

    Parameters
    ----------
    labels : what the masks mean; None guesses.
    names : name by class id; classes without one are called class 1, class 2, ...
    ignore : mask value of pixels that do not count.
    each : like `map`; hand over one that uses all cores and shows progress.

    Raises
    ------
    LayoutError, DatasetError, FileError
        No such folders, files without partner, or masks that cannot be meant.
    """
    if (source / SPEC).exists():
        raise LayoutError(f"{source} is a dataset already; copy it to data/raw and set data.source in params.yaml")
    image_folder, mask_folder = _folder(source, IMAGES), _folder(source, MASKS)
    images, masks = by_stem(image_folder, READABLE), by_stem(mask_folder, READABLE)
    _refuse_unpaired(image_folder, images, mask_folder, masks)
    stems = sorted(images)
    meaning = guess(list(each(facts_of, [masks[stem] for stem in stems])), labels, names or {}, ignore)
    return Layout(
        images,
        masks,
        source / GROUPS if (source / GROUPS).exists() else None,
        meaning.labels,
        meaning.classes,
        meaning.class_of,
        (f"images from {image_folder.name}/, masks from {mask_folder.name}/, paired by stem", *meaning.reasons),
        meaning.joined,
    )


def _folder(source: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (source / name).is_dir():
            return source / name
    there = sorted(path.name for path in source.iterdir()) if source.is_dir() else []
    if not there:
        raise LayoutError(f"{source} is {'an empty folder' if source.is_dir() else 'no folder'}; name one with images")
    raise LayoutError(
        f"{source} has no folder {' or '.join(names)}, but {', '.join(there[:8])}; "
        f"put images in {IMAGES[0]}/ and masks of the same stems in {MASKS[0]}/"
    )


def _refuse_unpaired(image_folder: Path, images: dict[str, Path], mask_folder: Path, masks: dict[str, Path]) -> None:
    if not images:
        raise LayoutError(f"{image_folder} holds no image ({', '.join(READABLE)})")
    for folder, others, alone in (
        (mask_folder, images, sorted(set(images) - set(masks))),
        (image_folder, masks, sorted(set(masks) - set(images))),
    ):
        if alone:
            files = ", ".join(others[stem].name for stem in alone[:5])
            raise LayoutError(
                f"{len(alone)} of {len(others)} files in {others[alone[0]].parent} have no partner of their stem in "
                f"{folder}: {files}; add the partners or remove these"
            )
