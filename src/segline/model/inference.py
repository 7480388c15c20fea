"""Predict labels and objects of an image; used by evaluation, `segline predict` and the server."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from . import tiling
from .images import ImageError, Raw
from .network import Network
from .normalisation import Statistics, blocks, own_statistics
from .objects import Objects, Outputs, Separation, class_labels, find, thin
from .saved import Description, Inference, ModelError, weights
from .tiling import VIEWS, Part, Source, Window, view_size

__all__ = [
    "Description",
    "Inference",
    "ModelError",
    "Outputs",
    "Prediction",
    "Predictor",
    "Probabilities",
    "interpret",
    "load",
    "load_with",
    "to_labels",
]

MEMORY_BUDGET = 3 * 2**28  # largest size of activations in one forward pass, bytes; larger images need windows
ACTIVATIONS = 9  # float32 maps of the densest level that are in memory at a time, measured for a U-Net

Probabilities = npt.NDArray[np.float32]  # (K, H, W)


class Prediction(NamedTuple):
    """Predicted labels and objects of an image."""

    labels: npt.NDArray[np.uint8]
    """Class ids (H, W)."""
    objects: Objects
    """Object ids (H, W), numbered from 1; 0 is background."""


class Predictor:
    """A trained network with its inference settings."""

    def __init__(self, network: Network, description: Description, inference: Inference, device: str = "cpu") -> None:
        self.network = network.eval().to(device)
        self.description = description
        self.inference = inference
        self.device = device

    def probabilities(self, raw: Raw, statistics: Statistics | None = None) -> Probabilities:
        """Predict class probabilities (K, H, W) of `raw` (H, W, C); arguments and errors are those of `outputs`."""
        return self.outputs(raw, statistics).probabilities

    def outputs(self, raw: Raw, statistics: Statistics | None = None) -> Outputs:
        """Predict class probabilities and object map of `raw` (H, W, C), averaged over rotated and mirrored views.

        If `raw` is a part of an image, `statistics` are those that normalise the image.

        Raises
        ------
        ImageError
            The type or the number of channels differs from the training images.
        """
        source = Source.of(raw)
        statistics = statistics or self.statistics(source)
        mean = np.zeros((self.network.out_channels, *raw.shape[:2]), np.float32)
        for view in VIEWS[self.inference.views]:
            for rows, columns, values in chain.from_iterable(self.windows(source, statistics, view)):
                mean[:, rows, columns] += values / np.float32(self.inference.views)
        classes = self.network.classes
        return Outputs(mean[:classes], mean[classes] if self.network.object_map else None)

    def predict(self, raw: Raw) -> Prediction:
        """Predict labels and objects of `raw` (H, W, C)."""
        return interpret(self.outputs(raw), self.inference)

    def labels(self, raw: Raw) -> npt.NDArray[np.uint8]:
        """Predict class ids (H, W) of `raw` (H, W, C)."""
        return self.predict(raw).labels

    def with_views(self, views: int) -> Self:
        """Return a predictor with the same network; the new predictor averages over `views` views.

        Raises
        ------
        ImageError
            `views` is not 1, 4 or 8.
        """
        if views not in VIEWS:
            raise ImageError(f"the number of views is {views}; set it to one of {', '.join(map(str, VIEWS))}")
        return type(self)(self.network, self.description, replace(self.inference, views=views), self.device)

    @property
    def needs_whole(self) -> str:
        """Reason why images cannot be predicted window by window; empty if they can."""
        if self.network.whole_image_norm:
            return "the model normalises over the whole image"
        if self.inference.segment_threshold is not None:
            return "the model has a segment threshold, which can be applied only to the whole image"
        return ""

    def windows(self, source: Source, statistics: Statistics, view: int, first: int = 0) -> Iterator[Iterator[Part]]:
        """Predict a view of an image in overlapping windows; yield one row of windows at a time, from row `first` on.

        `statistics` normalise the image.

        Each row is an iterator of parts. Each pixel is in exactly one part. All parts together equal one forward pass
        over the whole view with mirrored borders.
        """
        rows, columns = self.plan(source.height, source.width, view)
        for row in rows[first:]:
            yield self._row(source, statistics, view, row, columns)

    def statistics(self, source: Source) -> Statistics:
        """Return the statistics that normalise an image: those of the training images, or those of the image itself.

        In the second case, the whole image is read once, block by block.

        Raises
        ------
        ImageError
            The image is read, and it does not suit the model or has values that are not finite.
        """
        trained = self.description.statistics
        if self.description.input_norm == "dataset":
            return trained
        return own_statistics((source.read(*block) for block in blocks(source.height, source.width)), trained)

    def plan(self, height: int, width: int, view: int) -> tuple[list[tiling.Span], list[tiling.Span]]:
        """Plan the rows and columns of windows that cover a view of an image of `height` x `width` px."""
        tile, geometry = self._tile(height, width), self.network.geometry
        rows, columns = (  # a tile size from the settings is used unchanged
            tiling.plan(length, tile and (self.inference.tile or tiling.fitted(length, tile, geometry)), geometry)
            for length in view_size(view, height, width)
        )
        return rows, columns

    def _row(
        self, source: Source, statistics: Statistics, view: int, row: tiling.Span, columns: list[tiling.Span]
    ) -> Iterator[Part]:
        """Predict one row of windows, in batches."""
        area = (row.stop - row.start) * (columns[0].stop - columns[0].start)
        remaining = (Window(view, row, column) for column in columns)
        while batch := list(islice(remaining, max(1, self._pixels() // area))):
            inputs = np.stack([window.inputs(source, statistics) for window in batch])
            for window, output in zip(batch, self._forward(torch.from_numpy(inputs)), strict=True):
                yield window.decided(output, source)

    def memory(self, height: int, width: int) -> int:
        """Estimate how many bytes `predict` needs for an image of `height` x `width` px."""
        activations = self._bytes_per_pixel * height * width
        labels = (12 * self.network.out_channels + 60) * height * width
        return labels + (activations if self.network.whole_image_norm else min(activations, MEMORY_BUDGET))

    @property
    def _bytes_per_pixel(self) -> int:
        """Size of the activations of a forward pass for each input pixel."""
        return max(1, int(4 * ACTIVATIONS * self.network.channels_per_pixel))

    def _forward(self, inputs: torch.Tensor) -> npt.NDArray[np.float32]:
        """Predict a batch of windows: probabilities (b, K, h, w), and the object map, if any, as another channel."""
        classes = self.network.classes
        with torch.inference_mode():
            logits = self.network(inputs.to(self.device)).float()
            probabilities = logits[:, :classes].softmax(dim=1)
            if self.network.object_map:
                probabilities = torch.cat([probabilities, logits[:, classes:].sigmoid()], dim=1)
            values: npt.NDArray[np.float32] = probabilities.cpu().numpy()
        return values

    def _pixels(self) -> int:
        """Return the largest number of input pixels that one forward pass may process."""
        return MEMORY_BUDGET // self._bytes_per_pixel

    def _tile(self, height: int, width: int) -> int | None:
        """Return the side of a window, px; None if one window covers the image.

        With instance norm or group norm, one window always covers the image.
        """
        if self.network.whole_image_norm:
            return None
        if self.inference.tile:
            return self.inference.tile
        if height * width <= self._pixels():
            return None
        geometry = self.network.geometry
        return max(geometry.at_least(int(self._pixels() ** 0.5) - geometry.stride + 1), tiling.smallest(geometry))


def load(folder: Path, device: str = "cpu") -> Predictor:
    """Load the predictor from weights.safetensors, model.json and inference.json in `folder`.

    Raises
    ------
    ModelError
        A file is missing or damaged, or the files do not fit each other.
    """
    return load_with(folder, Inference.read(folder / "inference.json"), device)


def load_with(folder: Path, inference: Inference, device: str = "cpu") -> Predictor:
    """Load a predictor from weights.safetensors and model.json in `folder`, with the settings `inference`."""
    description = Description.read(folder / "model.json")
    tensors = weights(folder / "weights.safetensors", description)
    network = description.build()
    network.load_state_dict(tensors)
    # Use channels_last, the faster memory format. The type annotations of torch lack this valid argument.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Predictor(network, description, inference, device)


def to_labels(probabilities: Probabilities, inference: Inference) -> npt.NDArray[np.uint8]:
    """Turn probabilities into class ids (H, W), using the thresholds of `inference`.

    A gap in a faint border would join two cells. So if there is a segment threshold, each connected component above
    this threshold is a cell, and a line one pixel wide between two cells becomes border as well. A segment neck cuts
    cells at a gap that is above the threshold, but narrow.
    """
    labels: npt.NDArray[np.uint8] = probabilities.argmax(axis=0).astype(np.uint8)
    if inference.threshold is not None:
        foreground = (probabilities[1:].argmax(axis=0) + 1).astype(np.uint8)
        labels = np.where(1 - probabilities[0] > inference.threshold, foreground, np.uint8(0))
    if inference.segment_threshold is not None:
        labels[thin(1 - probabilities[0], inference.segment_threshold, inference.segment_neck) == 0] = 0
    return labels


def interpret(outputs: Outputs, inference: Inference) -> Prediction:
    """Turn the output of the network into labels and objects, using the settings `inference`.

    If `inference.separation` is set, each object gets one class, and all pixels outside objects become background.
    Otherwise the objects are the connected components of each class.
    """
    labels = to_labels(outputs.probabilities, inference)
    objects = find(outputs, labels, inference.separation or Separation())
    if inference.separation is None:
        return Prediction(labels, objects)
    return Prediction(class_labels(objects, labels), objects)
