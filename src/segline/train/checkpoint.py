"""Write checkpoints atomically, and read them: tensors as safetensors, other values as JSON, no pickle."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from segline import files
from segline.params import Train
from segline.train.loop import Epoch
from segline.train.loss import LossSums
from segline.train.setup import State

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
UNDER_WAY = "under_way.safetensors"  # only within an epoch: loss sums so far, and states of torch's random generators
REST = "state.json"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, or does not fit the training run."""


Count = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Rest(BaseModel):
    """Content of state.json: all values of a checkpoint that are not tensors."""

    epoch: Count
    last_epoch: Count
    time_spent: Seconds
    epoch_began: Seconds
    step: Count
    seconds: Seconds
    losses: list[float]
    validation_losses: list[float]
    optimizer: dict[Literal["param_groups", "state"], Any]
    scaler: dict[str, Any]
    epochs: list[Epoch]
    files: list[Literal["weights.safetensors", "optimizer.safetensors", "under_way.safetensors"]]

    @model_validator(mode="after")
    def _epochs_in_order(self) -> Self:
        numbers = [epoch.epoch for epoch in self.epochs]
        if numbers and (numbers != sorted(set(numbers)) or numbers[-1] != self.epoch):
            raise ValueError("the epoch numbers in `epochs` must increase, and the last number must equal `epoch`")
        return self


@dataclass(frozen=True)
class CheckpointContent:
    """Content of a checkpoint: tensors by file name and tensor name, and all other values as plain JSON values."""

    tensors: dict[str, dict[str, Tensor]]
    rest: dict[str, Any]

    def copy(self) -> "CheckpointContent":
        """Return a copy that further training does not change."""
        tensors = {file: {name: t.clone() for name, t in named.items()} for file, named in self.tensors.items()}
        return CheckpointContent(tensors, self.rest)


def save(folder: Path, state: State, settings: Train) -> None:
    """Save `state` in `folder`. A former checkpoint there stays until the new one is complete."""
    write(folder, take(state, settings))


def load(folder: Path, state: State) -> None:
    """Restore the checkpoint in `folder` into `state`, an initial state made with the same settings."""
    give(read(folder), state)


def take(state: State, settings: Train, epochs: Sequence[Epoch] = ()) -> CheckpointContent:
    """Return the content of a checkpoint of `state`; `epochs` holds the finished epochs.

    Tensors on the CPU are shared with `state`.

    Between epochs, (seed, epoch) determines every later tile and dropout mask. Within an epoch, the states of torch's
    random generators are also needed. Settings, step and validation losses determine learning rate and momentum.
    """
    optimizer, plain = split_tensors(state.optimizer.state_dict())
    tensors = {WEIGHTS: weights(state.network), OPTIMIZER: optimizer}
    if state.sums is not None:
        sums = {f"sums/{name}": value.detach().cpu() for name, value in vars(state.sums).items()}
        tensors[UNDER_WAY] = sums | _generators(state)
    rest = {
        "epoch": state.epoch,
        "last_epoch": state.last_epoch,
        "time_spent": state.time_spent,
        "epoch_began": state.epoch_began,
        "step": state.step,
        "seconds": state.seconds,
        "losses": _plain(state.losses),
        "validation_losses": _plain(state.validation_losses),
        "random": {"seed": settings.seed, "epoch": state.epoch},
        "settings": settings.model_dump(mode="json"),
        "optimizer": plain,
        "scaler": state.scaler.state_dict(),
        "epochs": [_plain(asdict(epoch)) for epoch in epochs],
        "files": [*tensors],
    }
    return CheckpointContent(tensors, rest)


def history(content: CheckpointContent) -> list[Epoch]:
    """Return the finished epochs that `content` records."""
    return [_epoch(values) for values in content.rest["epochs"]]


def give(content: CheckpointContent, state: State) -> None:
    """Restore `content` into `state`, an initial state made with the same settings.

    Raises
    ------
    CheckpointError
        `content` belongs to another network or optimizer, or is damaged; `state` may then be partly overwritten.
    """
    try:
        _give(content, state)
    except Exception as error:  # torch raises many exception types for tensors that do not fit
        raise CheckpointError(f"the checkpoint does not fit the training ({type(error).__name__}: {error})") from error


def _give(content: CheckpointContent, state: State) -> None:
    rest = content.rest
    optimizer = join_tensors(content.tensors[OPTIMIZER], rest["optimizer"])
    _check_optimizer(optimizer, state)
    under_way = content.tensors.get(UNDER_WAY, {})
    device = next(state.network.parameters()).device
    sums = {field.name: under_way[f"sums/{field.name}"].to(device) for field in fields(LossSums) if under_way}
    random = {name.removeprefix("random/"): t for name, t in under_way.items() if name.startswith("random/")}
    if "cpu" in random and (random["cpu"].shape, random["cpu"].dtype) != (torch.get_rng_state().shape, torch.uint8):
        raise ValueError("the tensor random/cpu is not the state of a random generator")
    state.network.load_state_dict(content.tensors[WEIGHTS])
    state.optimizer.load_state_dict(optimizer)
    state.scaler.load_state_dict(rest["scaler"])
    state.epoch, state.step, state.seconds = rest["epoch"], rest["step"], rest["seconds"]
    state.last_epoch, state.time_spent, state.epoch_began = (
        rest[name] for name in ("last_epoch", "time_spent", "epoch_began")
    )
    state.losses, state.validation_losses = ([float(v) for v in rest[k]] for k in ("losses", "validation_losses"))
    state.sums = LossSums(**sums) if sums else None
    state.random = random


def _check_optimizer(saved: dict[str, Any], state: State) -> None:
    """Raise ValueError if parameter groups, names, types or shapes in `saved` do not fit the optimizer of `state`.

    Without this check, only the next optimizer step would fail.
    """
    fresh, parameters = state.optimizer.state_dict(), list(state.network.parameters())
    for group, own in zip(saved["param_groups"], fresh["param_groups"], strict=True):
        if group.keys() != own.keys() or group["params"] != own["params"]:
            raise ValueError("the parameter groups of the optimizer differ from those of the checkpoint")
        for name, value in own.items():
            if isinstance(value, float | int) and not isinstance(group[name], float | int):
                raise ValueError(f"the optimizer's {name} is {group[name]!r}, not a number")
    for number, values in saved["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameters[number].shape:
                raise ValueError(
                    f"the optimizer's tensor {name} for parameter {number} has the wrong shape {tuple(value.shape)}"
                )


def write(folder: Path, content: CheckpointContent) -> None:
    """Write `content` to `folder`. A former checkpoint there is replaced only when the new one is on the disk."""
    with files.whole_folder(folder) as building:
        for name, tensors in content.tensors.items():
            save_file(tensors, building / name)
        files.write_json(building / REST, content.rest)
        for path in (*building.iterdir(), building):
            files.sync(path)
    files.sync(folder.parent)


def read(folder: Path) -> CheckpointContent:
    """Read a checkpoint written by `write`.

    Raises
    ------
    CheckpointError
        The checkpoint is damaged, or incomplete because a process was killed while removing it.
    """
    try:
        files.read_record(folder / REST, Rest, "remove the folder")
        rest = files.read_json(folder / REST)
        return CheckpointContent({name: load_file(folder / name) for name in rest["files"]}, rest)
    except (files.FileError, SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be read: {error}") from error


def weights(network: torch.nn.Module) -> dict[str, Tensor]:
    """Return the weights of `network` by name, on the CPU and contiguous."""
    return {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}


def split_tensors(content: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors, with keys "parameter/name", and plain JSON values."""
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
    """Join tensors and plain values into an optimizer's state. This is the inverse of `split_tensors`."""
    state: dict[int, dict[str, Any]] = {int(parameter): dict(values) for parameter, values in rest["state"].items()}
    for key, tensor in tensors.items():
        parameter, name = key.split("/", 1)
        state.setdefault(int(parameter), {})[name] = tensor
    return {"param_groups": rest["param_groups"], "state": state}


def _generators(state: State) -> dict[str, Tensor]:
    """Return the states of torch's random generators. Dropout draws from these generators."""
    states = {"random/cpu": torch.get_rng_state()}
    device = next(state.network.parameters()).device
    if device.type == "cuda":
        states[f"random/{device.type}"] = torch.cuda.get_rng_state(device)
    return states


def _plain(values: Any) -> Any:
    """Replace each inf and nan, which JSON lacks, with a string that float() can read."""
    if isinstance(values, dict):
        return {name: _plain(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return str(values) if isinstance(values, float) and not math.isfinite(values) else values


def _epoch(values: dict[str, Any]) -> Epoch:
    numbers: dict[str, Any] = {name: float(v) if isinstance(v, str) else v for name, v in values.items()}
    return Epoch(**numbers)
