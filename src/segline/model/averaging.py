"""Probabilities of an image larger than memory, averaged over its views in a file; what is finished survives an end."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .inference import Predictor
from .maps import create
from .tiling import Part, Source
from .views import VIEWS

Show = Callable[[str, int, int], None]
"""Called with what is being done, how many steps of it are, and how many there will be."""

JOURNAL = "journal.json"


class Finished(NamedTuple):
    """So many views, and so many rows of windows of the next one, are in the files."""

    views: int
    rows: int


def averaged(predictor: Predictor, source: Source, folder: Path, show: Show) -> Path:
    """Write the mean over the views into a file of `folder`, going on where an earlier call ended.

    Each view adds to the sum of those before into a file of its own, so that rows can be done again.

    Returns
    -------
    Path of an .npy file, (K, H, W) float32, the same to the last bit as `Predictor.probabilities` gives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    views = VIEWS[predictor.inference.views]
    plans = [predictor.plan(source.height, source.width, view) for view in views]
    total = sum(len(rows) * len(columns) for rows, columns in plans)
    finished = _read(folder / JOURNAL)
    for number, view in enumerate(views):
        before = sum(len(rows) * len(columns) for rows, columns in plans[:number])
        if number < finished.views:
            continue
        first = finished.rows if number == finished.views else 0
        if first == 0:
            create(_sum(folder, number), np.float32, (len(predictor.description.classes), source.height, source.width))
        for row, parts in enumerate(predictor.windows(source, view, first), first):
            for column, part in enumerate(parts, 1):
                _add(part, len(views), folder, number)
                show("windows", before + row * len(plans[number][1]) + column, total)
            _write(folder / JOURNAL, Finished(number, row + 1), _sum(folder, number))
        _write(folder / JOURNAL, Finished(number + 1, 0), _sum(folder, number))
        if number:
            _sum(folder, number - 1).unlink(missing_ok=True)
    return _sum(folder, len(views) - 1)


def _sum(folder: Path, number: int) -> Path:
    return folder / f"sum-{number}.npy"


def _add(part: Part, views: int, folder: Path, number: int) -> None:
    """Write the sum with one more part. Mapped for each part anew: pages stay in memory as long as the mapping."""
    place = (slice(None), part.rows, part.columns)
    value = part.probabilities / np.float32(views)
    if number:
        value += np.load(_sum(folder, number - 1), mmap_mode="r")[place]
    np.load(_sum(folder, number), mmap_mode="r+")[place] = value


def _read(journal: Path) -> Finished:
    return Finished(*json.loads(journal.read_text())) if journal.exists() else Finished(0, 0)


def _write(journal: Path, finished: Finished, file: Path) -> None:
    """Note what is finished, once it is on the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary = journal.with_name(f".{journal.name}.partial")
    temporary.write_text(json.dumps(finished))
    temporary.replace(journal)
