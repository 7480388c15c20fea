"""The project's store: made once, moved along, searched for the run that made a model."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.tracking.fluent import active_run

from segline.track import lineage
from segline.track.place import StoreError
from segline.track.store import MODEL_TAG, Store, open_store

OPEN = """
import sys
from segline.track.store import open_store
store = open_store()
with store.start_run(sys.argv[1]) as run:
    run.log(1, {"loss": 0.5})
print(store.experiment_id)
"""


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def text_cells(database: Path, text: str) -> int:
    """How often `text` occurs in the file of a database, wherever it is in it."""
    return database.read_bytes().count(text.encode())


def test_everything_is_kept_below_mlruns(store: Store, project: Path) -> None:
    with store.start_run("train") as run:
        run.picture(np.zeros((4, 4, 3), np.uint8), "tile")
    assert files(project) - {"dvc.yaml"} == {
        "mlruns/mlflow.db",
        "mlruns/open.lock",
        f"mlruns/artifacts/{run.id}/artifacts/pictures/tile.png",
        *(str(path.relative_to(project)) for path in project.glob("mlruns/mlflow-before-move-*.db")),
    }
    assert active_run() is None


def test_opened_again_it_is_the_same(store: Store) -> None:
    assert open_store().experiment_id == store.experiment_id
    names = [each.name for each in store.client.search_experiments()]
    assert len(names) == 2
    assert "Default" in names


def test_after_a_move_all_is_found_and_nothing_goes_to_the_old_place(
    store: Store, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.start_run("before") as before:
        before.picture(np.zeros((4, 4, 3), np.uint8), "tile")
    moved = project.with_name("somewhere else")
    project.rename(moved)
    monkeypatch.chdir(moved)
    again = open_store()
    with again.start_run("after") as after:
        after.picture(np.zeros((4, 4, 3), np.uint8), "tile")
    assert not project.exists()
    assert again.experiment_id == store.experiment_id
    for run in (before, after):
        assert (moved / "mlruns" / "artifacts" / run.id / "artifacts" / "pictures" / "tile.png").is_file()
        assert again.client.download_artifacts(run.id, "pictures/tile.png")
    assert text_cells(moved / "mlruns" / "mlflow.db", str(project)) == 0
    backups = list(moved.glob("mlruns/mlflow-before-move-*.db"))
    assert any(text_cells(backup, str(project)) for backup in backups)
    assert len(again.client.search_runs([again.experiment_id])) == 2


def test_a_queued_experiment_writes_to_the_main_checkout(
    store: Store, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = project / ".dvc" / "tmp" / "exps" / "tmp1"
    clone.mkdir(parents=True)
    (clone / "dvc.yaml").touch()
    monkeypatch.chdir(clone)
    monkeypatch.setenv("DVC_ROOT", str(project))
    with open_store().start_run("queued") as run:
        pass
    assert store.client.get_run(run.id).info.run_name == "queued"
    assert files(clone) == {"dvc.yaml"}


def test_processes_that_open_a_new_store_at_once(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    processes = [
        subprocess.Popen([sys.executable, "-c", OPEN, str(each)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
        for each in range(2)
    ]
    answers = [process.communicate()[0].decode().strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert len(set(answers)) == 1
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    assert {run.info.run_name for run in client.search_runs([answers[0]])} == {"0", "1"}


def test_experiment_deleted_on_the_page(store: Store) -> None:
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(StoreError, match="mlflow experiments restore"):
        open_store()


def test_team_server_gets_an_experiment_named_for_the_folder(
    project: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(made / "mlruns" / "mlflow.db", tmp_path / "team.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/team.db")
    store = open_store()
    assert not store.place.own
    assert store.client.get_experiment(store.experiment_id).name == project.name
    assert open_store().experiment_id == store.experiment_id
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    other = open_store()
    assert other.client.get_experiment(other.experiment_id).name == "ours"


def test_current_store_and_what_was_before(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
    with store.current():
        assert MlflowClient().get_experiment(store.experiment_id).experiment_id == store.experiment_id
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://team:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with store.current():
        pass
    assert "MLFLOW_TRACKING_URI" not in os.environ


@pytest.fixture
def model(project: Path) -> Path:
    """What DVC keeps of a training."""
    folder = project / "data" / "model"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    with (folder / "history.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", "loss", "mean_iou", "note"])
        writer.writerow([1, 0.5, "", "x"])
        writer.writerow([2, 0.25, 0.75, ""])
    (project / "best.yaml").write_text("train: {learning_rate: 3e-4, schedule: {kind: poly}}\nsearched: []\n")
    return folder


def test_run_that_made_a_model(store: Store, project: Path, model: Path) -> None:
    with store.start_run("train") as run:
        run.tag({MODEL_TAG: lineage.model_md5(model)})
    with store.start_run("train") as another:
        another.tag({MODEL_TAG: "another"})
    assert store.train_run(model, project / "best.yaml").id == run.id


def test_run_is_restored_once_from_what_dvc_keeps(store: Store, project: Path, model: Path) -> None:
    run = store.train_run(model, project / "best.yaml")
    assert store.train_run(model, project / "best.yaml").id == run.id
    data = store.client.get_run(run.id).data
    assert data.tags["restored"] == "true"
    assert data.tags[MODEL_TAG] == lineage.model_md5(model)
    assert data.params == {"train.learning_rate": "0.0003", "train.schedule.kind": "poly", "searched": "[]"}
    assert run.history("loss") == [(1, 0.5), (2, 0.25)]
    assert run.history("mean_iou") == [(2, 0.75)]
    assert "note" not in data.metrics
    assert store.client.get_run(run.id).info.status == "FINISHED"
