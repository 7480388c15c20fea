"""The model as MLflow serves it: encoded image bytes in, label images and, where asked for, instance images out."""

import base64
import binascii
import os
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from .images import ImageError, decode, encode_png
from .instances import encode


class Served(PythonModel):
    """A pyfunc model: one encoded image (PNG, JPEG, TIFF) a row in, one uint8 PNG of class ids a row out.

    With the parameter ``instances`` an image of instance ids comes beside it, in a column of that name.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the network of artifact ``model``, onto MLFLOW_DEFAULT_PREDICTION_DEVICE or the CPU."""
        # Late: torch takes a second, and registering needs none of it.
        from .predict import load

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

        Raises
        ------
        MlflowException
            An entry is no readable image or does not suit the model; its number and the reason are named.
        """
        answers = [self._answer(number, entry) for number, entry in enumerate(entries(model_input))]
        columns = ["labels", "instances"] if (params or {}).get("instances") else ["labels"]
        return pd.DataFrame(answers, columns=["labels", "instances"], dtype=object)[columns]

    def _answer(self, number: int, entry: Any) -> tuple[bytes, bytes]:
        try:
            prediction = self.predictor.predict(decode(to_bytes(entry)))
        except ImageError as error:
            raise MlflowException.invalid_parameter_value(f"image {number}: {error}") from error
        return encode_png(prediction.labels), encode(prediction.objects)


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
