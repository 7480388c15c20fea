"""Damaged model files are named, and no network is built from invalid numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from segline.model.inference import Description, Inference, ModelError, load
from segline.model.normalisation import Statistics
from segline.model.saved import weights

DESCRIPTION = Description(
    {"width": 4, "depth": 1, "padding": "same", "norm": "batch"},
    {0: "background", 1: "cell"},
    "instances",
    Statistics("uint8", 1, (0.5,), (0.25,)),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a sound model."""
    DESCRIPTION.write(tmp_path / "model.json")
    Inference(0.5, views=4).write(tmp_path / "inference.json")
    save_file(DESCRIPTION.build().state_dict(), tmp_path / "weights.safetensors")
    return tmp_path


def test_a_sound_model_is_read_back(folder: Path) -> None:
    predictor = load(folder)
    assert predictor.description == DESCRIPTION
    assert predictor.inference == Inference(0.5, views=4)


def setting(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("model.json", setting("network", "width", value=10**12)),
        ("model.json", setting("network", "depth", value=60)),
        ("model.json", setting("network", "depth", value=-1)),
        ("model.json", setting("network", "width", value="4")),
        ("model.json", setting("network", "width", value=True)),
        ("model.json", setting("network", "norm", value="x")),
        ("model.json", setting("network", "norm", value=["batch"])),
        ("model.json", setting("network", "evil", value=1)),
        ("model.json", setting("network", "name", value="fcn8s")),  # without an encoder
        ("model.json", setting("network", "encoder", value="resnet34")),  # an encoder has no setting `padding`
        ("model.json", setting("network", value={"encoder": "resnet34", "depth": 6})),
        ("model.json", setting("network", value={"encoder": "alexnet"})),
        ("model.json", setting("network", value=[])),
        ("model.json", setting("classes", value={"0": "a"})),
        ("model.json", setting("classes", value={"0": "a", "2": "b"})),
        ("model.json", setting("classes", value={"0": "a", "1": 7})),
        ("model.json", setting("classes", value=["a", "b"])),
        ("model.json", setting("labels", value="x")),
        ("model.json", setting("statistics", "channels", value=10**9)),
        ("model.json", setting("statistics", "mean", value=["0.5"])),
        ("model.json", setting("statistics", "std", value=[None])),
        ("model.json", setting("statistics", "dtype", value="object")),
        ("model.json", setting("statistics", value=7)),
        ("model.json", setting("input_norm", value="x")),
        ("model.json", setting("input_norm", value=["image"])),
        ("inference.json", setting("views", value=3)),
        ("inference.json", setting("tile", value=-1)),
        ("inference.json", setting("threshold", value="0.5")),
        ("inference.json", setting("threshold", value=float("nan"))),
        ("inference.json", setting("separation", value={"depth": "x"})),
        ("inference.json", setting("separation", value=[1])),
        ("inference.json", setting("evil", value=1)),
    ],
)
def test_invalid_values_are_refused(folder: Path, file: str, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=rf"{file}: .*damaged or belongs to another model"):
        load(folder)


def test_a_model_that_does_not_name_its_normalisation_uses_the_training_images(folder: Path) -> None:
    content = json.loads((folder / "model.json").read_text())
    assert content.pop("input_norm") == "dataset"
    (folder / "model.json").write_text(json.dumps(content))
    assert load(folder).description == DESCRIPTION


@pytest.mark.parametrize("file", ["model.json", "inference.json", "weights.safetensors"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"[1]",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xff" * 8 + b"{}",
        b"x" * 2**21,
    ],
)
def test_damaged_files_are_named(folder: Path, file: str, data: bytes) -> None:
    (folder / file).write_bytes(data)
    with pytest.raises(ModelError, match=rf"{file}: ") as refused:
        load(folder)
    assert len(str(refused.value)) < 500 + len(str(folder))
    (folder / file).unlink()
    with pytest.raises(ModelError, match=rf"{file}: cannot be read: No such file"):
        load(folder)


def test_truncated_weights_are_named(folder: Path) -> None:
    whole = (folder / "weights.safetensors").read_bytes()
    for size in range(0, len(whole), 97):
        (folder / "weights.safetensors").write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"weights\.safetensors: "):
            weights(folder / "weights.safetensors", DESCRIPTION)


def test_weights_of_another_network_are_named_with_the_first_difference(folder: Path) -> None:
    tensors = DESCRIPTION.build().state_dict()
    name = next(iter(tensors))
    for change, says in (
        ({name: torch.zeros(3)}, rf"tensor {name} has shape \(3,\), but model\.json requires \(4, 1, 3, 3\)"),
        (
            {name: torch.zeros(tensors[name].shape, dtype=torch.int32)},
            rf"tensor {name} has type torch\.int32, not torch\.float32",
        ),
        ({"zzz": torch.zeros(1)}, r"tensor zzz has shape \(1,\), but model\.json requires none"),
    ):
        save_file(tensors | change, folder / "weights.safetensors")
        with pytest.raises(ModelError, match=says):
            load(folder)
    del tensors[name]
    save_file(tensors, folder / "weights.safetensors")
    with pytest.raises(ModelError, match=rf"tensor {name} has shape none"):
        load(folder)
