"""A training on disk: tensors as safetensors, the rest as JSON, nothing pickled, never half written."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from segline.data import files
from segline.params import Train
from segline.train.loop import State

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
REST = "state.json"


def save(folder: Path, state: State, settings: Train) -> None:
    """Write `state` to `folder`, replacing what is there only when all of it is written.

    The random state of a training is (seed, epoch): every tile and every dropout mask follows from it. Learning rate
    and momentum follow from the settings, the epoch and the validation losses.
    """
    tensors, rest = split_tensors(state.optimizer.state_dict())
    content = {
        "epoch": state.epoch,
        "losses": state.losses,
        "validation_losses": state.validation_losses,
        "random": {"seed": settings.seed, "epoch": state.epoch},
        "settings": settings.model_dump(mode="json"),
        "optimizer": rest,
        "scaler": state.scaler.state_dict(),
    }
    with files.whole_folder(folder) as building:
        save_weights(building / WEIGHTS, state.network)
        save_file(tensors, building / OPTIMIZER)
        files.write_json(building / REST, content)


def load(folder: Path, state: State) -> None:
    """Set `state`, freshly made by `loop.start` with the same settings, to what `folder` holds."""
    content = files.read_json(folder / REST)
    state.network.load_state_dict(load_file(folder / WEIGHTS))
    state.optimizer.load_state_dict(join_tensors(load_file(folder / OPTIMIZER), content["optimizer"]))
    state.scaler.load_state_dict(content["scaler"])
    state.epoch = content["epoch"]
    state.losses = content["losses"]
    state.validation_losses = content["validation_losses"]


def save_weights(file: Path, network: torch.nn.Module) -> None:
    """Write the weights of `network`, always in the same byte order and memory format."""
    save_file({name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}, file)


def split_tensors(content: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by "parameter/name" and a rest that JSON can hold."""
    tensors = {}
    rest: dict[str, Any] = {"param_groups": content["param_groups"], "state": {}}
    for parameter, values in content["state"].items():
        plain = rest["state"].setdefault(str(parameter), {})
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{parameter}/{name}"] = value.detach().cpu().contiguous()
            else:
                plain[name] = value
    return tensors, rest


def join_tensors(tensors: dict[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `split_tensors`."""
    state: dict[int, dict[str, Any]] = {int(parameter): dict(values) for parameter, values in rest["state"].items()}
    for key, tensor in tensors.items():
        parameter, name = key.split("/", 1)
        state.setdefault(int(parameter), {})[name] = tensor
    return {"param_groups": rest["param_groups"], "state": state}
