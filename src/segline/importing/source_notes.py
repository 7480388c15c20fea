"""Report the metadata of source files, and refuse masks that are not at the georeferenced location of their image."""

from collections.abc import Iterable
from pathlib import Path

from segline.data import georeference, imagefiles
from segline.data.checks import filenotes
from segline.files import FileError
from segline.importing.layout import Layout, Mapper, raise_errors
from segline.model.metadata import Note


def notes(layout: Layout, mapper: Mapper) -> tuple[list[str], set[str]]:
    """Report the metadata of images and masks.

    Return two values: lines for the user, and the kinds of notes about images that these lines contain. Later checks
    need not report notes of these kinds again.
    """
    images = _readable(image.file for image in layout.images.values())
    masks = _readable(mask.file for sources in (layout.classes, layout.instances) for mask in sources.values())
    notes_of = dict(zip([*images, *masks], mapper(filenotes.notes, [*images, *masks]), strict=True))
    # For images, leave out notes about missing values (nodata), because the pixel check reports missing values.
    # Also leave out notes about transparency, because images with transparent pixels are refused.
    of_images = [(file, tuple(note for note in notes_of[file] if not _needs_pixels(note))) for file in images]
    kinds = {note.kind for _, file_notes in of_images for note in file_notes}
    of_masks = [(file, notes_of[file]) for file in masks]
    return [*filenotes.lines("image", of_images), *filenotes.lines("mask", of_masks)], kinds


def _needs_pixels(note: Note) -> bool:
    return note.kind in (filenotes.NODATA, filenotes.OF_MASKS)


def _readable(used: Iterable[Path]) -> list[Path]:
    """Return the image files among the paths `used`, each file once; leave out JSON files and folders."""
    return [file for file in dict.fromkeys(used) if file.suffix.lower() in imagefiles.READABLE and file.is_file()]


def refuse_misplaced_masks(layout: Layout, mapper: Mapper) -> None:
    """Refuse masks whose georeferenced location differs from the location of their image.

    Raises
    ------
    LayoutError
        There are misplaced masks; the message names some, with their distance from the image.
    """
    pairs = [
        (image.file, mask.file)
        for stem, image in layout.images.items()
        for mask in {sources[stem] for sources in (layout.classes, layout.instances) if stem in sources}
        if image.file != mask.file and mask.file.suffix.lower() in georeference.GEOREFERENCED
    ]
    raise_errors([message for message in mapper(_misplacement, list(dict.fromkeys(pairs))) if message])


def _misplacement(pair: tuple[Path, Path]) -> str:
    """Return an error message if the mask and its image have different locations; otherwise an empty text."""
    image, mask = pair
    try:
        if imagefiles.image_size(image)[:2] != imagefiles.image_size(mask)[:2]:
            return ""  # a later check reports different sizes
        distance = georeference.apart(image, mask)
    except FileError:
        return ""  # a later step reports unreadable files
    way_out = (
        "use the mask that belongs to the image, or, if the georeference is wrong, save the mask without georeference"
    )
    return f"{mask}: {distance}; {way_out}" if distance else ""
