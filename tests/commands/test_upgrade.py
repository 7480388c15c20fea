"""`segline upgrade`: judged by segline.yaml and the printed lines."""

import json
from pathlib import Path

import pytest

from segline import params
from segline.commands import init, upgrade
from segline.files import read_yaml
from segline.params import ParamsError
from segline.track import installed


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project; the working directory."""
    init.main(tmp_path / "project", None, "", lambda _: None)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def said(*, dry_run: bool = False) -> list[str]:
    lines: list[str] = []
    upgrade.main(lines.append, dry_run=dry_run)
    return lines


def make_older(stages: list[str]) -> str:
    """Write a segline.yaml of version 0.0.9 with other code for `stages`; return its text."""
    code = {stage: "0" * 32 if stage in stages else md5 for stage, md5 in installed.here().code.items()}
    installed.FILE.write_text(installed.Identity(version="0.0.9", code=code).text())
    return installed.FILE.read_text()


@pytest.mark.usefixtures("project")
def test_a_project_of_the_installed_segline_stays_as_it_is() -> None:
    before = installed.FILE.stat().st_mtime_ns
    assert said() == [f"segline.yaml names the installed segline {installed.version()} already; nothing changes"]
    assert installed.FILE.stat().st_mtime_ns == before


@pytest.mark.usefixtures("project")
def test_line_ends_of_windows_are_no_difference() -> None:
    for file in (installed.FILE, upgrade.PIPELINE):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert said() == [f"segline.yaml names the installed segline {installed.version()} already; nothing changes"]
    installed.require("train")


@pytest.mark.usefixtures("project")
def test_the_stages_with_other_code_are_listed() -> None:
    older = make_older(["train", "register"])
    expected = [
        f"segline.yaml: segline 0.0.9 -> {installed.version()}",
        "the code of these stages changed: train, register",
        "`dvc repro` runs these stages again, and then each later stage whose inputs have changed",
    ]
    assert said(dry_run=True) == [*expected, "segline.yaml was not changed (--dry-run)"]
    assert installed.FILE.read_text() == older
    assert said() == expected
    assert installed.named() == installed.here()


@pytest.mark.usefixtures("project")
def test_a_version_with_the_same_code_runs_nothing_again() -> None:
    make_older([])
    assert said()[-1] == "the code of no stage changed, so `dvc repro` runs nothing again"
    assert installed.named() == installed.here()


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("text", [None, "", "version: [", json.dumps({"version": 1})])
def test_a_damaged_or_missing_segline_yaml_is_written_again(text: str | None) -> None:
    installed.FILE.unlink()
    if text is not None:
        installed.FILE.write_text(text)
    assert said()[0] == f"segline.yaml: segline unknown -> {installed.version()}"
    assert installed.named() == installed.here()


def test_a_changed_pipeline_is_kept_and_shown(project: Path) -> None:
    file = project / "dvc.yaml"
    file.write_text(file.read_text().replace("desc: train the network", "desc: mine"))
    own = file.read_text()
    lines = said()
    assert lines[1] == "dvc.yaml was not changed; the installed segline would write it like this:"
    assert [line for line in lines[2:] if line.startswith(("-", "+"))] == [
        "--- dvc.yaml of this project",
        "+++ dvc.yaml of the installed segline",
        "-    desc: mine",
        "+    desc: train the network",
    ]
    assert file.read_text() == own


def test_other_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    for folder in (tmp_path, repository):
        monkeypatch.chdir(folder)
        with pytest.raises(upgrade.UpgradeError, match="holds no project that `segline init` made"):
            said()


def test_settings_that_the_installed_segline_does_not_know_are_named(project: Path) -> None:
    make_older(["train"])
    file = project / "params.yaml"
    file.write_text(file.read_text() + "old_section:\n  x: 1\n")
    with pytest.raises(ParamsError, match=r"params\.yaml: old_section is not a"):
        said()
    assert installed.named() == installed.here()


def test_a_pipeline_that_is_not_utf_8_is_read(project: Path) -> None:
    with (project / "dvc.yaml").open("ab") as file:
        file.write(b"# \xff\n")
    assert any("\ufffd" in line for line in said())


@pytest.mark.usefixtures("project")
def test_settings_that_the_stages_name_are_added_to_params_yaml() -> None:
    """DVC refuses to run a stage whose params are missing."""
    file = Path("params.yaml")
    text = file.read_text()
    older = "\n".join(line for line in text.split("\n") if not line.startswith(("plan:", "  minutes:", "  amp:")))
    file.write_text(older)
    assert any("params.yaml lacks settings" in line and "'plan.minutes': 10" in line for line in said(dry_run=True))
    assert file.read_text() == older
    assert any("added to params.yaml" in line for line in said())
    assert params.load(params.Params, file) == params.Params()
    content = read_yaml(file)
    assert content["plan"] == {"minutes": 10}
    assert content["train"]["amp"] == "off"
    assert not any("params.yaml" in line for line in said())
