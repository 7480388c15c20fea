"""Run stage register on a tiny project; check its record, and the model in a process without segline."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import save_file

from segline import files
from segline.data import truth
from segline.data.prepared import Prepared
from segline.model.images import encode_png
from segline.model.inference import Description, Inference, load_with
from segline.model.normalisation import Statistics
from segline.model.objects import Separation, encode
from segline.stages import register
from segline.track import lineage
from segline.track.store import open_store

NETWORK = {"width": 2, "depth": 1, "padding": "same", "norm": "batch", "upsampling": "transposed", "dropout": 0.0}
FRESH = """
import sys

class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "segline":
            raise ImportError(f"{name} is not importable here")

sys.meta_path.insert(0, Refuse())
import mlflow, pandas as pd
from pathlib import Path

mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/tiny@champion")
names = sorted(Path(sys.argv[2]).iterdir())
table = pd.DataFrame({"image": [name.read_bytes() for name in names]})
answers = model.predict(table, params={"instances": True})
for name, labels, instances in zip(names, answers["labels"], answers["instances"]):
    (Path(sys.argv[3]) / "predictions" / f"{name.stem}.png").write_bytes(labels)
    (Path(sys.argv[3]) / "instances" / f"{name.stem}.png").write_bytes(instances)
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the outputs of the former stages: two test images of different sizes with predictions, and a new store."""
    root = tmp_path_factory.mktemp("template")
    (root / "dvc.yaml").touch()
    (root / "params.yaml").write_text("gate: {min_mean_iou: 0.5}\n")
    _prepared(root / "data" / "prepared")
    model, reports = root / "data" / "model", root / "data" / "reports"
    for folder in ("predictions", "instances"):
        (reports / folder).mkdir(parents=True)
    model.mkdir()
    statistics = Statistics("uint8", 1, (0.5,), (0.25,))
    description = Description(NETWORK, {0: "background", 1: "cell"}, "instances", statistics)
    torch.manual_seed(1)
    save_file(description.build().state_dict(), model / "weights.safetensors")
    description.write(model / "model.json")
    (model / "history.csv").write_text("epoch,loss\n1,0.5\n")
    inference = Inference(0.5, separation=Separation(0.5, 2))
    inference.write(reports / "inference.json")
    predictor = load_with(model, inference)
    for name in ("large", "small"):
        labels, objects = predictor.predict(np.load(root / "data" / "prepared" / "images" / f"{name}.npy"))
        (reports / "predictions" / f"{name}.png").write_bytes(encode_png(labels))
        (reports / "instances" / f"{name}.png").write_bytes(encode(objects))
    (reports / "test.json").write_text('{"images": 3, "iou": {}, "dice": {}, "mean_iou": 0.8, "pixel_error": 0.1}')
    (reports / "model_card.md").write_text("# tiny\n")
    (root / "data" / "tune").mkdir()
    (root / "data" / "tune" / "best.yaml").write_text("train: {learning_rate: 0.01}\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
            patch.delenv(name, raising=False)
        patch.chdir(root)
        open_store()
    return root


def _prepared(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("images", "classes", "instances"):
        (folder / kind).mkdir(parents=True)
    rows = ["image,split,group"]
    for name, side in {"large": 40, "small": 24, "other": 8}.items():
        image = rng.integers(0, 256, (side, side + 3, 1), np.uint8)
        np.save(folder / "images" / f"{name}.npy", image)
        for kind in ("classes", "instances"):
            np.save(folder / kind / f"{name}.npy", (image[..., 0] > 128).astype(np.uint8))
        rows.append(f"{name},{'train' if name == 'other' else 'test'},")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    files.write_yaml(
        folder / "dataset.yaml", {"name": "tiny", "classes": {0: "background", 1: "cell"}, "labels": "instances"}
    )
    files.write_json(folder / "statistics.json", {"dtype": "uint8", "channels": 1, "mean": [0.5], "std": [0.25]})


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project before stage register the working directory."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(template, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def client(project: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")


def record(project: Path) -> bytes:
    return (project / "data" / "reports" / "registration.json").read_bytes()


def test_the_model_is_registered_with_its_origin(project: Path) -> None:
    register.main()
    content = json.loads(record(project))
    assert content["name"] == "tiny"
    assert content["floors"]["passed"]
    version = client(project).get_model_version_by_alias("tiny", "champion")
    assert version.tags["version.md5"] == content["version_md5"]
    assert version.tags["model.md5"] == files.md5(project / "data" / "model" / "weights.safetensors")
    assert version.tags["dataset"] == "tiny"
    assert json.loads(version.tags["classes"]) == {"0": "background", "1": "cell"}
    held_out = lineage.combined_md5(truth.md5s(Prepared.open(project / "data" / "prepared")))
    assert version.tags["test.md5"] == held_out
    assert version.description == "# tiny\n"
    run = client(project).get_run(version.run_id)
    assert run.data.tags["restored"] == "true"
    assert run.data.params["train.learning_rate"] == "0.01"


def test_mlflow_ranks_versions_by_their_test_metrics(project: Path) -> None:
    register.main()
    mlflow_client = client(project)
    version = mlflow_client.get_model_version_by_alias("tiny", "champion")
    points = mlflow_client.get_metric_history(version.run_id, "test_mean_iou")
    assert [point.value for point in points] == [0.8]
    (project / "data" / "reports" / "test.json").write_text(
        '{"images": 3, "iou": {}, "dice": {}, "mean_iou": 0.9, "pixel_error": 0.05}'
    )
    (project / "data" / "reports" / "inference.json").write_text(
        (project / "data" / "reports" / "inference.json").read_text() + "\n"
    )
    for _ in range(2):  # a repeated registration adds nothing
        register.main()
    ranked = mlflow_client.search_logged_models(
        [mlflow_client.get_run(version.run_id).info.experiment_id],
        order_by=[{"field_name": "metrics.test_mean_iou", "ascending": False}],
    )
    metrics = [[metric for metric in model.metrics if metric.key == "test_mean_iou"] for model in ranked]
    assert [[metric.value for metric in points] for points in metrics] == [[0.9], [0.8]]
    for metric in (points[0] for points in metrics):
        assert (metric.dataset_name, metric.dataset_digest) == ("tiny", version.tags["data.md5"])
        assert metric.run_id == version.run_id
    assert {metric.key for metric in ranked[0].metrics} == {"test_images", "test_mean_iou", "test_pixel_error"}
    assert [point.value for point in mlflow_client.get_metric_history(version.run_id, "test_mean_iou")] == [0.8, 0.9]


def test_the_record_is_the_same_on_every_machine(project: Path, template: Path, tmp_path: Path) -> None:
    register.main()
    first = record(project)
    register.main()
    assert record(project) == first
    assert len(client(project).search_model_versions("name = 'tiny'")) == 1
    with pytest.MonkeyPatch.context() as patch:
        shutil.copytree(template, tmp_path / "elsewhere")
        patch.chdir(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "params.yaml").write_text("registration: {name: tiny}\n")
        register.main()
    assert record(tmp_path / "elsewhere") == first


def test_a_model_below_the_floors_is_not_promoted(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "params.yaml").write_text("gate: {min_mean_iou: 0.9}\nregistration: {name: mine}\n")
    register.main()
    assert not json.loads(record(project))["floors"]["passed"]
    assert client(project).get_registered_model("mine").aliases == {"challenger": 1}
    assert "Not promoted: mean_iou 0.8 is below the minimum 0.9 (gate.min_mean_iou)." in capsys.readouterr().err


def test_the_model_answers_like_evaluate_without_segline(project: Path, tmp_path: Path) -> None:
    register.main()
    images, answers, reports = tmp_path / "images", tmp_path / "answers", project / "data" / "reports"
    for folder in (images, answers / "predictions", answers / "instances"):
        folder.mkdir(parents=True)
    kinds = [reports / "predictions", reports / "instances"]
    expected = {path.relative_to(reports): path.read_bytes() for kind in kinds for path in kind.iterdir()}
    assert len(expected) == 4
    for name in (path.name for path in kinds[0].iterdir()):
        raw = np.load(project / "data" / "prepared" / "images" / name.replace(".png", ".npy"))
        (images / name).write_bytes(encode_png(raw[..., 0]))
    arguments = [f"sqlite:///{project}/mlruns/mlflow.db", str(images), str(answers)]
    command = [sys.executable, "-I", "-c", FRESH, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.relative_to(answers): path.read_bytes() for path in answers.glob("*/*")} == expected
