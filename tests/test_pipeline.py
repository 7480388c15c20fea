"""The whole pipeline on a few small images: run, changed, moved, loaded elsewhere."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tests.checkout import SMALL, STAGES, Project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """Copy the finished project to another folder, so that each test may change it."""
    shutil.copytree(finished.folder, tmp_path / "moved", symlinks=True)
    return Project(tmp_path / "moved")


def test_the_pipeline_ends_with_metrics_and_a_registered_champion(finished: Project) -> None:
    result = finished.json("data/reports/test.json")
    assert {"mean_iou", "pixel_error", "ap_50"} <= result.keys()
    assert set(result["iou"]) == {"background", *list(result["iou"])[1:]}  # type: ignore[call-overload]
    said = finished.run("segline", "summary", PYTHONPATH="src")
    assert "cells version 1 @challenger @champion" in said
    assert "ui" in said.splitlines()[-1]
    history = [json.loads(line) for line in (finished.folder / "registry.jsonl").read_text().splitlines()]
    assert [line["action"] for line in history] == ["register", "promote"]


def test_the_registered_model_scores_as_in_evaluate(project: Project) -> None:
    """Loaded from the registry, with its own code and through image files, it gets the metrics of test.json."""
    project.run("segline", "models", "compare", "@champion", "1", PYTHONPATH="src")
    result, metrics = project.json("data/reports/test.json"), project.json("comparison/1-1/comparison.json")["metrics"]
    assert {"mean_iou", "pixel_error", "ap_50", "seg", "pq"} <= metrics.keys()  # type: ignore[attr-defined]
    for name, row in metrics.items():  # type: ignore[attr-defined]
        assert row["first"][0] == pytest.approx(result[name], abs=1e-12), name
    assert "comparison" not in project.run("git", "status", "--porcelain")


def test_a_second_run_runs_no_stage(finished: Project) -> None:
    assert "up to date" in finished.run("dvc", "repro")


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("runtime", {"workers": 3, "device": "cpu", "progress": "off", "threads": 2}, []),
        ("weights", {"sigma": 4}, ["weights"]),
        ("evaluate", {"views": 8}, ["evaluate"]),
        ("gate", {"min_mean_iou": 0.01}, ["register"]),
        ("prepare", {"seed": 1}, ["prepare"]),
        ("train", {"learning_rate": 0.02}, ["tune"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_changed_setting_runs_first_the_stage_that_reads_it(
    finished: Project, section: str, values: dict[str, object], expected: list[str]
) -> None:
    before = (finished.folder / "params.yaml").read_bytes()
    try:
        finished.set(**{section: values})
        assert finished.would_run() == expected
    finally:
        (finished.folder / "params.yaml").write_bytes(before)


def test_a_changed_setting_runs_the_later_stages_and_no_earlier_one(project: Project) -> None:
    project.set(evaluate={"views": 8})
    said = project.run("dvc", "repro")
    assert [stage for stage in STAGES if f"Running stage '{stage}'" in said] == ["evaluate", "register"]


def test_the_champion_answers_as_evaluate_did_without_segline_after_a_move(project: Project, tmp_path: Path) -> None:
    project.run(
        "segline", "summary", PYTHONPATH="src"
    )  # the first command after a move rewrites the paths in the store
    project.check_answers("models:/cells@champion", tmp_path)


def test_predict_labels_files_with_the_champion(project: Project, tmp_path: Path) -> None:
    image = next((project.folder / "data" / "raw" / "cells" / "images").iterdir())
    (tmp_path / "no image.png").write_text("hello")
    out = tmp_path / "out"
    command = ["segline", "predict", "--model", "models:/cells@champion", "--out", str(out), "--overlays"]
    command += ["--instances", str(image)]
    project.run(*command, PYTHONPATH="src")
    with Image.open(image) as raw, Image.open(out / f"{image.stem}.png") as labels:
        assert raw.size == labels.size
    assert (out / f"{image.stem}_overlay.png").exists()
    assert (out / f"{image.stem}_instances.png").exists()
    with pytest.raises(AssertionError, match=r"no image\.png: not a readable"):
        project.run(*command, str(tmp_path / "no image.png"), PYTHONPATH="src")


def test_the_default_settings_are_planned_and_then_used(project: Project, repository: Path) -> None:
    shutil.copy(repository / "params.yaml", project.folder)
    project.set(**{name: SMALL[name] for name in ("sample", "gate", "runtime")}, plan={"minutes": 0.05})
    said = project.run("dvc", "repro")
    assert next(stage for stage in STAGES if f"Running stage '{stage}'" in said) == "plan"
    assert "cells version 2 (@challenger) is new" in said
    plan, best = (
        YAML(typ="safe").load(project.folder / "data" / name) for name in ("plan/plan.yaml", "tune/best.yaml")
    )
    assert best["model"] == {"name": "unet", "encoder": "none", "encoder_weights": "", **plan["model"]}
    assert {name: best["train"][name] for name in ("tile", "epochs", "amp")}.items() <= plan["train"].items()
    assert project.json("data/tune/search.json")["trials"]
    assert "up to date" in project.run("dvc", "repro")


def test_two_runs_make_the_same_bytes(project: Project) -> None:
    before = (project.folder / "dvc.lock").read_text()
    project.run("dvc", "repro", "--force", "--no-run-cache")
    assert (project.folder / "dvc.lock").read_text() == before


def test_pictures_and_metrics_are_in_the_run(finished: Project) -> None:
    script = (
        "import json; from segline.track.store import open_store; s = open_store(); "
        "run = s.client.search_runs([s.experiment_id])[0]; "
        "names = [f.path for top in ('', 'images', 'pictures', 'checkpoints', 'reports') "
        "for f in s.client.list_artifacts(run.info.run_id, top or None)]; "
        "print(json.dumps([run.data.params, run.data.metrics, run.data.tags, names, run.info.status]))"
    )
    said = finished.run(sys.executable, "-c", script, PYTHONPATH="src")
    params, metrics, tags, names, status = json.loads(said.splitlines()[-1])
    assert status == "FINISHED"
    best = YAML().load(finished.folder / "data/tune/best.yaml")
    assert params["train.learning_rate"] == str(best["train"]["learning_rate"])
    assert {
        "loss",
        "validation_loss",
        "learning_rate",
        "momentum",
        "test_mean_iou",
        "tiles_per_second",
    } <= metrics.keys()
    assert {"git.commit", "git.dirty", "data.md5", "weights.md5", "model.md5", "dvc.stage"} <= tags.keys()
    assert {"checkpoints/last", "pictures/test.png", "reports/test.json"} <= set(names)


def test_predictions_are_label_images_and_each_object_has_one_class(finished: Project) -> None:
    for file in (finished.folder / "data" / "reports" / "predictions").iterdir():
        with Image.open(file) as image:
            assert image.mode == "L"
            labels = np.array(image)
        with Image.open(file.parents[1] / "instances" / file.name) as image:
            assert image.mode == "I;16"
            objects = np.array(image)
        assert set(np.unique(labels)) <= {0, 1, 2}
        assert np.array_equal(objects > 0, labels > 0)
        assert all(np.unique(labels[objects == number]).size == 1 for number in range(1, objects.max() + 1))


def test_ap_can_be_checked_with_the_instance_images(finished: Project) -> None:
    folder = finished.folder / "data"
    total = np.zeros(3, int)
    for file in (folder / "reports" / "instances").iterdir():
        truth = np.load(folder / "prepared" / "instances" / f"{file.stem}.npy")
        with Image.open(file) as image:
            found = np.array(image)
        areas = [np.unique(ids, return_counts=True) for ids in (truth, found)]
        area, other = (dict(zip(*each, strict=True)) for each in areas)
        pairs, shared = np.unique(np.stack([truth.ravel(), found.ravel()]), axis=1, return_counts=True)
        both = zip(*pairs.tolist(), shared.tolist(), strict=True)
        tp = sum(a > 0 and b > 0 and 2 * n >= area[a] + other[b] - n for a, b, n in both)
        total += tp, len(other) - 1 - tp, len(area) - 1 - tp
    assert finished.json("data/reports/test.json")["ap_50"] == pytest.approx(total[0] / total.sum())


def test_an_illegal_tile_is_refused_before_anything_is_trained(project: Project) -> None:
    project.set(train={"tile": 99})
    done = project.attempt("dvc", "repro", "tune")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "params.yaml: train.tile = 99 px does not fit valid padding" in said
    assert "use 96 or 100 px" in said
    assert "Traceback" not in said
