"""Open the store of a project: created once, relocated with the folder, searched for the run of a model."""

import contextlib
import csv
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Self

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.tracking.fluent import active_run

import segline.track.store
from segline import process
from segline.track import lineage
from segline.track.location import Place, StoreError
from segline.track.recording import StartedRun, Status
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
    """Count the occurrences of `text` in the file of a database."""
    return database.read_bytes().count(text.encode())


def test_the_store_writes_below_mlruns_only(store: Store, project: Path) -> None:
    with store.start_run("train") as run:
        run.picture(np.zeros((4, 4, 3), np.uint8), "tile")
    assert files(project) - {"dvc.yaml"} == {
        "mlruns/mlflow.db",
        "mlruns/open.lock",
        f"mlruns/artifacts/{run.id}/artifacts/pictures/tile.png",
        *(str(path.relative_to(project)) for path in project.glob("mlruns/mlflow-before-move-*.db")),
    }
    assert active_run() is None


def test_a_reopened_store_has_the_same_experiment(store: Store) -> None:
    assert open_store().experiment_id == store.experiment_id
    names = [experiment.name for experiment in store.client.search_experiments()]
    assert len(names) == 2
    assert "Default" in names


def test_a_moved_project_uses_its_new_folder_only(store: Store, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_several_processes_open_a_new_store_at_once(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(number)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
        )
        for number in range(2)
    ]
    answers = [process.communicate()[0].decode().strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert len(set(answers)) == 1
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    assert {run.info.run_name for run in client.search_runs([answers[0]])} == {"0", "1"}


def test_a_deleted_experiment_is_reported(store: Store) -> None:
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
    shared = open_store()
    assert shared.client.get_experiment(shared.experiment_id).name == "ours"


def test_current_restores_the_former_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
    with store.current():
        assert MlflowClient().get_experiment(store.experiment_id).experiment_id == store.experiment_id
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://team:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with store.current():
        pass
    assert "MLFLOW_TRACKING_URI" not in os.environ


@pytest.mark.parametrize("address", ["http://me:tiger-73@127.0.0.1:9", "file:///nowhere", "bogus://x"])
def test_an_unusable_address_is_reported(store: Store, monkeypatch: pytest.MonkeyPatch, address: str) -> None:  # noqa: ARG001
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(StoreError) as raised:
        open_store()
    assert str(raised.value).startswith(
        f"MLFLOW_TRACKING_URI = {address.replace('tiger-73', '...')}: MLflow cannot store"
    )
    assert "tiger-73" not in str(raised.value)


@pytest.fixture
def model(project: Path) -> Path:
    """Write the files that DVC keeps of a training."""
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


def test_find_returns_the_run_of_a_model(store: Store, project: Path, model: Path) -> None:
    with store.start_run("train") as run:
        run.tag({MODEL_TAG: lineage.model_md5(model)})
    with store.start_run("train") as another:
        another.tag({MODEL_TAG: "another"})
    assert store.train_run(model, project / "best.yaml").id == run.id


def test_a_missing_run_is_restored_once_from_files_of_dvc(store: Store, project: Path, model: Path) -> None:
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


def status(store: Store, run_id: str) -> str:
    return str(store.client.get_run(run_id).info.status)


@pytest.mark.parametrize("end", ["KILLED", "FAILED", None])
def test_an_unfinished_run_is_resumed_without_repeated_steps(
    store: Store, under_way: Callable[..., StartedRun], end: Status | None
) -> None:
    first = under_way("train", {"train.epochs": 3}, key="k")
    first.log(1, {"loss": 0.5, "validation_loss": 0.5})
    first.tag({"error": "the disk was full"})
    if end is not None:
        first.finish(end)
    with store.start_run("train", {"train.epochs": 3}, {"env.threads": 1}, key="k") as again:
        assert again.id == first.id
        assert status(store, again.id) == "RUNNING"
        again.log(1, {"loss": 9, "validation_loss": 9})
        again.log(2, {"loss": 0.25, "validation_loss": 0.25})
    assert again.history("loss") == again.history("validation_loss") == [(1, 0.5), (2, 0.25)]
    assert "error" not in store.client.get_run(again.id).data.tags
    assert status(store, again.id) == "FINISHED"


def test_a_finished_run_is_resumed_by_its_id_only(store: Store) -> None:
    with store.start_run("train", key="k") as first:
        pass
    with store.start_run("train", key="k") as second:
        pass
    with store.start_run("train", key="other", former=first.id) as other:
        pass
    with store.start_run("train") as without:
        pass
    assert len({first.id, second.id, other.id, without.id}) == 4
    with store.start_run("train", key="k", former=first.id) as again:
        assert again.id == first.id
    store.client.delete_run(first.id)
    with store.start_run("train", key="k", former=first.id) as new:
        assert new.id != first.id


def test_on_a_server_two_checkouts_do_not_share_a_run(store: Store) -> None:
    shared = [Store(Place(Path(root), "http://team"), store.client, store.experiment_id) for root in ("/a", "/b")]
    runs = []
    for checkout in (*shared, *shared):
        with checkout.start_run("train", key=checkout.here("k")) as run:
            run.finish("KILLED")
        runs.append(run.id)
    assert runs[:2] == runs[2:]
    assert runs[0] != runs[1]


LEFT = """
import os
from segline.track.store import open_store
with open_store().start_run("a") as run:
    print(run.id, flush=True)
    os._exit(0)
"""


def test_runs_of_dead_processes_are_killed(store: Store, under_way: Callable[..., StartedRun]) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", LEFT],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    elsewhere = under_way("b", tags={"process": "another-host 1 1"}).id
    mine = under_way("c").id
    store.end_stale()
    assert [status(store, run) for run in (killed, elsewhere, mine)] == ["KILLED", "RUNNING", "RUNNING"]


def test_a_child_run_is_resumed_within_its_parent(store: Store, under_way: Callable[..., StartedRun]) -> None:
    parent, other = under_way("study"), under_way("study")
    with store.start_run("trial 0", {"rate": 1}, parent=parent.id, key="a/0", again=True) as first:
        first.log(1, {"loss": 2.0})
        first.finish("KILLED")
    assert status(store, first.id) == "KILLED"
    with store.start_run("trial 0", {"rate": 1}, parent=parent.id, key="a/0", again=True) as again:
        assert (again.id, status(store, first.id)) == (first.id, "RUNNING")
        again.log(1, {"loss": 2.0})
        again.log(2, {"loss": 1.0})
    assert status(store, first.id) == "FINISHED"
    assert again.history("loss") == [(1, 2.0), (2, 1.0)]
    assert under_way("trial 0", parent=parent.id, key="a/0", again=True).id == first.id
    assert under_way("trial 0", parent=other.id, key="a/0", again=True).id != first.id


def test_a_run_keeps_its_key_after_a_kill(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segline.track.recording.Run.params", killed)
    with pytest.raises(KeyboardInterrupt), store.start_run("trial 0", key="a/0"):
        pass
    assert store.latest("a/0") is not None
    assert store.latest("b/0") is None


class SignalAtLine:
    """Send this process a SIGTERM before the traced line `number`, counted in order of execution."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, _: object) -> Self | None:
        file, caller = frame.f_code.co_filename, frame.f_back
        entered = file == contextlib.__file__ and caller and caller.f_code is a_study.__code__
        if not entered and file not in (segline.track.store.__file__, process.__file__, __file__):
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGTERM)
        return self


def a_study(store: Store) -> None:
    with store.start_run("study", {"rate": 1}, key="a", again=True) as run:
        run.tag({"done": True})


@pytest.mark.parametrize("goes_on", [False, True], ids=["new", "goes on"])
def test_a_signal_at_any_line_leaves_no_run_running(store: Store, goes_on: bool) -> None:
    former = signal.getsignal(signal.SIGTERM)
    gc.freeze()  # otherwise each collection below would visit the objects of earlier tests
    try:
        for number in count(1):
            if goes_on:
                a_study(store)
            signal.signal(signal.SIGTERM, process.Terminate())
            sent = SignalAtLine(number)
            with contextlib.suppress(SystemExit):
                sys.settrace(sent)
                a_study(store)
                sys.settrace(None)
            gc.collect()  # of a block that was never entered
            assert store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'") == []
            if sent.left > 0:
                break
            for run in store.client.search_runs([store.experiment_id]):
                store.client.delete_run(run.info.run_id)
    finally:
        gc.unfreeze()
        signal.signal(signal.SIGTERM, former)
    assert number > 30
