"""`segline plan --explain`: the table shows the value that is used and the reason, and the plan beside own values."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from segline.commands import explain

SETTINGS = """
model: {padding: auto, width: 12}
augment: {extra: auto}
train: {schedule: {kind: auto}, amp: auto}
"""
PLAN = """
model: {padding: same, width: 32}
augment: {extra: [{Blur: {}}, {CLAHE: {p: 0.5}}]}
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
    explain.main(Console(file=text, width=120, force_terminal=colours))
    return text.getvalue()


@pytest.mark.usefixtures("project")
def test_each_setting_has_both_values_and_the_reason() -> None:
    rows = {line.split()[0]: line.split()[1:] for line in shown().splitlines() if line.strip()}
    assert rows["padding"] == ["same", "why"]
    assert rows["width"] == ["12", "set", "in", "params.yaml;", "the", "plan:", "32", "([bold])"]
    assert rows["extra"] == ["Blur,", "CLAHE"]
    assert rows["schedule.kind"] == ["one_cycle", "because"]
    assert rows["amp"] == ["-"]
    assert rows["dropout"] == ["0", "set", "in", "params.yaml"]
    assert "7 images measured" in shown()


@pytest.mark.usefixtures("project")
def test_a_value_of_the_user_is_bold() -> None:
    text = shown(colours=True)
    assert "\x1b[1m12" in text
    assert "\x1b[1msame" not in text


def test_without_a_usable_plan_the_message_names_the_command(project: Path) -> None:
    file = project / "data/plan/plan.yaml"
    file.write_text("measured: 3\nreasons: {}\n")
    with pytest.raises(explain.PlanError, match=r"plan\.yaml: measured = 3: .*run `dvc repro`, which restores"):
        shown()
    for content in (b"measured: a\nmeasured: b\n", b"\xff", b"a: 99999999999999999999"):
        file.write_bytes(content)
        with pytest.raises(explain.PlanError, match=r"(?s)plan\.yaml.*run `dvc repro`, which restores"):
            shown()
    file.unlink()
    with pytest.raises(explain.PlanError, match="there is no plan yet; run `dvc repro plan`"):
        shown()
