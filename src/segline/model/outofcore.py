"""Predict an image larger than memory, using files. The results are bit-identical to `Predictor.predict`."""

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from . import bandwise
from .headers import ImageError
from .inference import Prediction, Predictor, Probabilities
from .maps import Maps, Show, averaged
from .objects import Separation
from .tiling import Source


class OutOfCorePrediction:
    """Predicted labels, objects and probabilities of an out-of-core image, computed for some rows at a time."""

    def __init__(self, predictor: Predictor, source: Source, folder: Path, show: Show) -> None:
        """Predict the image `source`; store the results in files in `folder`; resume an interrupted call.

        The files need 4 K + 4 bytes per pixel for K output channels (classes and object map), and 4 K more if several
        views are averaged.

        Raises
        ------
        ImageError
            The settings of the model need the whole image at once. Or the type or the channels do not fit the model.
        """
        if reason := predictor.needs_whole:
            raise ImageError(
                f"an image of {source.width} x {source.height} px is too large for memory, and cannot be predicted "
                f"window by window, because {reason}; cut the image into parts"
            )
        self._inference, self._show = predictor.inference, show
        self._maps = Maps(averaged(predictor, source, folder, show), predictor.network.classes, predictor.inference)

    def probabilities(self, rows: slice) -> Probabilities:
        """Return the class probabilities (K, h, W) of some rows."""
        self._maps.release()
        return self._maps.probabilities(rows)

    def labels(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Return the class ids (h, W) of some rows; raise the same errors as `predict`."""
        self._maps.release()
        if self._inference.separation is None:
            return self._maps.labels(rows)
        table = self._table  # this must come first, because computing the table writes the ids
        return table.classes[self._maps.ids(rows)]

    def objects(self, rows: slice) -> npt.NDArray[np.int32]:
        """Return the object ids (h, W) of some rows; raise the same errors as `predict`."""
        self._maps.release()
        table = self._table
        return table.objects[self._maps.ids(rows)]

    def predict(self, rows: slice) -> Prediction:
        """Return the labels and objects of some rows.

        Raises
        ------
        ImageError
            The image has more components than int32 can count.
        """
        return Prediction(self.labels(rows), self.objects(rows))

    @property
    def count(self) -> int:
        """Number of objects; raises the same errors as `predict`."""
        return self._table.total

    @cached_property
    def _table(self) -> bandwise.Table:
        return bandwise.find(self._maps, self._inference.separation or Separation(), self._show)
