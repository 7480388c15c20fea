"""A registered model at work on an image too large for memory, by the code that it carries."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segline.track.answers import Loaded
from segline.track.history import RegistryError

Read = Callable[[slice, slice], npt.NDArray[Any]]
Show = Callable[[str, int, int], None]

OLD = 200  # bytes a pixel that a version needs which cannot say so


class LargeAnswer:
    """What a model sees in a large image, by rows; RegistryError where it refuses."""

    def __init__(self, found: Any, errors: type[Exception]) -> None:
        self._found, self._errors = found, errors

    def labels(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Class ids (h, W)."""
        with _named(self._errors):
            labels: npt.NDArray[np.uint8] = self._found.labels(rows)
        return labels

    def instances(self, rows: slice) -> npt.NDArray[np.int32]:
        """Instance ids (h, W)."""
        with _named(self._errors):
            instances: npt.NDArray[np.int32] = self._found.objects(rows)
        return instances

    def probabilities(self, rows: slice) -> npt.NDArray[np.float32]:
        """Class probabilities (K, h, W)."""
        probabilities: npt.NDArray[np.float32] = self._found.probabilities(rows)
        return probabilities

    @property
    def count(self) -> int:
        """Number of instances."""
        with _named(self._errors):
            count: int = self._found.count
        return count


def memory(model: Loaded, height: int, width: int) -> tuple[str, int]:
    """Why a model takes no image window by window, empty where it does, and the bytes that it needs for it in one."""
    served = model.served
    if not hasattr(served, "large"):
        return "this version was registered by a segline that knew no windows; register it again", OLD * height * width
    reason, needed = served.needs_whole(height, width)
    return str(reason), int(needed)


def answer(model: Loaded, size: tuple[int, int], read: Read, folder: Path, *, views: int, show: Show) -> LargeAnswer:
    """What a model sees in an image (`size`: height, width, px) of which `read` gives pixels (h, w, C).

    Parameters
    ----------
    folder : for files as large as the image; those of an earlier call that ended are gone on with.
    views : 1, 4 or 8 views are averaged; 0: as many as the version's settings say.
    show : is told what is being done, how many steps of it are, and how many there will be.

    Raises
    ------
    RegistryError
        The image does not suit the model.
    """
    errors = sys.modules[type(model.served).__module__].ImageError  # its own, not segline's
    with _named(errors):
        return LargeAnswer(model.served.large(size, read, folder, views, show), errors)


@contextmanager
def _named(errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise RegistryError(str(error)) from error
