"""The list of runs: read back from the table and the JSON, against what was logged."""

import json
import math
import platform
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from segline.commands import runs
from segline.track.recent import Row
from segline.track.store import open_store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without runs."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("project")
def test_runs_are_listed_newest_first_and_stale_ones_are_ended() -> None:
    said: list[str] = []
    runs.main(5, False, Console(file=StringIO()), said.append)
    assert said == ["no runs yet; `make run` or `dvc repro` makes the first"]
    store = open_store()
    with store.start_run("train") as done:
        done.log(1, {"validation_mean_iou": 0.5, "loss": math.nan})
        done.log(0, {"test_mean_iou": 0.75})
    with (
        store.start_run("[red]", tags={"process": "elsewhere 1 1"}) as left,
        store.start_run("killed", tags={"process": f"{platform.node()} 1 1"}),
    ):
        text = StringIO()
        runs.main(2, False, Console(file=text, width=120), said.append)
        lines = [
            [cell.strip() for cell in line.split("│")[1:-1]] for line in text.getvalue().splitlines() if "│" in line
        ]
        assert [(line[1], line[2]) for line in lines] == [("killed", "KILLED"), ("[red]", "RUNNING")]
        assert lines[1][0] == left.id[:8]
        runs.main(5, True, Console(file=StringIO()), said.append)
        listed = {row["id"]: row for row in json.loads(said[-1])}
        assert len(listed) == 3
        assert listed[done.id]["state"] == "FINISHED"
        assert listed[done.id]["metrics"] == {"validation_mean_iou": 0.5, "test_mean_iou": 0.75, "loss": None}
        assert listed[left.id]["ended"] is None


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"validation_mean_iou": 0.5, "test_mean_iou": 0.75}, "test_mean_iou 0.7500"),
        ({"validation_mean_iou": 0.5, "loss": 1}, "validation_mean_iou 0.5000"),
        ({"loss": 1.0}, ""),
    ],
)
def test_the_main_metric(metrics: dict[str, float], expected: str) -> None:
    assert runs.metric(Row("a" * 32, "train", "FINISHED", 0, 1, metrics, None)) == expected


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (90, "1.5 min"), (5400, "1.5 h"), (129600, "1.5 d")]
)
def test_a_duration_has_one_unit(seconds: float, said: str) -> None:
    assert runs.duration(seconds) == said
