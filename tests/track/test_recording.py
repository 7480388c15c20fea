"""Write to a run, and read the result through MLflow's own client."""

import hashlib
import math
import re
import time
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from segline.params import flat
from segline.track.recording import MAX_PARAM, MAX_TAG, LoggedDataset, Run, StartedRun, metric_names, metrics_of_test
from segline.track.store import Store


def status(store: Store, run: Run) -> str:
    return str(store.client.get_run(run.id).info.status)


def test_params_are_named_like_the_settings() -> None:
    nested = {"train": {"learning_rate": 0.01, "schedule": {"kind": "poly"}}, "searched": ("train.momentum",)}
    assert flat(nested) == {
        "train.learning_rate": 0.01,
        "train.schedule.kind": "poly",
        "searched": ("train.momentum",),
    }


def test_many_and_long_params_and_tags_are_logged(store: Store, run: StartedRun) -> None:
    params = {f"p{number}": number for number in range(250)}
    run.params(params)
    run.params({"short": True, "long": "x" * 7000, "limit": "y" * MAX_PARAM})
    run.tag({f"t{number}": number for number in range(250)} | {"long": "x" * 9000})
    data = store.client.get_run(run.id).data
    assert {name: data.params[name] for name in params} == {name: str(value) for name, value in params.items()}
    assert data.params["limit"] == "y" * MAX_PARAM
    assert len(data.params["long"]) == MAX_PARAM
    assert data.params["long"].endswith("(see params.json)")
    assert "x" * 7000 in Path(store.client.download_artifacts(run.id, "params.json")).read_text()
    assert data.tags["t249"] == "249"
    assert data.tags["long"] == "x" * MAX_TAG


def test_metrics_of_an_epoch_are_logged_in_one_call(run: StartedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    log_batch = run.client.log_batch
    monkeypatch.setattr(run.client, "log_batch", lambda *args: (calls.append(args), log_batch(*args)))
    run.log(1, {"loss": 0.5, "learning_rate": 0.01})
    run.log(2, {"loss": np.float32(0.25), "mean_iou": math.nan})
    assert len(calls) == 2
    assert run.history("loss") == [(1, 0.5), (2, 0.25)]
    assert run.history("learning_rate") == [(1, 0.01)]
    assert math.isnan(run.history("mean_iou")[0][1])


def test_datasets_are_logged_as_inputs(store: Store, run: StartedRun) -> None:
    run.datasets(
        [LoggedDataset("train", "cells", "ab" * 16 + ".dir", "data/prepared"), LoggedDataset("test", "cells", "c", "x")]
    )
    run.datasets([])
    inputs = store.client.get_run(run.id).inputs.dataset_inputs
    assert {(entry.tags[0].value, entry.dataset.name, entry.dataset.digest) for entry in inputs} == {
        ("train", "cells", "ab" * 16 + ".dir"),
        ("test", "cells", "c"),
    }


def test_pictures_keep_their_pixels(store: Store, run: StartedRun) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    run.picture(image, "overlay")
    run.picture(image, "tile 1", step=3)
    series = [file.path for file in store.client.list_artifacts(run.id, "images") if file.path.endswith(".png")]
    assert len(series) == 1
    # The names that MLflow's log_image uses, by which its page finds the pictures.
    assert re.fullmatch(r"images/tile 1\+step\+3\+timestamp\+\d+\+[0-9a-f-]{36}\.png", series[0])
    assert "tile 1+step+3+" in series[0]
    for path in ("pictures/overlay.png", series[0]):
        stored = cv2.imread(store.client.download_artifacts(run.id, path))
        np.testing.assert_array_equal(stored[..., ::-1], image)


def test_a_repeated_picture_replaces_the_former_one(store: Store, run: StartedRun) -> None:
    for shade in (0, 9):
        run.picture(np.full((300, 20, 3), shade, np.uint8), "validation", step=3)
    files = sorted(store.client.list_artifacts(run.id, "images"), key=lambda file: str(file.path))
    assert [Path(file.path).suffix for file in files] == [".webp", ".png"]
    assert cv2.imread(store.client.download_artifacts(run.id, files[1].path)).max() == 9
    assert store.client.get_run(run.id).data.tags["mlflow.loggedImages"] == "True"


def test_files_and_folders_are_logged_as_artifacts(store: Store, run: StartedRun, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.txt").write_text("a")
    run.artifact(tmp_path / "f" / "a.txt")
    run.artifact(tmp_path / "f", "folder")
    assert Path(store.client.download_artifacts(run.id, "a.txt")).read_text() == "a"
    assert Path(store.client.download_artifacts(run.id, "folder/a.txt")).read_text() == "a"


def test_a_child_run_names_its_parent(store: Store, run: StartedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "MLFLOW_RUN_ID", run.id
    )  # as in an MLflow project; the new run must not become the run of that id
    with store.start_run("trial", {"lr": 1}, {"kind": "trial"}, parent=run.id) as child:
        pass
    assert child.id != run.id
    data = store.client.get_run(child.id).data
    assert data.tags["mlflow.parentRunId"] == run.id
    assert data.tags["kind"] == "trial"
    assert data.params == {"lr": "1"}


@pytest.mark.parametrize(
    ("error", "ends"),
    [(None, "FINISHED"), (ValueError("bad"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED")],
)
def test_the_status_of_a_run_depends_on_the_error(store: Store, error: BaseException | None, ends: str) -> None:
    with nullcontext() if error is None else pytest.raises(type(error)), store.start_run("train") as started:
        assert status(store, started) == "RUNNING"
        if error is not None:
            raise error
    assert status(store, started) == ends
    assert store.client.get_run(started.id).data.tags.get("error") == ("ValueError: bad" if ends == "FAILED" else None)


def test_writing_to_a_finished_run_keeps_its_status(store: Store) -> None:
    with store.start_run("train") as run:
        pass
    later = Run(store.client, run.id)
    later.log(0, {"test.mean_iou": 0.9})
    later.tag({"evaluated": True})
    assert status(store, run) == "FINISHED"
    assert later.history("test.mean_iou") == [(0, 0.9)]


def test_system_metrics_are_logged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with store.start_run("train") as run:
        run.watch_system()
        for _ in range(100):
            if "system/cpu_utilization_percentage" in store.client.get_run(run.id).data.metrics:
                break
            time.sleep(0.1)
    assert "system/cpu_utilization_percentage" in store.client.get_run(run.id).data.metrics


CLASS_NAMES = [
    ["background", "<10 µm", ">10 µm"],
    ["🧫", "🔬", "cell"],
    ["Cell", "cell", "CELL"],
    ["a b", "a_b", "a.b", "a-b"],
    ["x" * 200, "x" * 199 + "y", "x" * 300, "x" * 300 + "y"],
    ["a b", "a?b", "a_b_" + hashlib.md5(b"iou.a?b").hexdigest()[:8]],
    ["mean", "iou", "dice.cell"],
]


@pytest.mark.parametrize("classes", CLASS_NAMES)
def test_each_class_gets_its_own_metric(classes: list[str]) -> None:
    scores = {name: float(place) for place, name in enumerate(classes)}
    metrics = metrics_of_test({"mean_iou": 9.0, "iou": scores, "dice": scores})
    assert sorted(metrics.values()) == sorted([9.0, *scores.values(), *scores.values()])
    assert len({name.casefold() for name in metrics}) == len(metrics)
    for name in metrics:
        _validate_metric_name(name)
        assert len(name) <= 250


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=8))
def test_names_of_metrics_are_different(classes: list[str]) -> None:
    metrics = metric_names([f"iou.{name}" for name in classes])
    assert len({name.casefold() for name in metrics}) == len(classes)


def test_plain_class_names_are_not_changed() -> None:
    result = {"mean_iou": 1.0, "iou": {"background": 1.0, "cell_type-2": 1.0, "a b": 1.0, "größe": 1.0}}
    names = ["test_mean_iou", "test_iou_background", "test_iou_cell_type-2", "test_iou_a_b", "test_iou_größe"]
    assert list(metrics_of_test(result)) == names
    both = metrics_of_test({"iou": {"a b": 1.0, "a_b": 2.0}})
    assert both["test_iou_a_b"] == 2.0
