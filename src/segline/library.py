"""The Python interface, for notebooks and scripts: load a model, predict images with it, read a dataset folder."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segline.commands import predict
from segline.commands.prediction_records import PredictOptions
from segline.data.dataset import Dataset
from segline.data.sources import open_image
from segline.data.writers import AnswerByRows
from segline.track import answers, rows
from segline.track.answers import Loaded
from segline.track.faults import StoreError
from segline.track.history import RegistryError
from segline.track.packaging import encode

__all__ = ["Dataset", "Segmentation", "Segmenter", "load", "read_dataset"]

Image = npt.NDArray[Any] | bytes | bytearray | memoryview | str | os.PathLike[str]
DTYPES = ("uint8", "uint16", "float32")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Segmentation of one image of H x W pixels."""

    labels: npt.NDArray[np.uint8]
    """Class ids (H, W)."""
    objects: npt.NDArray[np.int32] | None
    """Object ids (H, W), 0 for background; None if the model predicts no objects."""
    probabilities: npt.NDArray[np.float32] | None
    """Class probabilities (K, H, W); None if they were not requested."""


class Segmenter:
    """A registered model. Predictions use the code that was registered with the model, not the installed segline."""

    def __init__(self, version: Loaded, address: str) -> None:
        """Wrap a loaded version. Scripts call `load` instead."""
        self._version, self.address = version, address
        description = version.description
        self.classes: dict[int, str] = {int(number): name for number, name in description["classes"].items()}
        """Class names by class id."""
        self.channels: int = description["statistics"]["channels"]
        """Number of channels of the training images."""
        self.md5 = version.md5
        """MD5 of weights, settings and code together; it identifies the version."""

    def __repr__(self) -> str:
        """Show address, classes and md5."""
        return f"<segline.Segmenter {self.address}: {', '.join(self.classes.values())}; md5 {self.md5[:8]}>"

    def predict(self, image: Image, *, views: int = 0, probabilities: bool = False) -> Segmentation:
        """Predict one image, and return the result as arrays.

        An image of more than 16.8 million pixels is predicted window by window. The intermediate results are in a
        temporary folder, so only the final result must fit in memory. `predict_large` has no such limit. An image file
        that is given as bytes is always predicted in memory.

        Parameters
        ----------
        image : an array (H, W) or (H, W, C) of type uint8, uint16 or float32, with colours in the order red, green,
            blue; or the path of an image file or OME-Zarr image; or the bytes of an image file.
        views : number of mirrored and turned views to average, 1, 4 or 8; 0 for the number in the model's settings.
        probabilities : also return the probabilities of all classes.

        Raises
        ------
        ValueError
            The image cannot be read or does not fit the model, for example because it has another number of channels.
        """
        if isinstance(image, str | os.PathLike):
            with open_image(Path(image)) as source, _errors_about(f"{Path(image)}"):
                return self._predict((source.height, source.width), source.read, source.encoded, views, probabilities)
        with _errors_about("the image"):
            if isinstance(image, bytes | bytearray | memoryview):
                return self._predict_encoded(bytes(image), views, probabilities)
            pixels = _pixels(image)
            size = (pixels.shape[0], pixels.shape[1])
            return self._predict(size, lambda y, x: pixels[y, x], lambda: encode(pixels), views, probabilities)

    def _predict(
        self, size: tuple[int, int], read: rows.Read, encoded: Callable[[], bytes], views: int, probabilities: bool
    ) -> Segmentation:
        """Predict an image of `size` (height, width): out-of-core if the image is large, otherwise in memory."""
        if not rows.by_windows(self._version, *size):
            return self._predict_encoded(encoded(), views, probabilities)
        with tempfile.TemporaryDirectory(prefix="segline-") as folder:
            answer = rows.out_of_core(
                self._version, size, read, Path(folder), views=views, show=lambda _step, _done, _total: None
            )
            return _segmentation(answer, slice(0, size[0]), probabilities)

    def _predict_encoded(self, image: bytes, views: int, probabilities: bool) -> Segmentation:
        answer = rows.InMemory(self._version(image, views=views, probabilities=probabilities))
        return _segmentation(answer, slice(None), probabilities)

    def predict_large(
        self,
        image: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        *,
        instances: bool = True,
        probabilities: bool = False,
        overlays: bool = False,
        views: int = 0,
    ) -> dict[str, Path]:
        """Predict an image file or OME-Zarr image of any size, and write the results to `folder`.

        The files are those of `segline predict`, and a call that was interrupted is resumed by the next call.

        Parameters
        ----------
        instances, probabilities, overlays : also write object ids, class probabilities, or pictures.
        views : as in `predict`.

        Returns
        -------
        The path of each result: the keys are "labels" and the requested kinds.

        Raises
        ------
        ValueError
            As in `predict`; or a result would replace a file that segline did not write.
        """
        options = PredictOptions(instances, probabilities, overlays, views)
        path, out = Path(image), Path(folder)
        predict.check_targets([path], [str(path)], out, options)
        written = predict.predict_images(self._version, [path], self.address, out, "off", options=options)
        return {kind: out / name for kind, name in written[path].items()}


def load(model: str | os.PathLike[str], *, trust: bool = False) -> Segmenter:
    """Load a model from the registry of the current project, or from a model folder.

    A model folder is what MLflow stores for a version: a folder with the file MLmodel. It can be copied to a machine
    without a project or an MLflow server. segline loads such a folder as it is: load only folders from people whom you
    trust, because a model contains code.

    Parameters
    ----------
    model : ``models:/cells@champion`` or ``models:/cells/3`` for a registered version, or the path of a model folder.
    trust : use a registered version that registry.jsonl does not list, on your own responsibility.

    Raises
    ------
    ValueError
        There is no such model, it may not be trusted, or its folder is incomplete.
    """
    address = os.fspath(model)
    try:
        return Segmenter(answers.load(address, trust=trust), address)
    except StoreError as error:
        raise RegistryError(str(error)) from error


def read_dataset(folder: str | os.PathLike[str]) -> Dataset:
    """Open a dataset folder in the format that `segline import` writes. Images are read only when they are needed.

    Raises
    ------
    ValueError
        dataset.yaml is missing or wrong, or the images and label images are missing.

    Examples
    --------
    >>> dataset = read_dataset("data/raw/cells")  # doctest: +SKIP
    >>> for stem in dataset.stems:  # doctest: +SKIP
    ...     image = dataset.image(stem)  # (H, W, C)
    ...     classes, instances = dataset.truth(stem)  # (H, W) each
    """
    return Dataset.open(Path(folder))


@contextmanager
def _errors_about(image: str) -> Iterator[None]:
    """Add the name of the image to error messages that do not contain the name."""
    try:
        yield
    except RegistryError as error:
        reason = str(error).removeprefix("image 0: ")
        raise RegistryError(reason if image in reason else f"{image}: {reason}") from error


def _pixels(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an image as an array (H, W, C); raise RegistryError if its shape or type is not valid for an image."""
    array = np.asarray(image)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise RegistryError(f"the image has shape {array.shape}; give an array (H, W) or (H, W, C)")
    if array.dtype.name not in DTYPES:
        raise RegistryError(
            f"the image has type {array.dtype.name}; convert it to the type of the training images "
            f"(one of {', '.join(DTYPES)})"
        )
    return array if array.ndim == 3 else array[..., None]


def _segmentation(answer: AnswerByRows, whole: slice, probabilities: bool) -> Segmentation:
    return Segmentation(
        answer.labels(whole),
        answer.instances(whole) if answer.has_instances else None,
        answer.probabilities(whole) if probabilities else None,
    )
