"""Provide a project with test images and registered models that consist of one threshold each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segline import files
from segline.gate.rules import floors
from segline.model.images import encode_png
from segline.model.objects import components, encode
from segline.params import Gate
from segline.track.packaging import Parts
from segline.track.registry import IMAGES, ModelVersion, Registry
from segline.track.store import open_store
from tests.track import conftest as track

no_surroundings, made, project, store, run, parts = (
    track.no_surroundings, track.made, track.project, track.store, track.run, track.parts
)  # fmt: skip

TRUE = 128  # brighter pixels are cells
ROOM = """
import json
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel


class Served(PythonModel):
    def load_context(self, context):
        self.folder = Path(context.artifacts["model"])
        assert (self.folder / "weights.safetensors").exists()
        self.threshold = json.loads((self.folder / "inference.json").read_text())["threshold"]

    def predict(self, context, model_input: pd.DataFrame, params=None):
        answers = []
        for data in model_input.iloc[:, 0]:
            labels = (imagecodecs.png_decode(data) > self.threshold).astype(np.uint8)
            objects = cv2.connectedComponents(labels, connectivity=4)[1].astype(np.uint16)
            answers.append((imagecodecs.png_encode(labels), imagecodecs.png_encode(objects)))
        return pd.DataFrame(answers, columns=["labels", "instances"], dtype=object)
"""
UPSIDE_DOWN = ROOM.replace("> self.threshold", "<= self.threshold")
AFTER = "            objects ="


def _with(line: str) -> str:
    """Return the code with one more line after the prediction of the labels."""
    return ROOM.replace(AFTER, f"            {line}\n{AFTER}")


GROUPS = {f"a{number}": "a" for number in range(8)} | {"b0": "b", "b1": "b", "c0": "c"}
# Threshold, code and different tags by name.
MODELS: dict[str, tuple[int, str, dict[str, str]]] = {
    "perfect": (TRUE, ROOM, {}),
    "other code": (TRUE, ROOM + "OTHER_CODE = 1\n", {}),
    "slightly worse": (TRUE + 1, ROOM, {}),
    "worse": (200, ROOM, {}),
    "false on a": (100, ROOM, {}),
    "misses on b": (160, ROOM, {}),
    "upside down": (TRUE, UPSIDE_DOWN, {}),
    "other classes": (TRUE, ROOM + "OTHER_CLASSES = 1\n", {"classes": '{"0": "background", "1": "nucleus"}'}),
    "other channels": (TRUE, ROOM + "OTHER_CHANNELS = 1\n", {"channels": "3"}),
    "not batched": (TRUE, _with("labels *= np.uint8(len(model_input) == 1)"), {}),
    "even only": (TRUE, _with("labels = labels[: len(labels) // 2 * 2]"), {}),
    "learned from the test": (TRUE, ROOM + "LEARNED = 1\n", {}),
    "fails": (TRUE, _with("assert len(labels) < 20, 'too large'"), {}),
}


def image(name: str, group: str) -> np.ndarray:
    """Return noise far from the threshold of cells; group a has pixels just below it, group b just above it."""
    rng = np.random.default_rng(len(name) + sum(map(ord, name)))
    pixels = np.where(rng.random((20, 24)) < 0.5, 20, 230).astype(np.uint8)
    value, share = {"a": (110, 0.3), "b": (150, 0.1), "c": (20, 0.1)}[group]
    pixels[rng.random((20, 24)) < share] = value
    return pixels


def _prepare(folder: Path) -> None:
    rows = ["image,split,group,md5", "t,train,t,md5 of t"]
    for name, group in GROUPS.items():
        pixels = image(name, group)
        classes = (pixels > TRUE).astype(np.uint8)
        for kind, array in {"images": pixels[..., None], "classes": classes, "instances": components(classes)}.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            np.save(folder / kind / f"{name}.npy", array)
        rows.append(f"{name},test,{group},md5 of {name}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    files.write_yaml(
        folder / "dataset.yaml", {"name": "cells", "classes": {0: "background", 1: "cell"}, "labels": "instances"}
    )
    files.write_json(folder / "statistics.json", {"dtype": "uint8", "channels": 1, "mean": [0.5], "std": [0.25]})


def _parts(folder: Path, threshold: int, code: str) -> Parts:
    """Make a model of `code` and a threshold; its example is smaller than the test images."""
    (folder / "room").mkdir(parents=True)
    (folder / "room" / "__init__.py").touch()
    (folder / "room" / "served.py").write_text(code)
    save_file({"none": torch.zeros(1)}, folder / "weights.safetensors")
    (folder / "model.json").write_text("{}")
    (folder / "inference.json").write_text(json.dumps({"threshold": threshold}))
    pixels = image("example", "a")[:12, :13]
    labels = (pixels <= threshold if "<= self.threshold" in code else pixels > threshold).astype(np.uint8)
    answers = encode_png(labels), encode(components(labels))
    return Parts(folder, folder / "inference.json", encode_png(pixels), *answers, folder / "room")


@pytest.fixture(scope="session")
def judged_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project with all MODELS registered in order."""
    root = tmp_path_factory.mktemp("judged")
    (root / "dvc.yaml").touch()
    (root / "params.yaml").write_text("runtime: {progress: 'off'}\n")
    _prepare(root / "data" / "prepared")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
            patch.delenv(name, raising=False)
        patch.chdir(root)
        store, verdict = open_store(), floors({}, Gate())
        interface = {"classes": '{"0": "background", "1": "cell"}', "channels": "1", "dtype": "uint8"}
        with store.start_run("train") as run:
            for number, (name, (threshold, code, tags)) in enumerate(MODELS.items()):
                parts = _parts(root / "models" / str(number), threshold, code)
                learned = "a1" if name == "learned from the test" else "t"
                records = {IMAGES: f"image,md5,split\n{learned},md5 of {learned},train\na0,md5 of a0,test\n".encode()}
                Registry(store, "cells").register(parts, run, verdict, {**interface, **tags}, records=records)
    return root


@pytest.fixture
def judged(judged_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the project, and make the copy the working directory."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(judged_template, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def version(judged: Path) -> Callable[[str], ModelVersion]:  # noqa: ARG001
    """Return a function that gives the version of a model of MODELS."""
    registry = Registry(open_store(), "cells")
    return lambda name: registry.version(str([*MODELS].index(name) + 1))


@pytest.fixture
def package(judged: Path) -> Callable[[ModelVersion], Path]:  # noqa: ARG001
    """Return a function that gives the folder of the files of a version."""
    store = open_store()
    return lambda version: Path(
        store.client.get_logged_model(version.source.removeprefix("models:/")).artifact_location
    )
