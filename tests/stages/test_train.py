"""Stage train on a tiny project: messages and records of a training whose predictions are all of one class."""

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from segline import files, params
from segline.data.prepared import Prepared
from segline.model.inference import Inference, Predictor, load_with
from segline.model.tiling import Source
from segline.stages import evaluate, prepare, sample, train, tune, weights
from segline.track.store import open_store
from segline.train import loop, setup

SETTINGS = """
model: {width: 2, depth: 1}
tune: {trials: 0}
train: {epochs: 4, tiles_per_epoch: 2, batch_size: 2, tile: 32, validation_tiles: 2, save_checkpoint: false}
weights: {density_balance: 1, density_border: 1}
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project in which the stages before train have run, without a store."""
    root = tmp_path_factory.mktemp("ready")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        (root / "dvc.yaml").touch()
        settings = 'sample: {images: 6, min_size: 64, max_size: 80, seed: 3}\nruntime: {progress: "off"}'
        (root / "params.yaml").write_text(settings + SETTINGS)
        for stage in (sample, prepare, weights, tune):
            stage.main()
    return root


def trained(ready: Path, monkeypatch: pytest.MonkeyPatch, *verdicts: int | None) -> dict[str, object]:
    """Train with the given verdict of `loop.collapsed` in each epoch; return metrics.json."""
    answers = iter(verdicts)

    def collapsed(_: npt.NDArray[np.int64]) -> int | None:
        return next(answers)

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(ready)
    monkeypatch.setattr(loop, "collapsed", collapsed)
    train.main()
    metrics: dict[str, object] = json.loads(Path("data/model/metrics.json").read_text())
    return metrics


def tags() -> dict[str, str]:
    """Return the tags of the latest run."""
    store = open_store()
    (run,) = store.client.search_runs([store.experiment_id], order_by=["start_time DESC"], max_results=1)
    tags: dict[str, str] = run.data.tags
    return tags


def test_a_collapse_is_reported_tagged_and_recorded(
    ready: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = trained(ready, monkeypatch, None, None, 0, 0)["collapsed"]
    assert isinstance(verdict, str)
    assert "every validation pixel is predicted as background (class 0) in epochs 3 to 4 of 4" in verdict
    said = [line for line in capsys.readouterr().err.splitlines() if "predicted" in line]
    assert said == [
        (
            "train: epoch 3: every validation pixel is predicted as background (class 0), "
            "but the ground truth has other classes"
        ),
        f"train: {verdict}",
    ]
    assert tags()["collapsed"] == verdict
    history = pd.read_csv("data/model/history.csv")
    assert history["validation_predicted_classes"].between(1, 3).all()
    assert "collapsed" not in history


def test_a_training_that_recovers_is_not_marked_as_collapsed(
    ready: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The last epoch is used, which did not collapse.
    monkeypatch.setattr("segline.train.keep.better", lambda _, epoch: epoch.epoch)
    assert trained(ready, monkeypatch, 0, 0, None, None)["collapsed"] is None
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train: epoch")]
    assert [line.split(": ")[1] for line in said] == ["epoch 1", "epoch 3"]
    assert said[1].endswith("the validation predictions contain several classes again")
    assert "collapsed" not in tags()


def test_a_training_whose_time_is_used_up_ends_and_says_so(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ready, tmp_path / "project")
    file = tmp_path / "project" / params.TUNED_FILE
    tuned = files.read_yaml(file)
    tuned["train"] |= {"minutes": 1e-6, "tiles_per_epoch": 6}  # a step takes longer than that
    files.write_yaml(file, tuned)
    assert trained(tmp_path / "project", monkeypatch, None)["epochs"] == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "train.minutes" in line]
    assert said == [
        "train: epoch 1 ends after step 1 of 3, because train.minutes = 1e-06 is used up",
        "train: the last epoch is number 1 instead of 4, to keep to train.minutes = 1e-06",
    ]


def test_validation_tiles_may_be_those_of_other_settings(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ready)
    tuned, prepared = params.read_tuned(), Prepared.open()
    wider = tuned.train.model_copy(update={"tile": 2 * tuned.train.tile, "validation_tiles": 3})
    trial = tuned.model_copy(update={"train": wider})
    own, other = setup.build(prepared, tuned, "cpu"), setup.build(prepared, trial, "cpu", tuned.train)
    assert other.tiles[0][0].shape[-1] == 2 * own.tiles[0][0].shape[-1]
    for mine, theirs in zip(own.validation, other.validation, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_training_and_prediction_normalise_an_image_alike(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ready)
    tuned, prepared = params.read_tuned(), Prepared.open()
    for choice in ("image", "dataset"):
        changed = tuned.model_copy(update={"model": tuned.model.model_copy(update={"input_norm": choice})})
        started = setup.build(prepared, changed, "cpu")
        predictor = Predictor(started.state.network, started.description, Inference())
        assert started.description.input_norm == choice
        used = {
            "train": started.tiles.statistics,
            "validation": started.validation.dataset.statistics,  # type: ignore[attr-defined]
        }
        for split, statistics in used.items():
            images = map(prepared.image, prepared.names(split))
            assert statistics == [predictor.statistics(Source.of(image)) for image in images]
        assert (len(set(used["train"])) == 1) == (choice == "dataset")


def test_a_network_with_an_object_map_is_trained_and_separates_objects_by_it(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ready)
    settings, tuned = Path("params.yaml").read_text(), Path("data/tune/best.yaml").read_bytes()
    Path("params.yaml").write_text(settings.replace("depth: 1}", "depth: 1, object_map: true}"))
    try:
        tune.main()
        train.main()
        evaluate.main()
    finally:
        Path("params.yaml").write_text(settings)
        Path("data/tune/best.yaml").write_bytes(tuned)
    predictor = load_with(Path("data/model"), Inference.read(Path("data/reports/inference.json")))
    prepared = Prepared.open()
    outputs = predictor.outputs(prepared.image(prepared.names("test")[0]))
    assert outputs.object_map is not None
    assert outputs.object_map.std() > 0
    assert json.loads(Path("data/model/model.json").read_text())["network"]["object_map"] is True
