"""For an image that is larger than memory, store the class probabilities and the preliminary object ids in files."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from .inference import Inference, Predictor, Probabilities, to_labels
from .tiling import VIEWS, Part, Source

Show = Callable[[str, int, int], None]
"""Function that shows progress, given the name of a step, the number of finished parts and the number of all parts."""

JOURNAL = "journal.json"


class Maps:
    """Memory-mapped files of an image; data that was read or written stays in memory until `release` is called."""

    def __init__(self, outputs: Path, classes: int, inference: Inference) -> None:
        """Use two files in one folder: `outputs`, which must exist, and ids.npy, which `create_ids` creates.

        `outputs` is a .npy file (C, H, W) float32: a channel for each of the K classes, and one for the object map if
        the network predicts it.
        """
        self._outputs, self._ids = outputs, outputs.with_name("ids.npy")
        self._inference = inference
        self._mapped = dict[Path, npt.NDArray[Any]]()
        self.classes = classes
        _, self.height, self.width = np.load(outputs, mmap_mode="r").shape

    def release(self) -> None:
        """Unmap the files, which frees memory."""
        self._mapped.clear()

    def _map(self, file: Path) -> npt.NDArray[Any]:
        if file not in self._mapped:
            self._mapped[file] = np.load(file, mmap_mode="r+")
        return self._mapped[file]

    def probabilities(self, rows: slice) -> Probabilities:
        """Read the class probabilities (K, h, W) of some rows."""
        return np.array(self._map(self._outputs)[: self.classes, rows])

    def object_map(self, rows: slice) -> npt.NDArray[np.float32]:
        """Read the object map (h, W) of some rows; the network must predict it."""
        return np.array(self._map(self._outputs)[self.classes, rows])

    def labels(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Compute the class ids (h, W) of some rows, each pixel from its own probabilities only."""
        return to_labels(self.probabilities(rows), self._inference)

    def create_ids(self) -> None:
        """Create the file of preliminary ids, filled with zeros."""
        preallocate(self._ids, np.int32, (self.height, self.width))

    def ids(self, rows: slice) -> npt.NDArray[np.int32]:
        """Read the preliminary ids (h, W) of some rows."""
        return np.array(self._map(self._ids)[rows])

    def write_ids(self, rows: slice, ids: npt.NDArray[np.int32]) -> None:
        """Write the preliminary ids (h, W) of some rows."""
        self._map(self._ids)[rows] = ids


class Finished(NamedTuple):
    """Progress of a prediction: the number of finished views, and of finished rows of windows in the current view."""

    views: int
    rows: int


def averaged(predictor: Predictor, source: Source, folder: Path, show: Show) -> Path:
    """Average the network's output over the views and store the result in `folder`; resume an interrupted call.

    For each view, a new file receives the sum over this view and all views before. The file of the previous sum does
    not change, so rows can be computed again after an interruption.

    Returns
    -------
    Path of an .npy file, (C, H, W) float32, with C output channels. The content is bit-identical to the result of
    `Predictor.outputs`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    views = VIEWS[predictor.inference.views]
    plans = [predictor.plan(source.height, source.width, view) for view in views]
    total = sum(len(rows) * len(columns) for rows, columns in plans)
    finished = _read(folder / JOURNAL)
    statistics = predictor.statistics(source)
    for number, view in enumerate(views):
        before = sum(len(rows) * len(columns) for rows, columns in plans[:number])
        if number < finished.views:
            continue
        first = finished.rows if number == finished.views else 0
        if first == 0:
            shape = (predictor.network.out_channels, source.height, source.width)
            preallocate(_sum(folder, number), np.float32, shape)
        for row, parts in enumerate(predictor.windows(source, statistics, view, first), first):
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
    """Add one part of view `number` to the sum of the views; unmap the files afterwards, to free memory."""
    place = (slice(None), part.rows, part.columns)
    value = part.outputs / np.float32(views)
    if number:
        value += np.load(_sum(folder, number - 1), mmap_mode="r")[place]
    np.load(_sum(folder, number), mmap_mode="r+")[place] = value


def _read(journal: Path) -> Finished:
    return Finished(*json.loads(journal.read_text())) if journal.exists() else Finished(0, 0)


def _write(journal: Path, finished: Finished, file: Path) -> None:
    """Write into the journal how much is finished, but only after the data of `file` is on the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary = journal.with_name(f".{journal.name}.partial")
    temporary.write_text(json.dumps(finished))
    temporary.replace(journal)


def preallocate(file: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    """Write an .npy file of zeros and reserve the disk space for the file.

    Without reserved space, a write to the memory-mapped file would kill the process if the disk were full.
    """
    array: npt.NDArray[Any] = open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    del array
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
