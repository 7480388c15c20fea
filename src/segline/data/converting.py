"""One image of a foreign layout, and its masks, as files of a dataset; each is written whole, and only if not there."""

import io
from pathlib import Path

import numpy as np

from segline.data import files, labels
from segline.data.formats import Layout, LayoutError, Picture
from segline.data.formats.masks import some
from segline.data.formats.tables import translated
from segline.model.images import Raw, encode_png

MOST_INSTANCES = np.iinfo(np.uint16).max


def write_image(picture: Picture, folder: Path, stem: str) -> bool:
    """Copy a file byte for byte, or write one page of a stack; return whether it was there already."""
    if picture.page is None:
        target = folder / f"{stem}{picture.file.suffix}"
        if target.exists():
            return True
        files.copy(picture.file, target)
        return False
    if any((folder / f"{stem}{suffix}").exists() for suffix in (".png", ".tif")):
        return True
    pixels = files.read_page(picture.file, picture.page)
    if pixels.dtype != np.float32 and pixels.shape[2] in (1, 3):
        files.write_bytes(folder / f"{stem}.png", encode_png(pixels if pixels.shape[2] == 3 else pixels[..., 0]))
    else:
        files.write_bytes(folder / f"{stem}.tif", _tiff(pixels))
    return False


def _tiff(pixels: Raw) -> bytes:
    """TIFF bytes of (H, W, C), the same for the same pixels."""
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
    )
    return stream.getvalue()


def write_classes(layout: Layout, folder: Path, stem: str) -> None:
    """Write the class ids of one image as uint8.

    Raises
    ------
    LayoutError, FileError
        The mask cannot be read, or holds a value that stands for no class.
    """
    file, mask = folder / f"{stem}.png", layout.classes[stem]
    if file.exists():
        return
    values = mask.read()
    table = {class_id: class_id for class_id in layout.names} if layout.class_of is None else layout.class_of
    classes, known = translated(values, table)
    if not known.all():
        strange = values[~known]
        raise LayoutError(
            f"{mask.file}: {strange.size} pixels hold {some(np.unique(strange).tolist(), 5)}, which stand for no "
            f"class; there are {some(sorted(table))}"
        )
    files.write_png(file, classes)


def write_instances(layout: Layout, folder: Path, stem: str) -> int:
    """Write the instance ids of one image as uint16; return how many instances it has.

    Raises
    ------
    LayoutError, FileError
        The mask cannot be read, or holds too many instances.
    """
    file, mask = folder / f"{stem}.png", layout.instances[stem]
    if file.exists():
        return labels.ids(files.read_labels(file)).size
    ids = mask.read()
    if layout.joined:
        ids = labels.components((ids > 0).astype(np.uint8))
    if ids.max(initial=0) > MOST_INSTANCES:
        ids, count = labels.renumber(ids)
        if count > MOST_INSTANCES:
            raise LayoutError(f"{mask.file}: {count} instances; {MOST_INSTANCES} at most, cut the image")
    files.write_png(file, ids.astype(np.uint16))
    return labels.ids(ids).size
