"""List runs as a table and as JSON, and compare with the logged values."""

import json
import math
import platform
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from segline.commands import runs
from segline.track.store import open_store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project without runs the working directory."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("project")
def test_runs_are_listed_newest_first_and_stale_runs_are_killed() -> None:
    output: list[str] = []
    runs.main(5, False, Console(file=StringIO()), output.append)
    assert output == ["no runs yet; start the first with `make run` or `dvc repro`"]
    store = open_store()
    with store.start_run("train") as done:
        done.log(1, {"validation_mean_iou": 0.5, "loss": math.nan})
        done.log(0, {"test_mean_iou": 0.75})
    with (
        store.start_run("[red]", tags={"process": "elsewhere 1 1"}) as left,
        store.start_run("killed", tags={"process": f"{platform.node()} 1 1"}),
    ):
        text = StringIO()
        runs.main(2, False, Console(file=text, width=120), output.append)
        lines = [
            [cell.strip() for cell in line.split("│")[1:-1]] for line in text.getvalue().splitlines() if "│" in line
        ]
        assert [(line[1], line[2]) for line in lines] == [("killed", "KILLED"), ("[red]", "RUNNING")]
        assert lines[1][0] == left.id[:8]
        runs.main(5, True, Console(file=StringIO()), output.append)
        listed = {row["id"]: row for row in json.loads(output[-1])}
        assert len(listed) == 3
        assert listed[done.id]["state"] == "FINISHED"
        assert listed[done.id]["metrics"] == {"validation_mean_iou": 0.5, "test_mean_iou": 0.75, "loss": None}
        assert listed[left.id]["ended"] is None


@pytest.mark.usefixtures("project")
def test_a_pruned_trial_is_listed_as_pruned_until_it_is_resumed() -> None:
    store = open_store()
    for outcome in ("pruned", ""):
        with store.start_run(f"trial {outcome}", key=f"key {outcome}") as trial:
            if outcome:
                trial.tag({"outcome": outcome})
            trial.finish("KILLED")
    states = {row.name: row.state for row in runs.latest(store, 2)}
    assert states == {"trial pruned": "pruned", "trial ": "KILLED"}
    assert len(store.client.search_runs([store.experiment_id], "tags.outcome = 'pruned'")) == 1
    with store.start_run("trial pruned", key="key pruned"):
        pass
    assert {row.name: row.state for row in runs.latest(store, 2)} == {"trial pruned": "FINISHED", "trial ": "KILLED"}
    assert not store.client.search_runs([store.experiment_id], "tags.outcome = 'pruned'")


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"validation_mean_iou": 0.5, "test_mean_iou": 0.75}, "test_mean_iou 0.7500"),
        ({"validation_mean_iou": 0.5, "loss": 1}, "validation_mean_iou 0.5000"),
        ({"loss": 1.0}, ""),
    ],
)
def test_the_test_metric_takes_precedence(metrics: dict[str, float], expected: str) -> None:
    assert runs.metric(runs.Row("a" * 32, "train", "FINISHED", 0, 1, metrics, None)) == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (90, "1.5 min"), (5400, "1.5 h"), (129600, "1.5 d")]
)
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    assert runs.duration(seconds) == text
