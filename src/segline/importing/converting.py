"""Write one image and its masks as dataset files; keep files that exist already."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segline import files
from segline.data import imagefiles, labels
from segline.data.imagefiles import Labels
from segline.importing.cutting import WHOLE, Windows
from segline.importing.formats.pixels import translated
from segline.importing.layout import ImageSource, Layout, LayoutError, MaskSource, first_few
from segline.model.images import Raw, encode_png
from segline.model.tifftags import GDAL_NODATA

MOST_INSTANCES = np.iinfo(np.uint16).max


def write_image(image: ImageSource, folder: Path, windows: Windows) -> bool:
    """Write those dataset files of one image that do not exist yet; return True if all files existed already.

    A whole image file is copied. Blocks of an image, and single pages of a file, become PNG or TIFF files.
    """
    whole = image.page is None and list(windows.values()) == [WHOLE]
    suffixes = (image.file.suffix,) if whole else (".png", ".tif")
    missing = [stem for stem in windows if not any((folder / f"{stem}{suffix}").exists() for suffix in suffixes)]
    if not missing:
        return True
    if whole:
        files.copy(image.file, folder / f"{missing[0]}{image.file.suffix}")
        return False
    pixels = imagefiles.read_image(image.file) if image.page is None else imagefiles.read_page(image.file, image.page)
    nodata = imagefiles.describe(image.file, image.page or 0).nodata
    for stem in missing:
        _write_pixels(pixels[windows[stem]], folder, stem, nodata)
    return False


def _write_pixels(pixels: Raw, folder: Path, stem: str, nodata: float | None) -> None:
    """Write `pixels` (H, W, C) as PNG, or as TIFF if PNG cannot store the pixels or the nodata value."""
    if nodata is None and pixels.dtype != np.float32 and pixels.shape[2] in (1, 3):
        files.write_bytes(folder / f"{stem}.png", encode_png(pixels if pixels.shape[2] == 3 else pixels[..., 0]))
    else:
        files.write_bytes(folder / f"{stem}.tif", _tiff(pixels, nodata))


def _tiff(pixels: Raw, nodata: float | None) -> bytes:
    """Encode `pixels` (H, W, C) and the nodata value, if any, as a TIFF file; equal pixels give equal bytes."""
    import tifffile

    stream = io.BytesIO()
    single = pixels.shape[2] == 1
    tifffile.imwrite(
        stream,
        pixels[..., 0] if single else np.moveaxis(pixels, -1, 0),
        photometric="minisblack",
        planarconfig=None if single else "separate",
        metadata=None,
        software=False,
        extratags=[] if nodata is None else [(GDAL_NODATA, "s", 0, repr(nodata), True)],
    )
    return stream.getvalue()


def write_classes(layout: Layout, folder: Path, stem: str, windows: Windows) -> None:
    """Write the class ids of one image as uint8 label images, one for each block of the image.

    An image that is not cut is a single block.

    Raises
    ------
    LayoutError, FileError
        The mask cannot be read or holds a value without a class; or the image is cut, but its mask has another size.
    """
    mask = layout.classes[stem]

    def classes() -> npt.NDArray[np.uint8]:
        values = _values(mask, layout.images.get(stem), windows)
        table = {class_id: class_id for class_id in layout.names} if layout.class_of is None else layout.class_of
        class_ids, known = translated(values, table)
        if not known.all():
            unknown = values[~known]
            raise LayoutError(
                f"{mask.file}: {unknown.size} pixels have values without a class: "
                f"{first_few(np.unique(unknown).tolist(), 5)}; the values with a class are {first_few(sorted(table))}; "
                "correct the mask"
            )
        return class_ids

    _write_labels(classes, folder, windows)


def write_instances(layout: Layout, folder: Path, stem: str, windows: Windows) -> int:
    """Write the instance ids of each block of one image as a uint16 image; return the number of instances.

    An image that is not cut is a single block.

    Raises
    ------
    LayoutError, FileError
        The mask cannot be read or holds too many instances; or the image is cut, but its mask has another size.
    """
    mask = layout.instances[stem]

    def instances() -> Labels:
        ids = _values(mask, layout.images.get(stem), windows)
        return labels.components((ids > 0).astype(np.uint8)) if layout.label_components else ids

    def fitting(ids: Labels) -> npt.NDArray[np.uint16]:
        if ids.max(initial=0) > MOST_INSTANCES:
            ids, count = labels.renumber(ids)
            if count > MOST_INSTANCES:
                raise LayoutError(
                    f"{mask.file} has {count} instances, but an image may have {MOST_INSTANCES} at most; cut the "
                    f"image with --cut"
                )
        return ids.astype(np.uint16)

    written = _write_labels(instances, folder, windows, fitting)
    existing = (imagefiles.read_labels(folder / f"{block}.png") for block in windows if block not in written)
    return sum(labels.ids(ids).size for ids in (*written.values(), *existing))


def _write_labels(
    read: Callable[[], Labels], folder: Path, windows: Windows, fitting: Callable[[Labels], Labels] = lambda part: part
) -> dict[str, Labels]:
    """Write each block of a mask to its own file, unless this file exists; return the written blocks by file stem.

    `read` returns the mask. `read` is called only if a block has no file.
    """
    missing = [stem for stem in windows if not (folder / f"{stem}.png").exists()]
    if not missing:
        return {}
    whole = read()
    written = {stem: fitting(whole[windows[stem]]) for stem in missing}
    for stem, part in written.items():
        imagefiles.write_png(folder / f"{stem}.png", part)
    return written


def _values(mask: MaskSource, image: ImageSource | None, windows: Windows) -> Labels:
    """Return the values of a mask; if the image is cut into blocks, check that mask and image have the same size.

    If the image is not cut, a later check compares the sizes.
    """
    values = mask.read()
    if image is not None and len(windows) > 1 and values.shape != (size := imagefiles.image_size(image.file)[:2]):
        raise LayoutError(
            f"{mask.file} is {values.shape[1]}x{values.shape[0]} px, but its image {image.file.name} is "
            f"{size[1]}x{size[0]} px; --cut needs equal sizes; supply the mask that belongs to this image"
            f"{imagefiles.turned(image.file)}"
        )
    return values
