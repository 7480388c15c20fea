"""Stage tune on a tiny project: its outputs and runs, also after it was killed."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from ruamel.yaml import YAML

from segline import files, params
from segline.model.geometry import SizeError
from segline.stages import prepare, sample, tune, weights
from segline.track.store import open_store
from segline.train import loop
from segline.train.search import OvertimeError
from segline.train.space import SpaceError
from segline.train.studies import StudyError

SETTINGS: dict[str, Any] = {
    "sample": {"images": 5, "min_size": 64, "max_size": 64, "seed": 3},
    "prepare": {"val_percent": 20, "test_percent": 20},
    "model": {"width": 2, "depth": 1},
    "train": {
        "epochs": 6,
        "tiles_per_epoch": 4,
        "batch_size": 2,
        "tile": 32,
        "validation_tiles": 2,
        "learning_rate": 0.5,  # so high that whatever is drawn is better
    },
    "tune": {
        "trials": 3,
        "epochs": 2,
        "objective": "minimize loss",
        "startup_trials": 2,
        "pruner": "none",
        "space": {
            "train.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
            "train.schedule.kind": {"choices": ["poly", "step"]},
            "train.schedule.gamma": {"low": 0.1, "high": 0.7},
            "model.width": {"choices": [2, 3]},
        },
    },
    "runtime": {"progress": "off", "threads": 1},
}
OUTPUTS = ("best.yaml", "trials.csv", "search.json", "pictures/history.png", "pictures/slices.png")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project in which the stages before tune have run."""
    root = tmp_path_factory.mktemp("ready")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        (root / "dvc.yaml").touch()
        write(root)
        for stage in (sample, prepare, weights):
            stage.main()
        open_store()  # once: a new one takes seconds
    return root


def write(folder: Path, **changes: dict[str, Any]) -> None:
    """Write params.yaml with some settings changed."""
    content = {name: {**values, **changes.get(name, {})} for name, values in SETTINGS.items()}
    YAML().dump(content, folder / "params.yaml")


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def searched(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project in which an undisturbed search has run."""
    root = tmp_path_factory.mktemp("searched") / "project"
    shutil.copytree(ready, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        tune.main()
    return root


@pytest.fixture
def project(ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the project before its search; the copy is the working directory."""
    shutil.copytree(ready, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def done(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the project after its search to another folder; the copy is the working directory."""
    shutil.copytree(searched, tmp_path / "done")
    monkeypatch.chdir(tmp_path / "done")
    return tmp_path / "done"


def outputs(project: Path) -> dict[str, bytes]:
    return {name: (project / "data/tune" / name).read_bytes() for name in OUTPUTS}


def runs() -> dict[str, Run]:
    """Return the runs of the store by name, each name once."""
    store = open_store()
    held = store.client.search_runs([store.experiment_id])
    assert len({run.info.run_name for run in held}) == len(held)
    return {run.info.run_name: run for run in held}


def test_the_best_of_the_trials_is_what_train_reads(done: Path) -> None:
    result, rows = files.read_json(done / "data/tune/search.json"), files.read_table(done / "data/tune/trials.csv")
    assert list(rows["number"]) == ["0", "1", "2"]
    assert set(rows["state"]) == {"finished"}
    losses = rows["value"].astype(float)
    assert losses.idxmin() == result["best_trial"] > 0
    assert losses.min() == result["best_value"] < result["own_value"] == losses[0]
    assert f"{losses[0] - losses.min():.4f} better than" in result["said"]
    best = params.read_tuned()
    winner = rows.iloc[result["best_trial"]]
    assert best.train.learning_rate == float(winner["train.learning_rate"])
    assert best.train.schedule.kind == winner["train.schedule.kind"]
    assert str(best.model.width) == winner["model.width"]
    assert best.train.epochs == 6
    drawn = {name for name in SETTINGS["tune"]["space"] if winner[name]}
    assert set(best.searched) == drawn


def test_each_trial_is_a_run_below_the_run_of_the_search(done: Path) -> None:
    found = runs()
    assert set(found) == {"study", "trial 0", "trial 1", "trial 2"}
    study = found.pop("study")
    client = open_store().client
    for run in found.values():
        assert run.data.tags["mlflow.parentRunId"] == study.info.run_id
        assert (run.info.status, run.data.tags["optuna.state"]) == ("FINISHED", "COMPLETE")
        assert run.data.params["train.epochs"] == "2"
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "validation_loss")]
        assert steps == [1, 2]
    assert study.info.status == "FINISHED"
    pictures = {artifact.path for artifact in client.list_artifacts(study.info.run_id, "tune/pictures")}
    assert {f"tune/pictures/{name}.png" for name in ("history", "importances", "slices")} <= pictures
    assert done.exists()


def test_the_same_search_elsewhere_writes_the_same_bytes(project: Path, searched: Path) -> None:
    tune.main()
    assert outputs(project) == outputs(searched)


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("at", [1, 3, 5])
def test_an_interrupted_search_continues_in_the_same_runs(
    project: Path, searched: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    judge, judged = loop.evaluate, []

    def cut(*arguments: Any) -> Any:
        judged.append(None)
        if len(judged) == at:
            raise Killed
        return judge(*arguments)

    monkeypatch.setattr(loop, "evaluate", cut)
    with pytest.raises(Killed):
        tune.main()
    assert not (project / "data/tune").exists()
    tune.main()
    # All epochs once, and those of the trial that was cut short once more.
    assert len(judged) == 6 + 1 + (at - 1) % 2
    assert outputs(project) == outputs(searched)
    found = runs()
    assert set(found) == {"study", "trial 0", "trial 1", "trial 2"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    client = open_store().client
    for name, run in found.items():
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]
        assert steps == ([] if name == "study" else [1, 2])


def test_another_number_of_trials_trains_only_the_missing_ones(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, trained = outputs(done), []
    fit = loop.fit

    def counted(*arguments: Any, **named: Any) -> Any:
        trained.append(None)
        return fit(*arguments, **named)

    monkeypatch.setattr(loop, "fit", counted)
    write(done, tune={"trials": 5})
    tune.main()
    assert len(trained) == 2
    assert len(files.read_table(done / "data/tune/trials.csv")) == 5
    write(done, tune={"trials": 3})
    tune.main()
    assert len(trained) == 2
    assert outputs(done) == before
    assert len(runs()) == 6


def test_a_search_whose_time_is_used_up_continues_with_more_time(
    project: Path, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, tune={"minutes": 1e-6})  # trial 0 alone takes longer
    tune.main()
    said = capsys.readouterr().err
    assert "tune: 1 of 3 trials; tune.minutes = 1e-06 is used up\n" in said
    assert files.read_json(project / "data/tune/search.json")["trials"] == 1
    assert params.read_tuned().searched == ()
    write(project)
    tune.main()
    assert "1 of 3 trials are done" in capsys.readouterr().err
    assert outputs(project) == outputs(searched)


def test_a_changed_setting_or_changed_code_starts_another_search(
    done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(done, tune={"trials": 1, "seed": 1}, train={"tiles_per_epoch": 2})
    tune.main()
    assert "0 of 1 trials are done" in capsys.readouterr().err
    write(done)
    tune.main()
    assert "3 of 3 trials are done" in capsys.readouterr().err
    monkeypatch.setattr("segline.track.lineage.code", lambda stage: {stage: "other code"})
    write(done, tune={"trials": 1})
    tune.main()
    assert "0 of 1 trials are done" in capsys.readouterr().err


def test_pruned_and_diverged_trials_are_not_failed_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, tune={"trials": 5})
    monkeypatch.setattr("segline.train.search.OpenTrial.report", _second_is_worse)
    monkeypatch.setattr("segline.train.search.OpenTrial.check_time", _fifth_takes_too_long)
    fit, begun = loop.fit, []

    def diverging(*arguments: Any, **named: Any) -> Iterator[Any]:
        begun.append(None)
        if len(begun) == 3:
            raise loop.TrainingError("the loss is not finite")
        yield from fit(*arguments, **named)

    monkeypatch.setattr(loop, "fit", diverging)
    tune.main()
    rows = files.read_table(project / "data/tune/trials.csv")
    assert list(rows["state"]) == ["finished", "pruned", "failed", "finished", "pruned"]
    assert list(rows["epochs"]) == ["2", "1", "0", "2", "0"]
    assert rows["reason"][2] == "the loss is not finite"
    found = runs()
    states = {name: (run.info.status, run.data.tags.get("optuna.state")) for name, run in found.items()}
    assert states == {
        "study": ("FINISHED", None),
        "trial 0": ("FINISHED", "COMPLETE"),
        "trial 1": ("KILLED", "PRUNED"),
        "trial 2": ("KILLED", "PRUNED"),
        "trial 3": ("FINISHED", "COMPLETE"),
        "trial 4": ("KILLED", "PRUNED"),
    }
    assert found["trial 2"].data.tags["error"] == "the loss is not finite"


def _second_is_worse(asked: Any, epoch: loop.Epoch) -> bool:
    asked._values.append(epoch.validation_loss)
    asked._trial.report(epoch.validation_loss, epoch.epoch)
    return bool(asked.number == 1)


def _fifth_takes_too_long(asked: Any) -> None:
    if asked.number == 4:
        raise OvertimeError


def test_without_a_search_the_settings_are_those_of_params_yaml(project: Path) -> None:
    write(project, tune={"trials": 0})
    tune.main()
    best = params.read_tuned()
    assert (best.train, best.searched) == (params.read(params.Train), ())
    assert files.read_json(project / "data/tune/search.json") == {"trials": 0}
    assert len(files.read_table(project / "data/tune/trials.csv")) == 0
    assert list((project / "data/tune/pictures").iterdir()) == []
    assert runs() == {}
    code = (
        "import sys; from segline.stages import tune; tune.main(); "
        "print([name for name in ('torch', 'optuna', 'mlflow', 'pandas') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (
            {
                "tune": {"space": {"train.schedule.power": {"low": 1, "high": 2}}},
                "train": {"schedule": {"kind": "step"}},
            },
            SpaceError,
            "tune.space.train.schedule.power has no effect with train.schedule.kind = step",
        ),
        (
            {"tune": {"space": {"model.depth": {"low": 1, "high": 6}}}},
            SizeError,
            "with model.depth = 6 train.tile = 32 px does not fit",
        ),
        (
            {"tune": {"space": {"weights.w0": {"low": 1, "high": 6}}}},
            params.ParamsError,
            "tune.space.weights.w0 = .*belongs to a stage before the search",
        ),
    ],
)
def test_an_impossible_search_is_refused_at_once(
    project: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    write(project, **changes)
    with pytest.raises(error, match=said):
        tune.main()
    assert runs() == {}


def test_a_worker_that_joins_trains_the_remaining_trials_and_writes_nothing(
    project: Path, searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = tune._train
    monkeypatch.setattr(tune, "_train", killed)
    with pytest.raises(Killed):
        tune.main()
    monkeypatch.setattr(tune, "_train", train)
    tune.main(str(journal(project)))
    assert not (project / "data/tune").exists()
    monkeypatch.setattr(tune, "_train", killed)  # nothing is left to train
    tune.main()
    assert outputs(project) == outputs(searched)
    assert len(runs()) == 4


def killed(*_: Any) -> None:
    raise Killed


def test_joining_a_search_of_other_settings_is_refused(done: Path) -> None:
    write(done, tune={"seed": 5})
    with pytest.raises(StudyError, match="no search in the storage has the settings, data and code of this folder"):
        tune.main(str(journal(done)))


def journal(project: Path) -> Path:
    (found,) = (project / "mlruns/studies").glob("*.journal")
    return found


def test_a_killed_search_is_completed_with_the_same_bytes(project: Path, searched: Path) -> None:
    process = start(project)
    wait_for(lambda: begun(project, 1), process)
    process.kill()
    process.communicate()
    tune.main()
    assert outputs(project) == outputs(searched)
    assert {run.info.status for run in runs().values()} == {"FINISHED"}


def start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "segline", "tune", *arguments]
    return subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(3600):
        if condition():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("nothing happened for three minutes")


def begun(project: Path, trial: int) -> bool:
    return any((project / "mlruns/studies").glob(f"*/trial-{trial}.lock"))
