import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from segline.train import checkpoint


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rmsprop", "adam", "adamw"])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_training_equals_an_uninterrupted_one(
    training: Callable[..., Any], tmp_path: Path, optimizer: str, stop: int
) -> None:
    changes = {"optimizer": optimizer, "learning_rate": 0.003, "schedule": {"kind": "plateau", "patience": 0}}
    whole, first, second = (training(**changes) for _ in range(3))
    expected = whole.run()
    first.step_epochs(stop)
    checkpoint.save(tmp_path / "last", first.state, first.settings)
    with torch.no_grad():  # the second training must take everything from the checkpoint
        for parameter in second.state.network.parameters():
            parameter.zero_()
    checkpoint.load(tmp_path / "last", second.state)
    rest = second.run()
    assert [e.loss for e in rest] == [e.loss for e in expected[stop:]]
    assert [e.learning_rate for e in rest] == [e.learning_rate for e in expected[stop:]]
    assert all(torch.equal(a, b) for a, b in zip(whole.weights().values(), second.weights().values(), strict=True))


def test_a_checkpoint_holds_safetensors_and_json_only(training: Callable[..., Any], tmp_path: Path) -> None:
    tiny = training(seed=7)
    tiny.step_epochs(2)
    checkpoint.save(tmp_path / "last", tiny.state, tiny.settings)
    assert {f.suffix for f in (tmp_path / "last").iterdir()} == {".safetensors", ".json"}
    content = json.loads((tmp_path / "last" / checkpoint.REST).read_text())
    assert content["epoch"] == 2
    assert len(content["losses"]) == len(content["validation_losses"]) == 2
    assert content["settings"] == tiny.settings.model_dump(mode="json")
    assert content["random"] == {"seed": 7, "epoch": 2}


def test_saving_again_leaves_only_the_new_checkpoint(training: Callable[..., Any], tmp_path: Path) -> None:
    tiny = training()
    for _ in range(2):
        tiny.step_epochs(1)
        checkpoint.save(tmp_path / "last", tiny.state, tiny.settings)
    assert [f.name for f in tmp_path.iterdir()] == ["last"]
    assert json.loads((tmp_path / "last" / checkpoint.REST).read_text())["epoch"] == 2


def test_a_failed_save_keeps_the_former_checkpoint(
    training: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = training()
    checkpoint.save(tmp_path / "last", tiny.state, tiny.settings)
    before = (tmp_path / "last" / checkpoint.WEIGHTS).read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    tiny.step_epochs(1)
    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(tmp_path / "last", tiny.state, tiny.settings)
    assert (tmp_path / "last" / checkpoint.WEIGHTS).read_bytes() == before


def test_weights_have_the_same_bytes_in_either_memory_format(training: Callable[..., Any]) -> None:
    written = [save(checkpoint.weights(training(channels_last=last).state.network)) for last in (True, False)]
    assert written[0] == written[1]
