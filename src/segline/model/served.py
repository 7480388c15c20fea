"""MLflow interface of a registered model; it takes encoded images and returns encoded predictions."""

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
    from .outofcore import OutOfCorePrediction

COLUMNS = ("labels", "instances", "probabilities")


class Served(PythonModel):
    """A pyfunc model; an input row is an encoded image, such as PNG, and an output row is a uint8 PNG of class ids.

    The parameter ``instances`` adds a column of the same name with images of object ids. The parameter
    ``probabilities`` adds a column of the same name with images of class probabilities. The parameter ``views`` is the
    number of views to average; 0 means the number in inference.json.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the artifact ``model`` to the device that MLFLOW_DEFAULT_PREDICTION_DEVICE names, by default the CPU."""
        # This import is late because torch takes a second to load, and registration does not need torch.
        from .inference import load

        device = os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE") or "cpu"
        self.predictor = load(Path(context.artifacts["model"]), device)

    # The type hint is pd.DataFrame, because MLflow would derive a signature from most other hints.
    # Callers may pass values of other types, too.
    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Predict all images in `model_input`; return the column ``labels`` and the columns that `params` requests.

        Parameters
        ----------
        model_input
            A DataFrame with images in the first column, or a list of images, or one image. Each image is bytes or
            base64 text.
        params
            ``instances``: true adds the column ``instances``, a 16-bit PNG, or a 32-bit TIFF for more than 65,535 ids.
            ``probabilities``: true adds the column ``probabilities``, a float32 TIFF with one plane per class.
            ``views``: number of views to average, 1, 4 or 8; 0 means the number in the model's settings.

        Raises
        ------
        MlflowException
            An entry is not a readable image, or does not fit the model. The message gives the number of the entry and
            the reason.
        """
        options = params or {}
        columns = [name for name in COLUMNS if name == "labels" or options.get(name)]
        answers = [self._answer(number, entry, options) for number, entry in enumerate(entries(model_input))]
        return pd.DataFrame(answers, columns=list(COLUMNS), dtype=object)[columns]

    def _answer(self, number: int, entry: Any, options: Mapping[str, Any]) -> tuple[bytes, bytes, bytes | None]:
        from .inference import interpret

        try:
            raw = decode(to_bytes(entry))
            predictor = self.predictor.with_views(int(options["views"])) if options.get("views") else self.predictor
            outputs = predictor.outputs(raw)
            labels, objects = interpret(outputs, predictor.inference)
        except ImageError as error:
            raise MlflowException.invalid_parameter_value(f"image {number}: {error}") from error
        encoded = encode_probabilities(outputs.probabilities) if options.get("probabilities") else None
        return encode_png(labels), encode(objects), encoded

    def large(
        self,
        size: tuple[int, int],
        read: Callable[[slice, slice], Raw],
        folder: Path,
        views: int,
        show: Callable[[str, int, int], None],
    ) -> "OutOfCorePrediction":
        """Predict an out-of-core image, and return an object that gives the results of some rows at a time.

        Parameters
        ----------
        size : height and width of the image, px.
        read : function that returns the pixels (h, w, C) of given rows and columns.
        folder : folder for large files; a call with the files of an interrupted call continues that call.
        views : number of views to average, 1, 4 or 8; 0 means the number in the model's settings.
        show : function that receives the name of a step, the number of finished parts and the number of all parts.

        Raises
        ------
        ImageError
            The image does not fit the model, or the settings of the model need the whole image at once.
        """
        from .outofcore import OutOfCorePrediction
        from .tiling import Source

        predictor = self.predictor.with_views(views) if views else self.predictor
        return OutOfCorePrediction(predictor, Source(*size, read), folder, show)

    def needs_whole(self, height: int, width: int) -> tuple[str, int]:
        """Return whether an image must be predicted as a whole, and how much memory a prediction needs.

        Returns
        -------
        Two values: the reason why the image cannot be predicted in windows ("" if it can), and the memory in bytes.
        """
        return self.predictor.needs_whole, self.predictor.memory(height, width)


def entries(model_input: Any) -> list[Any]:
    """List the encoded images in `model_input`."""
    if isinstance(model_input, pd.DataFrame):
        return list(model_input.iloc[:, 0])
    if isinstance(model_input, bytes | bytearray | str):
        return [model_input]
    return list(model_input)


def to_bytes(entry: Any) -> bytes:
    """Return the bytes of one image that was sent as bytes or as base64 text.

    Raises
    ------
    ImageError
        `entry` is neither bytes nor base64 text.
    """
    if not isinstance(entry, bytes | bytearray | str):
        raise ImageError(
            f"the entry has type {type(entry).__name__}; send the bytes of an image file "
            "(in a JSON request, encode them as base64)"
        )
    try:
        # MLflow passes some base64 text as bytes, so try to decode bytes as base64, too.
        # An image file has bytes that base64 does not use, so decoding fails, and the file is returned unchanged.
        return base64.b64decode("".join(entry.split()) if isinstance(entry, str) else entry, validate=True)
    except (binascii.Error, ValueError):
        if isinstance(entry, str):
            raise ImageError(
                "the text is not base64; send the bytes of an image file (in a JSON request, encode them as base64)"
            ) from None
        return bytes(entry)
