"""The maps of an image larger than memory: probabilities, labels pixel by pixel and ids, in files, read by rows."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from .inference import Inference, Probabilities, to_labels


class Maps:
    """The files, mapped; pages that were touched stay in memory until `release`."""

    def __init__(self, probabilities: Path, inference: Inference) -> None:
        """`probabilities` is an .npy file, (K, H, W) float32; the ids come beside it."""
        self._probabilities, self._ids = probabilities, probabilities.with_name("ids.npy")
        self._inference = inference
        self._mapped = dict[Path, npt.NDArray[Any]]()
        self.classes, self.height, self.width = np.load(probabilities, mmap_mode="r").shape

    def probabilities(self, rows: slice) -> Probabilities:
        """Class probabilities (K, h, W)."""
        return np.array(self._map(self._probabilities)[:, rows])

    def release(self) -> None:
        """Let go of the memory."""
        self._mapped.clear()

    def _map(self, file: Path) -> npt.NDArray[Any]:
        if file not in self._mapped:
            self._mapped[file] = np.load(file, mmap_mode="r+")
        return self._mapped[file]

    def labels(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Class ids (h, W) by the probabilities of each pixel alone."""
        return to_labels(self.probabilities(rows), self._inference)

    def create_ids(self) -> None:
        """Make room for ids."""
        create(self._ids, np.int32, (self.height, self.width))

    def ids(self, rows: slice) -> npt.NDArray[np.int32]:
        """Ids (h, W)."""
        return np.array(self._map(self._ids)[rows])

    def write_ids(self, rows: slice, ids: npt.NDArray[np.int32]) -> None:
        """Put ids (h, W) of some rows into their place."""
        self._map(self._ids)[rows] = ids


def create(file: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    """Write an .npy file of zeros, its room on the disk reserved: full, it would end who writes through memory."""
    array: npt.NDArray[Any] = open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    del array
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
