"""Predict an image with a registered version, in memory or out-of-core; callers read a few rows at a time."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segline import progress
from segline.model.images import decode
from segline.track.answers import Answer, Loaded
from segline.track.history import RegistryError

Read = Callable[[slice, slice], npt.NDArray[Any]]
Show = Callable[[str, int, int], None]

LARGE = 2**24  # pixels; larger images are predicted out-of-core if the version can do so
OLD = 200  # bytes per pixel; assumed if the version's code cannot estimate how much memory an image needs
NO_INSTANCES = "the version was registered by an earlier segline and predicts no instances; register the model again"


class InMemory:
    """Prediction that is held in memory; callers read one range of rows at a time."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.has_instances = answer.instances is not None

    def encoded(self, kind: str) -> bytes | None:
        """Return the prediction as an encoded image file; `kind` is labels, instances or probabilities."""
        encoded: bytes | None = getattr(self._answer, kind, None)
        return encoded

    @cached_property
    def _labels(self) -> npt.NDArray[np.uint8]:
        return decode(self._answer.labels)[..., 0]

    @cached_property
    def _instances(self) -> npt.NDArray[np.int32]:
        if self._answer.instances is None:
            raise RegistryError(NO_INSTANCES)
        return decode(self._answer.instances)[..., 0].astype(np.int32)

    @cached_property
    def _probabilities(self) -> npt.NDArray[np.float32]:
        assert self._answer.probabilities is not None
        return np.moveaxis(decode(self._answer.probabilities), -1, 0)

    def labels(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Return the class ids (h, W) in the given rows of the image."""
        return self._labels[rows]

    def instances(self, rows: slice) -> npt.NDArray[np.int32]:
        """Return the instance ids (h, W) in the given rows of the image.

        Raises
        ------
        RegistryError
            The version predicts no instances.
        """
        return self._instances[rows]

    def probabilities(self, rows: slice) -> npt.NDArray[np.float32]:
        """Return the class probabilities (K, h, W) in the given rows of the image."""
        return self._probabilities[:, rows]

    @property
    def count(self) -> int:
        """Number of instances in the whole image."""
        return int(self._instances.max(initial=0))


class OutOfCore:
    """Prediction that is held in files; callers read one range of rows at a time.

    Reading raises RegistryError if the version refuses the image.
    """

    has_instances = True

    def __init__(self, prediction: Any, errors: type[Exception]) -> None:
        self._prediction, self._errors = prediction, errors

    def encoded(self, kind: str) -> None:
        """Return None, because an out-of-core prediction is not encoded as an image file."""

    def labels(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Return the class ids (h, W) in the given rows of the image."""
        with _registry_errors(self._errors):
            labels: npt.NDArray[np.uint8] = self._prediction.labels(rows)
        return labels

    def instances(self, rows: slice) -> npt.NDArray[np.int32]:
        """Return the instance ids (h, W) in the given rows of the image."""
        with _registry_errors(self._errors):
            instances: npt.NDArray[np.int32] = self._prediction.objects(rows)
        return instances

    def probabilities(self, rows: slice) -> npt.NDArray[np.float32]:
        """Return the class probabilities (K, h, W) in the given rows of the image."""
        probabilities: npt.NDArray[np.float32] = self._prediction.probabilities(rows)
        return probabilities

    @property
    def count(self) -> int:
        """Number of instances in the whole image."""
        with _registry_errors(self._errors):
            count: int = self._prediction.count
        return count


def memory(version: Loaded, height: int, width: int) -> tuple[str, int]:
    """Return two values: why an image cannot be predicted window by window, and the memory needed without windows.

    The first value is empty if an image of this size can be predicted window by window. The memory is in bytes.
    """
    served = version.served
    if not hasattr(served, "large"):
        reason = (
            "the version was registered by an earlier segline, which could not predict window by window; register the "
            "model again"
        )
        return reason, OLD * height * width
    reason, needed = served.needs_whole(height, width)
    return str(reason), int(needed)


def by_windows(version: Loaded, height: int, width: int) -> bool:
    """Return whether an image of this size is predicted out-of-core.

    Raises
    ------
    RegistryError
        The version can only predict in memory, and the image needs more than half of the machine's memory.
    """
    if height * width <= LARGE:
        return False
    reason, needed = memory(version, height, width)
    if reason and needed > progress.machine_memory() // 2:
        raise RegistryError(
            f"an image of {width} x {height} px needs about {needed / 2**30:.0f} GiB of memory, and it cannot be "
            f"predicted window by window: {reason}; cut the image into parts"
        )
    return not reason


def out_of_core(
    version: Loaded, size: tuple[int, int], read: Read, folder: Path, *, views: int, show: Show
) -> OutOfCore:
    """Predict an image of `size` (height and width in px) window by window with a loaded version.

    Parameters
    ----------
    read : returns the pixels (h, w, C) of the given rows and columns.
    folder : folder for files as large as the image; if a call is interrupted, the next call resumes from these files.
    views : number of views to average, 1, 4 or 8; 0 for the number in the version's settings.
    show : called with the name of a step, the number of finished parts and the total number of parts.

    Raises
    ------
    RegistryError
        The image does not fit the model.
    """
    errors = sys.modules[
        type(version.served).__module__
    ].ImageError  # the class in the version's package, not the one in segline
    with _registry_errors(errors):
        return OutOfCore(version.served.large(size, read, folder, views, show), errors)


@contextmanager
def _registry_errors(errors: type[Exception]) -> Iterator[None]:
    """Turn an ImageError raised by the version's own code into a RegistryError."""
    try:
        yield
    except errors as error:
        raise RegistryError(str(error)) from error
