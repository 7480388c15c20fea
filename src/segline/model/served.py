"""The model as MLflow serves it: encoded image bytes in, label images and, where asked for, instance images out."""

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from .images import ImageError, Raw, decode, encode_png
from .objects import encode, encode_probabilities

if TYPE_CHECKING:
    from .outofcore import Large

COLUMNS = ("labels", "instances", "probabilities")


class Served(PythonModel):
    """A pyfunc model: one encoded image, such as PNG, a row in, one uint8 PNG of class ids a row out.

    With the parameters ``instances`` and ``probabilities`` images of instance ids and of class probabilities come
    beside it, in columns of these names; ``views`` is the number of views to average, 0 for what inference.json says.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the network of artifact ``model``, onto MLFLOW_DEFAULT_PREDICTION_DEVICE or the CPU."""
        # Late: torch takes a second, and registering needs none of it.
        from .inference import load

        device = os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE") or "cpu"
        self.predictor = load(Path(context.artifacts["model"]), device)

    # The one type that MLflow does not turn into a signature of its own; what it lets through is more than that.
    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The label images of `model_input`, in column ``labels``, and where asked for column ``instances``.

        Parameters
        ----------
        model_input
            A DataFrame whose first column holds the images, a list of them, or one image; each as bytes, or as base64
            text.
        params
            ``instances``: true for the column ``instances`` too: PNG, 16 bit, or TIFF, 32 bit, of more than 65,535 ids.
            ``probabilities``: true for the column ``probabilities`` too: TIFF, float32, a plane for each class.
            ``views``: 1, 4 or 8 views are averaged; 0: as many as the model's settings say.

        Raises
        ------
        MlflowException
            An entry is no readable image or does not suit the model; its number and the reason are named.
        """
        asked = params or {}
        columns = [name for name in COLUMNS if name == "labels" or asked.get(name)]
        answers = [self._answer(number, entry, asked) for number, entry in enumerate(entries(model_input))]
        return pd.DataFrame(answers, columns=list(COLUMNS), dtype=object)[columns]

    def _answer(self, number: int, entry: Any, asked: Mapping[str, Any]) -> tuple[bytes, bytes, bytes | None]:
        try:
            raw = decode(to_bytes(entry))
            predictor = self.predictor.with_views(int(asked["views"])) if asked.get("views") else self.predictor
            if not asked.get("probabilities"):
                prediction = predictor.predict(raw)
                return encode_png(prediction.labels), encode(prediction.objects), None
            from .inference import interpret

            probabilities = predictor.probabilities(raw)
        except ImageError as error:
            raise MlflowException.invalid_parameter_value(f"image {number}: {error}") from error
        prediction = interpret(probabilities, predictor.inference)
        return encode_png(prediction.labels), encode(prediction.objects), encode_probabilities(probabilities)

    def large(
        self,
        size: tuple[int, int],
        read: Callable[[slice, slice], Raw],
        folder: Path,
        views: int,
        show: Callable[[str, int, int], None],
    ) -> "Large":
        """What is seen in an image too large for memory.

        Parameters
        ----------
        size : height and width, px.
        read : gives pixels (h, w, C) of some rows and columns.
        folder : for files as large as the image; those of an earlier call that ended are gone on with.
        views : 1, 4 or 8 views are averaged; 0: as many as the model's settings say.
        show : is told what is being done, how many steps of it are, and how many there will be.

        Raises
        ------
        ImageError
            The image does not suit the model, or the model's settings need all of it at once.
        """
        from .outofcore import Large
        from .tiling import Source

        predictor = self.predictor.with_views(views) if views else self.predictor
        return Large(predictor, Source(*size, read), folder, show)

    def needs_whole(self, height: int, width: int) -> tuple[str, int]:
        """Why images cannot go window by window, empty where they can, and about the bytes to predict one in memory."""
        return self.predictor.needs_whole, self.predictor.memory(height, width)


def entries(model_input: Any) -> list[Any]:
    """The images in `model_input`, one by one, still as they came."""
    if isinstance(model_input, pd.DataFrame):
        return list(model_input.iloc[:, 0])
    if isinstance(model_input, bytes | bytearray | str):
        return [model_input]
    return list(model_input)


def to_bytes(entry: Any) -> bytes:
    """The bytes of one image, given as bytes or as base64 text.

    Raises
    ------
    ImageError
        `entry` is neither.
    """
    if not isinstance(entry, bytes | bytearray | str):
        raise ImageError(f"{type(entry).__name__}, not bytes; send the bytes of an image file, base64 in JSON")
    try:
        # Some of MLflow's ways in make bytes of the text; no image file consists of letters and digits alone.
        return base64.b64decode("".join(entry.split()) if isinstance(entry, str) else entry, validate=True)
    except (binascii.Error, ValueError):
        if isinstance(entry, str):
            raise ImageError("text that is no base64; send the bytes of an image file, base64 in JSON") from None
        return bytes(entry)
