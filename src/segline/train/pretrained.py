"""Load pretrained weights of an encoder from a file with the tensor names of torchvision."""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from segline import files
from segline.model.network import Network

FOLDER = Path("data/encoders")  # stages tune and train depend on this folder
FIRST = ("features.0.weight", "conv1.weight")  # kernel of the first convolution of a VGG, of a ResNet


class PretrainedError(ValueError):
    """A file of pretrained weights does not fit; the message names the file, the tensor and the remedy."""


def digests(name: str) -> dict[str, str]:
    """Return {path: MD5} of the file `name` of pretrained weights; empty if `name` is empty.

    Raises
    ------
    PretrainedError
        The file is missing.
    """
    file = FOLDER / name
    if name and not file.is_file():
        raise _missing(file)
    return {file.as_posix(): files.md5(file)} if name else {}


def load(network: Network, file: Path) -> None:
    """Copy the weights in `file` to the encoder of `network` and, in an FCN, to the dense layers of VGG.

    Other tensors of the file, such as those of the last dense layer, are not used.

    Raises
    ------
    PretrainedError
        The file is missing or damaged, or belongs to another encoder.
    """
    tensors = _read(file)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            own = name.removeprefix("encoder.")
            if not name.startswith(("encoder.", "classifier.")) or name.endswith("num_batches_tracked"):
                continue
            if own not in tensors:
                raise PretrainedError(
                    f"{file} has no tensor {own}, so it does not belong to this encoder; set model.encoder to the "
                    "network of the file (for a VGG: model.norm to batch if the file has batch norm, otherwise to none)"
                )
            tensor.copy_(_fitted(tensors[own], tensor, own, file))


def _fitted(given: Tensor, wanted: Tensor, name: str, file: Path) -> Tensor:
    """Return `given` in the shape of `wanted`."""
    if name in FIRST and given.ndim == wanted.ndim:
        given = adapted(given, wanted.shape[1])
    if name.startswith("classifier.") and given.numel() == wanted.numel():
        given = given.reshape(wanted.shape)  # the weights of a dense layer are those of a convolution
    if given.shape != wanted.shape:
        shapes = tuple(given.shape), tuple(wanted.shape)
        raise PretrainedError(
            f"{file}: tensor {name} has shape {shapes[0]}, but the encoder needs {shapes[1]}; set model.encoder to the "
            "network of the file"
        )
    return given


def adapted(kernel: Tensor, in_channels: int) -> Tensor:
    """Return a kernel (c, in_channels, h, w) of a first convolution, made from `kernel` (c, n, h, w).

    For one channel, the kernels of all channels are added, so that a grey image gives the values of the same image in
    RGB. For other numbers of channels, the kernels are repeated in turn, and a factor keeps the scale of the values.
    These are the rules of segmentation_models.pytorch.
    """
    channels = kernel.shape[1]
    if in_channels == channels:
        return kernel
    if in_channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    return kernel[:, torch.arange(in_channels) % channels] * (channels / in_channels)


def _missing(file: Path) -> PretrainedError:
    return PretrainedError(f"{file} is missing; copy the file there, or set model.encoder_weights to ''")


def _read(file: Path) -> dict[str, Tensor]:
    """Return the tensors in `file` by name. A pickle may hold nothing but tensors and plain containers."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise _missing(file) from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PretrainedError(f"{file} cannot be read as a file of weights: {reason}; copy the file again") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise PretrainedError(f"{file} does not hold tensors by name; save the state_dict of the network")
    return content
