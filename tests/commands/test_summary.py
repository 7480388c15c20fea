"""`segline summary`: its table, its warnings, and its message before the first run."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from segline.commands import summary

RESULT = {
    "mean_iou": 0.875,
    "pixel_error": 0.03125,
    "images": 3,
    "iou": {"background": 0.95, "round": 0.875, "rare": None},
    "dice": {"background": 0.97, "round": 0.93, "rare": None},
    "ap_50": 0.5,
}


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/reports of a finished pipeline run, in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "reports"
    folder.mkdir(parents=True)
    (folder / "test.json").write_text(json.dumps(RESULT))
    (folder / "registration.json").write_text(json.dumps({"name": "cells", "version_md5": "abc"}))
    return folder


@pytest.mark.usefixtures("reports")
def test_the_summary_shows_metrics_version_and_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "registered", lambda name, md5: f"{name} {md5} version 1 @champion")
    monkeypatch.setenv("VIRTUAL_ENV", "active")
    output = StringIO()
    summary.main(Console(file=output, width=80))
    lines = [line.split() for line in output.getvalue().splitlines()]
    assert ["cells:", "3", "test", "images"] in lines
    assert ["│", "round", "│", "0.8750", "│", "0.9300", "│"] in lines
    assert ["│", "rare", "│", "-", "│", "-", "│"] in lines
    assert lines[-3:] == [
        ["mean_iou", "0.8750", "pixel_error", "0.0312", "ap_50", "0.5000"],
        ["cells", "abc", "version", "1", "@champion"],
        ["next:", "segline", "ui"],
    ]


def test_a_collapsed_training_is_warned_about(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "registered", lambda name, md5: f"{name} {md5} version 1")
    model = reports.parent / "model"
    model.mkdir()
    for warning, expected in [
        (None, ""),
        ("every pixel is [bold] (class 0)", "warning from the training: every pixel is [bold] (class 0)"),
    ]:
        (model / "metrics.json").write_text(json.dumps({"best_epoch": 1, "collapsed": warning}))
        output = StringIO()
        summary.main(Console(file=output, width=80))
        assert [line for line in output.getvalue().splitlines() if "warning" in line] == (
            [expected] if expected else []
        )


def test_the_result_of_the_search_is_shown(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "registered", lambda name, md5: f"{name} {md5} version 1")
    (reports.parent / "tune").mkdir()
    for result, expected in [({"trials": 0}, []), ({"trials": 5, "said": "0.1 better"}, ["search: 0.1 better"])]:
        (reports.parent / "tune" / "search.json").write_text(json.dumps(result))
        output = StringIO()
        summary.main(Console(file=output, width=80))
        assert [line for line in output.getvalue().splitlines() if line.startswith("search")] == expected


@pytest.mark.parametrize("name", ["[red]", "[/]", "a[bold]b[/bold]", ":cat:", "\\[red]", "end\\"])
def test_a_name_is_not_taken_for_markup(reports: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(summary, "registered", lambda name, md5: f"{md5} is {name} version 1")
    monkeypatch.setattr(summary, "command", lambda: f"{name}/segline")
    result = RESULT | {"iou": {"background": 0.95, name: 0.8}, "dice": {"background": 0.97, name: 0.9}}
    (reports / "test.json").write_text(json.dumps(result))
    (reports / "registration.json").write_text(json.dumps({"name": name, "version_md5": "abc"}))
    output = StringIO()
    summary.main(Console(file=output, width=80))
    lines = [line.split() for line in output.getvalue().splitlines()]
    assert [f"{name}:", "3", "test", "images"] in lines
    assert ["│", name, "│", "0.8000", "│", "0.9000", "│"] in lines
    assert lines[-2:] == [["abc", "is", name, "version", "1"], ["next:", f"{name}/segline", "ui"]]


def test_before_the_first_run_the_summary_names_the_command(reports: Path) -> None:
    (reports / "registration.json").unlink()
    with pytest.raises(summary.SummaryError, match=r"registration\.json does not exist yet; create it with `make run`"):
        summary.main(Console(quiet=True))


@pytest.mark.usefixtures("reports")
def test_a_model_registered_on_another_machine_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "not in this machine's store" in summary.registered("cells", "abc")
