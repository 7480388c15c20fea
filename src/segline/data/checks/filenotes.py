"""Turn notes on image metadata into problems (for the check of a dataset) or lines of text (for an import)."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from segline.data import imagefiles
from segline.data.checks.problems import Problem
from segline.files import FileError
from segline.model import metadata
from segline.model.images import Raw
from segline.model.metadata import Note

OF_MASKS = "transparency"  # this kind of note is for masks only, because images with transparent pixels are refused
NODATA = "nodata"
MOST = 7  # most messages shown for one kind of note; enough for the 7 ways to rotate or mirror an image


def notes(file: Path) -> tuple[Note, ...]:
    """Return the notes on a file's metadata; return () for an unreadable file, because another check reports it."""
    try:
        return imagefiles.describe(file, 0).notes
    except FileError:
        return ()


def problems(name: str, file: Path, image: Raw | None = None) -> Iterator[Problem]:
    """Yield warnings about the metadata of `file`. For an image, also yield a problem if pixel values are missing.

    Parameters
    ----------
    name : name of the file in the table.
    image : pixels, if the file is an image.
    """
    if image is None:
        yield from (Problem("warning", name, note.message, kind=note.kind) for note in notes(file))
        return
    metadata_of_file = imagefiles.describe(file, 0)
    for note in metadata_of_file.notes:
        if note.kind not in (OF_MASKS, NODATA):
            yield Problem("warning", name, note.message, kind=note.kind)
    nodata = metadata_of_file.nodata
    if nodata is not None and not np.isnan(nodata):  # the pixel check reports NaN
        yield from _missing(name, image, nodata)


def _missing(name: str, image: Raw, nodata: float) -> Iterator[Problem]:
    """Yield a problem if an image contains missing values, which are pixels with the value `nodata`.

    The problem is an error if the pixels are floats and `nodata` is far from all other values. Else it is a warning.
    """
    missing = metadata.missing(image, nodata)
    count = int(np.count_nonzero(missing))
    if not count:
        return
    share = f"{count} values ({count / image.size:.1%}) are {nodata:g}, which the file declares as missing (nodata)"
    if image.dtype == np.float32 and _far(image[~missing], nodata):
        message = f"{share}, far from all other values; give them a value in the range of the others, or crop them away"
        yield Problem("error", name, message, kind="missing values far from all others", count=count)
    else:
        message = (
            f"{share}; they are used as ordinary values, unless you crop them away or mark their pixels as ignored in "
            "the labels"
        )
        yield Problem("warning", name, message, kind="values declared as missing (nodata)", count=count)


def _far(values: Raw, nodata: float) -> bool:
    """Return whether the distance from `nodata` to the range of `values` is greater than the width of this range."""
    if not values.size:
        return False
    low, high = float(values.min()), float(values.max())
    return not low - (high - low) <= nodata <= high + (high - low)


def lines(what: str, noted: Iterable[tuple[Path, tuple[Note, ...]]]) -> list[str]:
    """Return one line for each different note, but at most `MOST` lines for each kind of note.

    `what` is the word for the files in these lines, such as "image" or "mask".
    """
    counts = Counter(note for _, file_notes in noted for note in file_notes)
    texts: list[str] = []
    for kind in dict.fromkeys(note.kind for note in counts):
        same = [(note.message, count) for note, count in counts.most_common() if note.kind == kind]
        texts += [f"{count} {what}(s): {message}" for message, count in same[:MOST]]
        if rest := sum(count for _, count in same[MOST:]):
            texts.append(f"{rest} more {what}(s): {kind}")
    return texts
