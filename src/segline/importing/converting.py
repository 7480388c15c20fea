"""One image of a foreign layout, and its masks, as files of a dataset; each is written whole, and only if not there."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segline import files
from segline.data import imagefiles, labels
from segline.data.imagefiles import Labels
from segline.importing.cutting import WHOLE, Windows
from segline.importing.formats import Layout, LayoutError, Mask, Picture, some
from segline.importing.formats.tables import translated
from segline.model.images import Raw, encode_png
from segline.model.tifftags import GDAL_NODATA

MOST_INSTANCES = np.iinfo(np.uint16).max


def write_image(picture: Picture, folder: Path, windows: Windows) -> bool:
    """Copy a file byte for byte, or write its blocks or one page of a stack; return whether all was there already."""
    whole = picture.page is None and list(windows.values()) == [WHOLE]
    suffixes = (picture.file.suffix,) if whole else (".png", ".tif")
    missing = [stem for stem in windows if not any((folder / f"{stem}{suffix}").exists() for suffix in suffixes)]
    if not missing:
        return True
    if whole:
        files.copy(picture.file, folder / f"{missing[0]}{picture.file.suffix}")
        return False
    pixels = (
        imagefiles.read_image(picture.file)
        if picture.page is None
        else imagefiles.read_page(picture.file, picture.page)
    )
    nodata = imagefiles.describe(picture.file, picture.page or 0).nodata
    for stem in missing:
        _write_pixels(pixels[windows[stem]], folder, stem, nodata)
    return False


def _write_pixels(pixels: Raw, folder: Path, stem: str, nodata: float | None) -> None:
    """Write (H, W, C) as PNG, or as TIFF where that cannot hold them, or the number of missing values."""
    if nodata is None and pixels.dtype != np.float32 and pixels.shape[2] in (1, 3):
        files.write_bytes(folder / f"{stem}.png", encode_png(pixels if pixels.shape[2] == 3 else pixels[..., 0]))
    else:
        files.write_bytes(folder / f"{stem}.tif", _tiff(pixels, nodata))


def _tiff(pixels: Raw, nodata: float | None) -> bytes:
    """TIFF bytes of (H, W, C), the same for the same pixels; with the number of missing values, where there is one."""
    import tifffile

    stream = io.BytesIO()
    one = pixels.shape[2] == 1
    tifffile.imwrite(
        stream,
        pixels[..., 0] if one else np.moveaxis(pixels, -1, 0),
        photometric="minisblack",
        planarconfig=None if one else "separate",
        metadata=None,
        software=False,
        extratags=[] if nodata is None else [(GDAL_NODATA, "s", 0, repr(nodata), True)],
    )
    return stream.getvalue()


def write_classes(layout: Layout, folder: Path, stem: str, windows: Windows) -> None:
    """Write the class ids of one image, or of its blocks, as uint8.

    Raises
    ------
    LayoutError, FileError
        The mask cannot be read, has another size than an image that is cut, or holds a value that stands for no class.
    """
    mask = layout.classes[stem]

    def classes() -> npt.NDArray[np.uint8]:
        values = _values(mask, layout.images.get(stem), windows)
        table = {class_id: class_id for class_id in layout.names} if layout.class_of is None else layout.class_of
        found, known = translated(values, table)
        if not known.all():
            strange = values[~known]
            raise LayoutError(
                f"{mask.file}: {strange.size} pixels hold {some(np.unique(strange).tolist(), 5)}, which stand for no "
                f"class; there are {some(sorted(table))}"
            )
        return found

    _write_labels(classes, folder, windows)


def write_instances(layout: Layout, folder: Path, stem: str, windows: Windows) -> int:
    """Write the instance ids of one image, or of its blocks, as uint16; return how many instances these have.

    Raises
    ------
    LayoutError, FileError
        The mask cannot be read, has another size than an image that is cut, or holds too many instances.
    """
    mask = layout.instances[stem]

    def instances() -> Labels:
        ids = _values(mask, layout.images.get(stem), windows)
        return labels.components((ids > 0).astype(np.uint8)) if layout.joined else ids

    def fitting(ids: Labels) -> npt.NDArray[np.uint16]:
        if ids.max(initial=0) > MOST_INSTANCES:
            ids, count = labels.renumber(ids)
            if count > MOST_INSTANCES:
                raise LayoutError(f"{mask.file}: {count} instances; {MOST_INSTANCES} at most, --cut the image")
        return ids.astype(np.uint16)

    written = _write_labels(instances, folder, windows, fitting)
    there = (imagefiles.read_labels(folder / f"{block}.png") for block in windows if block not in written)
    return sum(labels.ids(ids).size for ids in (*written.values(), *there))


def _write_labels(
    read: Callable[[], Labels], folder: Path, windows: Windows, fitting: Callable[[Labels], Labels] = lambda part: part
) -> dict[str, Labels]:
    """Write what is not there yet, and return it by block; nothing is read where nothing is missing."""
    missing = [stem for stem in windows if not (folder / f"{stem}.png").exists()]
    if not missing:
        return {}
    whole = read()
    written = {stem: fitting(whole[windows[stem]]) for stem in missing}
    for stem, part in written.items():
        imagefiles.write_png(folder / f"{stem}.png", part)
    return written


def _values(mask: Mask, picture: Picture | None, windows: Windows) -> Labels:
    """What the mask holds; of an image that is cut it has to have the size, which else is checked later."""
    values = mask.read()
    if picture is not None and len(windows) > 1 and values.shape != (size := imagefiles.image_size(picture.file)[:2]):
        raise LayoutError(
            f"{mask.file}: {values.shape[1]}x{values.shape[0]} px, but its image {picture.file.name} has "
            f"{size[1]}x{size[0]}; they must be one size to be cut{imagefiles.turned(picture.file)}"
        )
    return values
