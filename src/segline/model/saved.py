"""Read and write the files of a model: model.json, inference.json and the weights; validate each file on reading."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, get_args

import torch
from safetensors.torch import load_file

from . import geometry, nets
from .network import Network
from .normalisation import Statistics
from .objects import Heights, Separation
from .tiling import VIEWS

LARGEST = 2**20  # largest size of model.json or inference.json, bytes
WIDEST = 2**17  # largest number of channels at the lowest level
REMEDY = "the file is damaged or belongs to another model; copy it again, or train the model again"


class ModelError(ValueError):
    """Raised when a model cannot be loaded; the message names the file, the problem and a remedy."""


@dataclass(frozen=True)
class Description:
    """Content of model.json: network settings, class names, type of labels, and statistics of the training images.

    ``input_norm`` : statistics that normalise an image: "dataset": of the training images; "image": of the image.
    """

    network: dict[str, Any]
    classes: dict[int, str]
    labels: str
    statistics: Statistics
    input_norm: str = "dataset"

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the description from `file`; raise ModelError if the file is damaged."""
        with _named(file):
            content = _read(file)
            network, classes = content["network"], content["classes"]
            _doubt(
                isinstance(network, dict) and all(NETWORK.get(k, _never)(v) for k, v in network.items()),
                "field network",
            )
            # Limit the number of channels at the lowest level (width << depth).
            # Without this limit, a network with a damaged width or depth could fill all memory.
            _doubt(network.get("width", 64) << network.get("depth", 4) <= WIDEST, "field network.width")
            _doubt(isinstance(classes, dict) and 2 <= len(classes) <= 255, "field classes")
            _doubt(list(classes) == [str(number) for number in range(len(classes))], "field classes")
            _doubt(all(isinstance(name, str) for name in classes.values()), "field classes")
            _doubt(content["labels"] in ("instances", "classes", "boundaries"), "field labels")
            statistics = Statistics.of(content["statistics"])
            input_norm = content.get("input_norm", "dataset")  # models of former versions have no such field
            _doubt(input_norm in ("dataset", "image"), "field input_norm")
            names = {int(k): name for k, name in classes.items()}
            description = cls(network, names, content["labels"], statistics, input_norm)
            with torch.device("meta"):  # on this device, tensors have shapes but take no memory
                description.build()  # raises an error for settings that contradict each other
            return description

    def encoded(self) -> bytes:
        """Encode the description as the content of model.json."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    def write(self, file: Path) -> None:
        """Write the description to `file`."""
        file.write_bytes(self.encoded())

    def build(self) -> Network:
        """Build the network with random weights."""
        return nets.build(self.statistics.channels, len(self.classes), **self.network)


@dataclass(frozen=True)
class Inference:
    """Content of inference.json: settings that turn probabilities into labels and objects.

    ``threshold`` : a pixel is foreground if its foreground probability is above this value; None: a pixel gets the
    likeliest class.
    ``segment_threshold`` : segments are connected areas above this foreground probability. A border without gaps
    separates them. None: gaps in borders stay.
    ``segment_neck`` : segments are also cut at necks, see `cut`; None: they are not.
    ``separation`` : how touching objects are separated; None if the model does not predict objects.
    ``views`` : number of views to average, a key of `VIEWS`.
    ``tile`` : side of a window, px; 0: windows are as large as `MEMORY_BUDGET` allows.
    """

    threshold: float | None = None
    segment_threshold: float | None = None
    separation: Separation | None = None
    views: int = 1
    tile: int = 0
    segment_neck: float | None = None

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the settings from `file`; raise ModelError if the file is damaged."""
        with _named(file):
            content = _read(file)
            separation = content.pop("separation", None)
            _doubt(all(INFERENCE.get(name, _never)(value) for name, value in content.items()), "a setting")
            if separation is None:
                return cls(**content)
            _doubt(isinstance(separation, dict), "field separation")
            _doubt(all(SEPARATION.get(name, _never)(value) for name, value in separation.items()), "field separation")
            return cls(**content, separation=Separation(**separation))

    def encoded(self) -> bytes:
        """Encode the settings as the content of inference.json."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    def write(self, file: Path) -> None:
        """Write the settings to `file`."""
        file.write_bytes(self.encoded())


def weights(file: Path, description: Description) -> dict[str, torch.Tensor]:
    """Read the weights (tensors by name) from `file`; check that their shapes fit the network in `description`.

    Raises
    ------
    ModelError
        The file is missing or damaged, or belongs to another network.
    """
    with _named(file):
        tensors = load_file(file)
    with torch.device("meta"):
        wanted = description.build().state_dict()
    for name in sorted({*wanted, *tensors}):
        shapes = [tuple(state[name].shape) if name in state else "none" for state in (tensors, wanted)]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"{file}: tensor {name[:80]} has shape {shapes[0]}, but model.json requires {shapes[1]}; {REMEDY}"
            )
        if tensors[name].is_floating_point() != wanted[name].is_floating_point():
            raise ModelError(
                f"{file}: tensor {name} has type {tensors[name].dtype}, not {wanted[name].dtype}; {REMEDY}"
            )
    return tensors


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Turn every exception inside the with block into a ModelError that names `file`."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # such as SafetensorError, or a TypeError because of a wrong JSON value
        message = " ".join(f"{error}".split())[:200] if not isinstance(error, KeyError) else f"field {error} is missing"
        raise ModelError(f"{file}: {message}; {REMEDY}") from error


def _read(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        data = stream.read(LARGEST + 1)
    _doubt(len(data) <= LARGEST, f"a size above {LARGEST} bytes")
    content = json.loads(data)
    _doubt(isinstance(content, dict), "its content")
    return dict(content)


def _doubt(sound: bool, name: str) -> None:
    if not sound:
        raise ValueError(f"{name} is not valid in a model file")


def _whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _real(value: object, low: float, high: float = math.inf) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]


def _never(value: object) -> bool:  # noqa: ARG001  a setting with an unknown name is never valid
    return False


Check = Mapping[str, Callable[[Any], bool]]
NETWORK: Check = {
    "name": lambda value: value in ("unet", *geometry.FINEST),
    "encoder": lambda value: value in geometry.ENCODERS,
    "width": lambda value: _whole(value, 1, WIDEST),
    "depth": lambda value: _whole(value, 1, 16),
    "padding": lambda value: value in ("valid", "same"),
    "norm": lambda value: value in ("none", "weight", "batch", "instance", "group"),
    "upsampling": lambda value: value in ("transposed", "bilinear"),
    "dropout": lambda value: _real(value, 0, 1),
    "reduction": lambda value: _whole(value, 1, 8),
    "object_map": lambda value: type(value) is bool,
}
INFERENCE: Check = {
    "threshold": lambda value: value is None or _real(value, 0, 1),
    "segment_threshold": lambda value: value is None or _real(value, 0, 1),
    "segment_neck": lambda value: value is None or _real(value, 0, 1),
    "views": lambda value: type(value) is int and value in VIEWS,
    "tile": lambda value: _whole(value, 0, 2**20),
}
SEPARATION: Check = {
    "depth": lambda value: value is None or _real(value, 0),
    "min_area": lambda value: _whole(value, 0, 2**40),
    "min_probability": lambda value: _real(value, 0, 1),
    "heights": lambda value: value in get_args(Heights),
    "neck": lambda value: _real(value, 0, 1),
}
