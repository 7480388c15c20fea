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
    images = _noted((picture.file for picture in layout.images.values()), each)
    masks = _noted((mask.file for found in (layout.classes, layout.instances) for mask in found.values()), each)
    # Whether missing values occur is known when pixels are: check says it.
    images = [(file, tuple(note for note in noted if not _later(note))) for file, noted in images]
    kinds = {note.kind for _, noted in images for note in noted}
    return [*filenotes.lines("image", images), *filenotes.lines("mask", masks)], kinds


def _later(note: Note) -> bool:
    return note.kind in (filenotes.NODATA, filenotes.OF_MASKS)


def _noted(used: Iterable[Path], each: Each) -> list[tuple[Path, tuple[Note, ...]]]:
    """The notes of each image file among `used`; others, such as JSON and folders, have none."""
    images = [file for file in dict.fromkeys(used) if file.suffix.lower() in files.READABLE and file.is_file()]
    return list(zip(images, each(filenotes.notes, images), strict=True))


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
