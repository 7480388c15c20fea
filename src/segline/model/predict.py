"""An image of any size to labels and objects, the same way in evaluation, on the command line and when served."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from . import tiles
from .images import Raw, Statistics, to_network
from .instances import Objects, Separation, class_labels, find
from .segments import thin
from .unet import UNet

MEMORY_BUDGET = 2 * 2**30  # bytes of activations in one pass; larger images are predicted in tiles
ACTIVATIONS = 9  # float32 maps of `width` channels alive at once, measured at the last skip connection

Probabilities = npt.NDArray[np.float32]  # (K, H, W)


@dataclass(frozen=True)
class Description:
    """All that is needed, besides the weights, to build the network and feed it: model.json."""

    network: dict[str, Any]
    classes: dict[int, str]
    labels: str
    statistics: Statistics

    @classmethod
    def read(cls, file: Path) -> Self:
        """The description in `file`."""
        content = json.loads(file.read_text())
        classes = {int(k): name for k, name in content["classes"].items()}
        return cls(content["network"], classes, content["labels"], Statistics.of(content["statistics"]))

    def write(self, file: Path) -> None:
        """Write it to `file`."""
        file.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def build(self) -> UNet:
        """A new network, with random weights."""
        return UNet(self.statistics.channels, len(self.classes), **self.network)


VIEWS = {1: (0,), 4: (0, 2, 4, 6), 8: tuple(range(8))}
"""By their number, the views that are averaged, as `make_view` counts them; 4: those that keep rows as rows."""


@dataclass(frozen=True)
class Inference:
    """How probabilities become labels and objects: inference.json.

    ``threshold``: foreground above this probability, None for the likeliest class. ``segment_threshold``: borders
    are closed between cells that are apart above this probability, None leaves what is joined. ``separation``: how
    objects that touch are told apart, None where objects are not what the model was taught. ``views``: 1, a
    number of `VIEWS` to average. ``tile``: side of the network's input, px, 0 for the largest that
    `MEMORY_BUDGET` allows.
    """

    threshold: float | None = None
    segment_threshold: float | None = None
    separation: Separation | None = None
    views: int = 1
    tile: int = 0

    @classmethod
    def read(cls, file: Path) -> Self:
        """The settings in `file`."""
        content = json.loads(file.read_text())
        separation = content.pop("separation", None)
        return cls(**content, separation=separation and Separation(**separation))

    def write(self, file: Path) -> None:
        """Write them to `file`."""
        file.write_text(json.dumps(asdict(self), indent=2) + "\n")


class Prediction(NamedTuple):
    """What is seen in an image."""

    labels: npt.NDArray[np.uint8]
    """Class ids (H, W)."""
    objects: Objects
    """Objects (H, W), numbered from 1; 0 is background."""


class Predictor:
    """A trained network and the way it is used."""

    def __init__(self, network: UNet, description: Description, inference: Inference, device: str = "cpu") -> None:
        self.network = network.eval().to(device)
        self.description = description
        self.inference = inference
        self.device = device

    def probabilities(self, raw: Raw) -> Probabilities:
        """Class probabilities (K, H, W) of `raw` (H, W, C), averaged over the views that the settings ask for.

        Raises
        ------
        ImageError
            Type or channels are not those of the training images.
        """
        image = to_network(raw, self.description.statistics)
        mean = np.zeros((len(self.description.classes), *image.shape[1:]), np.float32)
        for view in VIEWS[self.inference.views]:
            mean += undo_view(self._one_view(make_view(image, view)), view) / np.float32(self.inference.views)
        return mean

    def predict(self, raw: Raw) -> Prediction:
        """Labels and objects of `raw` (H, W, C)."""
        return interpret(self.probabilities(raw), self.inference)

    def labels(self, raw: Raw) -> npt.NDArray[np.uint8]:
        """Class ids (H, W) of `raw` (H, W, C)."""
        return self.predict(raw).labels

    def _one_view(self, image: npt.NDArray[np.float32]) -> Probabilities:
        """Overlap-tile prediction of `image` (C, H, W); equal to one pass over the whole mirrored image."""
        _, height, width = image.shape
        output = np.empty((len(self.description.classes), height, width), np.float32)
        windows = tiles.windows(height, width, self._tile(height, width), self.network.geometry)
        area = (windows[0][0].stop - windows[0][0].start) * (windows[0][1].stop - windows[0][1].start)
        batch_size = max(1, self._pixels() // area)
        remaining: Iterator[tuple[tiles.Span, tiles.Span]] = iter(windows)
        while batch := list(islice(remaining, batch_size)):
            inputs = torch.from_numpy(np.stack([tiles.cut(image, *window) for window in batch]))
            for window, tile in zip(batch, self._forward(inputs), strict=True):
                tiles.place(output, tile, *window)
        return output

    def _forward(self, inputs: torch.Tensor) -> Probabilities:
        """Probabilities (b, K, h, w) of a batch of windows."""
        with torch.inference_mode():
            logits = self.network(inputs.to(self.device))
            probabilities: Probabilities = logits.float().softmax(dim=1).cpu().numpy()
        return probabilities

    def _pixels(self) -> int:
        """Pixels that one pass may hold."""
        seen_as_one = self.network.geometry.reduction**2
        return seen_as_one * MEMORY_BUDGET // (4 * ACTIVATIONS * int(self.description.network["width"]))

    def _tile(self, height: int, width: int) -> int | None:
        """Side of a window, None for the whole image, which norms that see the whole image always take."""
        if self.network.whole_image_norm:
            return None
        if self.inference.tile:
            return self.inference.tile
        if height * width <= self._pixels():
            return None
        geometry = self.network.geometry
        return max(geometry.at_least(int(self._pixels() ** 0.5) - geometry.stride + 1), tiles.smallest(geometry))


def load(folder: Path, device: str = "cpu") -> Predictor:
    """The predictor in `folder`: weights.safetensors, model.json and inference.json."""
    return load_with(folder, Inference.read(folder / "inference.json"), device)


def load_with(folder: Path, inference: Inference, device: str = "cpu") -> Predictor:
    """The predictor of the weights.safetensors and model.json in `folder`, used as `inference` says."""
    description = Description.read(folder / "model.json")
    network = description.build()
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    # Faster; missing in torch's annotations.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Predictor(network, description, inference, device)


def to_labels(probabilities: Probabilities, inference: Inference) -> npt.NDArray[np.uint8]:
    """Class ids (H, W) by the thresholds of `inference`.

    A border that is faint in one place joins two cells. With a segment threshold, the cells are those parts that are
    still apart above it, and the thinnest line between them is border as well.
    """
    labels: npt.NDArray[np.uint8] = probabilities.argmax(axis=0).astype(np.uint8)
    if inference.threshold is not None:
        foreground = (probabilities[1:].argmax(axis=0) + 1).astype(np.uint8)
        labels = np.where(1 - probabilities[0] > inference.threshold, foreground, np.uint8(0))
    if inference.segment_threshold is not None:
        labels[thin(1 - probabilities[0], inference.segment_threshold) == 0] = 0
    return labels


def interpret(probabilities: Probabilities, inference: Inference) -> Prediction:
    """Labels and objects by the settings of `inference`.

    A model of objects gives each of them one class, and nothing but objects is foreground. For any other model the
    objects are the connected parts of each class.
    """
    labels = to_labels(probabilities, inference)
    objects = find(probabilities, labels, inference.separation or Separation())
    if inference.separation is None:
        return Prediction(labels, objects)
    return Prediction(class_labels(objects, labels), objects)


def make_view(image: npt.NDArray[np.float32], view: int) -> npt.NDArray[np.float32]:
    """One of the eight rotations and mirrorings of `image` (C, H, W); 0 is the image itself."""
    turned = np.rot90(image, view % 4, axes=(1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if view >= 4 else turned)


def undo_view(output: npt.NDArray[np.float32], view: int) -> npt.NDArray[np.float32]:
    """The inverse of `make_view`."""
    return np.rot90(output[:, :, ::-1] if view >= 4 else output, -(view % 4), axes=(1, 2))
