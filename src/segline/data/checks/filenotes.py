"""What image files say of themselves beside their pixels, as problems of a dataset and as lines of an import."""

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

OF_MASKS = "transparency"  # the note that is of masks only: an image that is transparent somewhere is refused
NODATA = "nodata"
MOST = 7  # messages of one kind, as many as there are ways to turn an image


def notes(file: Path) -> tuple[Note, ...]:
    """What is to be said of a file; nothing where it cannot be read, for whoever reads it says so."""
    try:
        return imagefiles.describe(file, 0).notes
    except FileError:
        return ()


def problems(name: str, file: Path, image: Raw | None = None) -> Iterator[Problem]:
    """Warnings about what `file`, called `name`, says of itself; of an image, whose pixels are known, errors too."""
    if image is None:
        yield from (Problem("warning", name, note.message, kind=note.kind) for note in notes(file))
        return
    found = imagefiles.describe(file, 0)
    for note in found.notes:
        if note.kind not in (OF_MASKS, NODATA):
            yield Problem("warning", name, note.message, kind=note.kind)
    if found.nodata is not None and not np.isnan(found.nodata):  # NaN is an error of its own
        yield from _missing(name, image, found.nodata)


def _missing(name: str, image: Raw, nodata: float) -> Iterator[Problem]:
    """What is to be said of missing values that occur: an error where they lie far from all values that do not."""
    missing = metadata.missing(image, nodata)
    count = int(np.count_nonzero(missing))
    if not count:
        return
    share = f"{count} values ({count / image.size:.1%}) are {nodata:g}, which the file declares as missing (nodata)"
    if image.dtype == np.float32 and _far(image[~missing], nodata):
        message = f"{share}, far from all others; give them a value among the others, or crop them away"
        yield Problem("error", name, message, kind="missing values far from all others", count=count)
    else:
        message = f"{share}; they are taken as they are: crop them away, or have the labels ignore them"
        yield Problem("warning", name, message, kind="values declared as missing (nodata)", count=count)


def _far(values: Raw, nodata: float) -> bool:
    """Whether a number lies further from `values` than these lie from each other."""
    if not values.size:
        return False
    low, high = float(values.min()), float(values.max())
    return not low - (high - low) <= nodata <= high + (high - low)


def lines(what: str, noted: Iterable[tuple[Path, tuple[Note, ...]]]) -> list[str]:
    """A line for each thing that files, called `what`, say of themselves; of one kind at most some lines."""
    counts = Counter(note for _, each in noted for note in each)
    found: list[str] = []
    for kind in dict.fromkeys(note.kind for note in counts):
        same = [(note.message, count) for note, count in counts.most_common() if note.kind == kind]
        found += [f"{count} {what}(s): {message}" for message, count in same[:MOST]]
        if rest := sum(count for _, count in same[MOST:]):
            found.append(f"{rest} {what}(s) more: {kind}")
    return found
