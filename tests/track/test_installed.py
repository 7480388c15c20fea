"""The identity of the installed segline: judged by files that are altered on purpose."""

import shutil
from pathlib import Path

import pytest

from segline.files import FileError
from segline.track import installed
from segline.track.installed import Identity, InstalledError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the installed package, in use; the working directory is an empty project."""
    copy = tmp_path / "segline"
    shutil.copytree(installed.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(installed, "PACKAGE", copy)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return copy


def changed_by(package: Path, file: str, text: str) -> list[str]:
    """Return the stages whose digest changes if `text` is appended to `file`."""
    before, former = installed.here().code, (package / file).read_text()
    (package / file).write_text(former + text)
    after = installed.here().code
    (package / file).write_text(former)
    return [stage for stage in before if before[stage] != after[stage]]


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("stages/train.py", "train"),
        ("train/loop.py", "plan tune train evaluate"),
        ("score/counts.py", "plan weights tune train evaluate register"),
        ("data/checks/problems.py", "sample prepare plan weights tune train evaluate register"),
        ("params.py", "sample prepare plan weights tune train evaluate register"),
        ("gate/rules.py", "register"),
        ("track/store.py", "register"),
        ("serve/app.py", ""),
        ("importing/bring.py", ""),
        ("progress.py", ""),
    ],
)
def test_a_statement_changes_the_digests_of_the_stages_that_use_it(package: Path, file: str, stages: str) -> None:
    assert changed_by(package, file, "\nX = 1\n") == stages.split()
    assert changed_by(package, file, "\n# a comment\n") == []


@pytest.mark.usefixtures("package")
def test_a_project_without_segline_yaml_runs_any_segline() -> None:
    assert installed.named() is None
    installed.require("train")
    assert installed.mismatch(Path()) is None


@pytest.mark.usefixtures("package")
def test_segline_yaml_names_the_installed_segline() -> None:
    installed.FILE.write_text(installed.here().text())
    assert installed.named() == installed.here()
    for stage in installed.ROOMS:
        installed.require(stage)
    assert installed.mismatch(Path()) is None


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("md5", ["0" * 32, "12345678901234567890123456789012", "1e100000000000000000000000000000"])
def test_versions_and_digests_that_look_like_numbers_stay_text(md5: str) -> None:
    identity = Identity(version="1.0", code={"train": md5})
    installed.FILE.write_text(identity.text())
    assert installed.named() == identity


def test_only_stages_with_other_code_are_refused(package: Path) -> None:
    project = Identity(version="0.0.9", code=installed.here().code)
    installed.FILE.write_text(project.text())
    with (package / "train/loop.py").open("a") as file:
        file.write("\nX = 1\n")
    for stage in ("sample", "prepare", "weights", "register"):
        installed.require(stage)
    for stage in ("plan", "tune", "train", "evaluate"):
        with pytest.raises(InstalledError) as error:
            installed.require(stage)
        assert str(error.value) == (
            f"stage {stage} was not run: segline.yaml names segline 0.0.9, but segline {installed.version()} is "
            "installed, with other code for plan, tune, train, evaluate. Run `pip install segline==0.0.9`, or run "
            "`segline upgrade`, which makes the project use the installed segline and lists the stages to run again"
        )
    assert installed.mismatch(Path()) == (
        f"segline.yaml names segline 0.0.9, but segline {installed.version()} is installed, with other code for plan, "
        "tune, train, evaluate. Run `pip install segline==0.0.9` and try again"
    )
    assert installed.mismatch(Path(), ("sample", "register")) is None


def test_a_copy_with_the_same_version_and_other_code_is_named(package: Path) -> None:
    installed.FILE.write_text(installed.here().text())
    with (package / "train/loop.py").open("a") as file:
        file.write("\nX = 1\n")
    with pytest.raises(
        InstalledError,
        match=r"that version is installed, but with other code for plan, tune, train, evaluate\. Install the copy of "
        r"segline that made the project, or run `segline upgrade`",
    ):
        installed.require("train")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "text", ["", "version: 1\n", "version: '1'\ncode: [a]\n", "version: '1'\ncode: {a: b}\nmore: 1\n"]
)
def test_a_damaged_segline_yaml_is_refused(text: str) -> None:
    installed.FILE.write_text(text)
    with pytest.raises(
        FileError, match=r"segline\.yaml.*; restore the file with `git checkout`, or run `segline upgrade`"
    ):
        installed.require("train")
