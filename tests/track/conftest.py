"""Provide a small model, and projects whose stores are copies of one, since creating a store takes seconds."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segline.model.images import encode_png
from segline.model.inference import Description, Inference, Predictor
from segline.model.normalisation import Statistics
from segline.model.objects import Separation, encode
from segline.track.packaging import ROOM, Parts
from segline.track.recording import StartedRun
from segline.track.store import Store, open_store

NETWORK = {"width": 2, "depth": 1, "padding": "same", "norm": "none", "upsampling": "transposed", "dropout": 0.0}


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that MLflow and DVC set for a stage."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project with a new, empty store."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "dvc.yaml").touch()
    before = Path.cwd()
    os.chdir(folder)
    try:
        open_store()
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project with a store the working directory; its name contains a space and an umlaut."""
    folder = tmp_path / "my prüfung"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def store(project: Path) -> Store:  # noqa: ARG001
    """Open the store of the project."""
    return open_store()


@pytest.fixture
def run(store: Store) -> Iterator[StartedRun]:
    """Start a run in the store."""
    with store.start_run("train") as started:
        yield started


@pytest.fixture
def under_way(store: Store) -> Iterator[Callable[..., StartedRun]]:
    """Return a function that starts runs that last until the test ends."""
    with ExitStack() as stack:
        yield lambda *arguments, **named: stack.enter_context(store.start_run(*arguments, **named))


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Return a network with random weights, and its answer to an image."""
    folder = tmp_path_factory.mktemp("model")
    statistics = Statistics("uint8", 1, (0.5,), (0.25,))
    description = Description(NETWORK, {0: "background", 1: "cell"}, "instances", statistics)
    torch.manual_seed(0)
    network = description.build()
    save_file(network.state_dict(), folder / "weights.safetensors")
    description.write(folder / "model.json")
    inference = Inference(separation=Separation(1.0, 3))
    inference.write(folder / "inference.json")
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 1), np.uint8)
    labels, objects = Predictor(network, description, inference).predict(image)
    room = tmp_path_factory.mktemp("room")
    shutil.copytree(ROOM, room, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    example = encode_png(image[..., 0])
    return Parts(folder, folder / "inference.json", example, encode_png(labels), encode(objects), room)


@pytest.fixture
def other_code(parts: Parts, tmp_path: Path) -> Callable[[str, str, str], Parts]:
    """Return a function that copies the model with other code: `old` in `file` is replaced by `new`."""

    def make(file: str, old: str, new: str) -> Parts:
        room = tmp_path / "other room"
        shutil.copytree(parts.room, room)
        text = (room / file).read_text()
        assert text.count(old) == 1
        (room / file).write_text(text.replace(old, new))
        return replace(parts, room=room)

    return make
