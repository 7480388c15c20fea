"""A commit of a project elsewhere: its files by git, its data from the cache or the remote, the project as it was."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segline.track.elsewhere import Elsewhere, ElsewhereError, commits_holding
from segline.track.git import surroundings


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@segline.invalid", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "-q", *arguments], cwd=folder, env=surroundings(), check=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in a folder of a repository: data `one` in the first commit, `two` in the second, one remote since."""
    top = tmp_path_factory.mktemp("top")
    project = top / "segmentation"
    project.mkdir()
    git(top, "init", "-q")
    dvc(project, "init", "--subdir")
    (project / "data").write_text("one")
    dvc(project, "add", "data")
    (project / "dvc.lock").write_text("stages: {train: {outs: [{path: data, md5: aaaa}]}}")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "one")
    dvc(project, "remote", "add", "-d", "storage", "../remote")  # relative; the first commit knows nothing of it
    dvc(project, "push")
    (project / "data").write_text("two")
    dvc(project, "add", "data")
    (project / "dvc.lock").write_text("stages: {train: {outs: [{path: data, md5: bbbb}]}}")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "two")
    dvc(project, "push")
    return top


@pytest.fixture
def top(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "top"
    shutil.copytree(made, folder, symlinks=True)
    return folder


def state(project: Path) -> dict[str, bytes]:
    """All files but DVC's own, and git's refs."""
    return {
        str(file.relative_to(project)): file.read_bytes()
        for file in project.rglob("*")
        if file.is_file() and ".dvc" not in file.parts
    } | {"HEAD": git(project, "rev-parse", "HEAD").encode()}


@pytest.mark.parametrize("cached", [True, False], ids=["from the cache", "from the remote"])
def test_an_earlier_commit_and_its_data(top: Path, tmp_path: Path, cached: bool) -> None:
    project = top / "segmentation"
    before = state(project)
    (former,) = commits_holding(project, "aaaa")
    if not cached:
        shutil.rmtree(project / ".dvc" / "cache")
    elsewhere = Elsewhere(project, tmp_path / "clone")
    elsewhere.go_to(former)
    elsewhere.fetch(["data"])
    assert (elsewhere.project / "data").read_text() == "one"
    assert elsewhere.lock()["train"]["outs"][0]["md5"] == "aaaa"
    assert elsewhere.project == tmp_path / "clone" / "segmentation"
    assert git(elsewhere.project, "status", "--porcelain") == ""
    elsewhere.go_to(commits_holding(project, "bbbb")[0])
    assert elsewhere.lock()["train"]["outs"][0]["md5"] == "bbbb"
    elsewhere.fetch(["data"])
    assert (elsewhere.project / "data").read_text() == "two"
    assert state(project) == before


def test_data_that_is_nowhere(top: Path, tmp_path: Path) -> None:
    project = top / "segmentation"
    shutil.rmtree(project / ".dvc" / "cache")
    shutil.rmtree(top / "remote")
    elsewhere = Elsewhere(project, tmp_path / "clone")
    elsewhere.go_to(commits_holding(project, "bbbb")[0])
    with pytest.raises(ElsewhereError, match="dvc pull"):
        elsewhere.fetch(["data"])


def test_commits_that_no_clone_gets_are_not_asked(top: Path) -> None:
    project = top / "segmentation"
    assert commits_holding(project, "") == commits_holding(project, "cccc") == []
    git(project, "checkout", "-q", "--detach", "HEAD~1")
    assert len(commits_holding(project, "bbbb")) == 1  # of the branch


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ElsewhereError, match="git rev-parse"):
        Elsewhere(tmp_path, tmp_path / "clone")


def test_what_is_said_to_dvc_is_of_the_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team")
    assert not {"DVC_ROOT", "MLFLOW_TRACKING_URI"} & surroundings().keys()
    assert surroundings()["PATH"] == os.environ["PATH"]
