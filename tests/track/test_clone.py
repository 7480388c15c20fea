"""Clone a project at a commit: its files from git, its data from the cache or the remote; the project is unchanged."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segline.track.clone import Clone, CloneError
from segline.track.commits import locking
from segline.track.git import surroundings


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@segline.invalid", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "-q", *arguments], cwd=folder, env=surroundings(), check=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project in a folder of a repository: data `one` in the first commit; `two` and a remote in the second."""
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
    dvc(project, "remote", "add", "-d", "storage", "../remote")  # a relative path, which the first commit lacks
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
    folder = tmp_path / "Größe, 2. Teil"
    shutil.copytree(made, folder, symlinks=True)
    return folder


def state(project: Path) -> dict[str, bytes]:
    """Return all files except DVC's own, and the commit of HEAD."""
    return {
        str(file.relative_to(project)): file.read_bytes()
        for file in project.rglob("*")
        if file.is_file() and ".dvc" not in file.parts
    } | {"HEAD": git(project, "rev-parse", "HEAD").encode()}


@pytest.mark.parametrize("cached", [True, False], ids=["from the cache", "from the remote"])
def test_clone_restores_an_earlier_commit_and_its_data(top: Path, tmp_path: Path, cached: bool) -> None:
    project = top / "segmentation"
    before = state(project)
    (former,) = locking("aaaa", project)
    if not cached:
        shutil.rmtree(project / ".dvc" / "cache")
    clone = Clone(project, tmp_path / "clone")
    clone.check_out(former)
    clone.fetch(["data"])
    assert (clone.project / "data").read_text() == "one"
    assert clone.lock()["train"]["outs"][0]["md5"] == "aaaa"
    assert clone.project == tmp_path / "clone" / "segmentation"
    assert git(clone.project, "status", "--porcelain") == ""
    clone.check_out(locking("bbbb", project)[0])
    assert clone.lock()["train"]["outs"][0]["md5"] == "bbbb"
    clone.fetch(["data"])
    assert (clone.project / "data").read_text() == "two"
    assert state(project) == before


def test_clone_reports_data_that_is_neither_in_cache_nor_remote(top: Path, tmp_path: Path) -> None:
    project = top / "segmentation"
    shutil.rmtree(project / ".dvc" / "cache")
    shutil.rmtree(top / "remote")
    clone = Clone(project, tmp_path / "clone")
    clone.check_out(locking("bbbb", project)[0])
    with pytest.raises(CloneError, match="dvc pull"):
        clone.fetch(["data"])


def test_search_finds_commits_of_branches_only(top: Path) -> None:
    project = top / "segmentation"
    assert locking("", project) == locking("cccc", project) == []
    git(project, "checkout", "-q", "--detach", "HEAD~1")
    assert len(locking("bbbb", project)) == 1  # the commit of the branch


def test_clone_refuses_a_folder_without_repository(tmp_path: Path) -> None:
    with pytest.raises(CloneError, match="git rev-parse"):
        Clone(tmp_path, tmp_path / "clone")


def test_children_do_not_inherit_project_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team")
    assert not {"DVC_ROOT", "MLFLOW_TRACKING_URI"} & surroundings().keys()
    assert surroundings()["PATH"] == os.environ["PATH"]
