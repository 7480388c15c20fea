"""`segline plan --explain`: the table shows both values and says which is used."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from segline.commands import plan
from segline.files import FileError

SETTINGS = """
model: {padding: auto, width: 12}
train: {schedule: {kind: auto}, amp: auto}
"""
PLAN = """
model: {padding: same, width: 32}
train: {schedule: {kind: one_cycle}}
measured: 7 images measured
reasons: {model.padding: why, model.width: "[bold]", train.schedule.kind: because}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(SETTINGS)
    (tmp_path / "data/plan").mkdir(parents=True)
    (tmp_path / "data/plan/plan.yaml").write_text(PLAN)
    return tmp_path


def shown(*, colours: bool = False) -> str:
    text = io.StringIO()
    plan.main(Console(file=text, width=120, force_terminal=colours))
    return text.getvalue()


@pytest.mark.usefixtures("project")
def test_each_setting_has_both_values_and_the_reason() -> None:
    rows = {line.split()[0]: line.split()[1:] for line in shown().splitlines() if line.strip()}
    assert rows["padding"] == ["auto", "same", "why"]
    assert rows["width"] == ["12", "32", "[bold]"]
    assert rows["schedule.kind"] == ["auto", "one_cycle", "because"]
    assert rows["amp"] == ["auto", "-", "not", "timed"]
    assert rows["dropout"] == ["0", "-", "not", "timed"]
    assert "7 images measured" in shown()


@pytest.mark.usefixtures("project")
def test_the_value_that_is_used_is_bold() -> None:
    rows = {line.split()[0]: line for line in shown(colours=True).splitlines() if "auto" in line or "12" in line}
    bold = "\x1b[1m"
    assert rows["padding"].index("auto") < rows["padding"].index(bold) < rows["padding"].index("same")
    assert rows["width"].index(bold) < rows["width"].index("12") < rows["width"].index("32")


def test_without_a_usable_plan_the_message_names_the_command(project: Path) -> None:
    file = project / "data/plan/plan.yaml"
    file.write_text("measured: 3\nreasons: {}\n")
    with pytest.raises(FileError, match=r"plan\.yaml: measured = 3: .*run `dvc repro --force plan`"):
        shown()
    file.unlink()
    with pytest.raises(plan.PlanError, match="there is no plan yet; run `dvc repro plan`"):
        shown()
