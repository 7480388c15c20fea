"""Networks with an encoder in the whole pipeline, and the comparison of networks."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import save_file

from segline.model import encoders
from tests.checkout import Project

pytestmark = pytest.mark.soak


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """Copy the finished project to another folder, so that each test may change it."""
    shutil.copytree(finished.folder, tmp_path / "moved", symlinks=True)
    return Project(tmp_path / "moved")


def test_a_network_with_a_pretrained_encoder_runs_through_the_pipeline(project: Project, tmp_path: Path) -> None:
    encoder = encoders.build("resnet18", 3, 2, "batch")
    save_file(encoder.state_dict(), project.folder / "data/encoders/resnet18.safetensors")
    changes = {"padding": "same", "norm": "batch", "depth": 2}
    project.set(model={"encoder": "resnet18", "encoder_weights": "resnet18.safetensors", **changes})
    said = project.run("dvc", "repro")
    assert "cells version 2 (@challenger) is new" in said
    assert json.loads((project.folder / "data/model/model.json").read_text())["network"]["encoder"] == "resnet18"
    project.check_answers("models:/cells/2", tmp_path)
    save_file(
        encoders.build("resnet18", 3, 2, "batch").state_dict(), project.folder / "data/encoders/resnet18.safetensors"
    )
    assert project.would_run() == ["tune", "train"]


def test_networks_are_compared_in_nested_runs(project: Project) -> None:
    before, runs = (project.folder / "dvc.lock").read_text(), project.runs()
    said = project.run("segline", "compare-nets", "unet", "unet:resnet18", "--minutes", "0.05", PYTHONPATH="src")
    assert "compare-nets: unet:resnet18 (2 of 2)" in said
    table = pd.read_csv(project.folder / "comparison/nets/nets.csv").set_index("network")
    assert list(table.index) == ["unet", "unet:resnet18"]
    assert ((table["low"] <= table["mean_iou"]) & (table["mean_iou"] <= table["high"])).all()
    assert table.loc["unet", "gain"] == 0
    assert table.loc["unet:resnet18", "parameters"] > 1e7
    assert (table["cpu_minutes"] > 0).all()
    assert (project.folder / "comparison/nets/nets.png").read_bytes().startswith(b"\x89PNG")
    assert project.runs() == runs + 3
    names = "SELECT count(*) FROM tags WHERE key = 'mlflow.parentRunId' AND run_uuid IN (SELECT run_uuid FROM runs "
    assert project.query(names + "WHERE name LIKE 'unet%')") == [(2,)]
    assert (project.folder / "dvc.lock").read_text() == before
    assert "up to date" in project.run("dvc", "repro")
    failed = project.attempt("segline", "compare-nets", "unet", "vgg16", PYTHONPATH="src")
    assert "write a network as unet, unet:resnet34 or fcn8s:vgg16" in failed.stderr
