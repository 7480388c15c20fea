"""What the files of a source say of themselves: told of all, and refused where an image and its mask contradict."""

from collections.abc import Iterable
from pathlib import Path

from segline.data import files, georeference
from segline.data.checks import filenotes
from segline.data.files import FileError
from segline.data.formats import Each, Layout, drawings
from segline.model.metadata import Note


def told(layout: Layout, each: Each) -> tuple[list[str], set[str]]:
    """Lines about the notes of all images and masks, and which kinds of notes of images these tell of."""
    images = _readable(picture.file for picture in layout.images.values())
    masks = _readable(mask.file for found in (layout.classes, layout.instances) for mask in found.values())
    noted = dict(zip([*images, *masks], each(filenotes.notes, [*images, *masks]), strict=True))
    # Whether missing values occur is known when pixels are: check says it.
    of_images = [(file, tuple(note for note in noted[file] if not _later(note))) for file in images]
    kinds = {note.kind for _, found in of_images for note in found}
    of_masks = [(file, noted[file]) for file in masks]
    return [*filenotes.lines("image", of_images), *filenotes.lines("mask", of_masks)], kinds


def _later(note: Note) -> bool:
    return note.kind in (filenotes.NODATA, filenotes.OF_MASKS)


def _readable(used: Iterable[Path]) -> list[Path]:
    """The image files among `used`, each once; others, such as JSON and folders, have no notes."""
    return [file for file in dict.fromkeys(used) if file.suffix.lower() in files.READABLE and file.is_file()]


def refuse_apart(layout: Layout, each: Each) -> None:
    """Refuse masks whose georeference places them elsewhere than their images.

    Raises
    ------
    LayoutError
        There are such masks; some are named, with how far they are from their images.
    """
    pairs = [
        (picture.file, mask.file)
        for stem, picture in layout.images.items()
        for mask in {found[stem] for found in (layout.classes, layout.instances) if stem in found}
        if picture.file != mask.file and mask.file.suffix.lower() in georeference.GEOREFERENCED
    ]
    drawings.refuse([message for message in each(_apart, list(dict.fromkeys(pairs))) if message])


def _apart(pair: tuple[Path, Path]) -> str:
    image, mask = pair
    try:
        if files.image_size(image)[:2] != files.image_size(mask)[:2]:
            return ""  # which is said when both are compared
        message = georeference.apart(image, mask)
    except FileError:
        return ""  # whoever reads it says so
    return f"{mask}: {message}; give the mask of this place, or save it without georeference if that is wrong" * bool(
        message
    )
