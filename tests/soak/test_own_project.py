"""A project made by `segline init`: it runs at once, and rebuild, sync and upgrade hold as in segline's repository."""

import json
import sys
from pathlib import Path

import pytest

from segline.track import installed
from tests.checkout import SMALL, Project

pytestmark = pytest.mark.soak
SETTINGS = SMALL | {"tune": SMALL["tune"] | {"trials": 0}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A committed project after one run of its pipeline."""
    folder = tmp_path_factory.mktemp("own")
    Project(folder).run("segline", "init", "project")
    project = Project(folder / "project")
    project.run("git", "config", "user.email", "test@segline.invalid")
    project.run("git", "config", "user.name", "test")
    project.set(**SETTINGS)
    project.commit("New project")
    project.run("dvc", "repro")
    project.commit("first results")
    return project


def versions(project: Project) -> list[tuple[str, list[str]]]:
    """Return the number and the aliases of each version of the model."""
    rows = json.loads(project.run("segline", "models", "list", "--json"))
    return [(str(row["version"]), sorted(row["aliases"])) for row in rows]


def other_segline(project: Project, version: str, *stages: str) -> None:
    """Make the project name another segline, with other code for `stages`."""
    code = {stage: "0" * 32 if stage in stages else md5 for stage, md5 in installed.here().code.items()}
    (project.folder / installed.FILE).write_text(installed.Identity(version=version, code=code).text())


def test_the_first_model_is_champion_and_nothing_runs_again(project: Project) -> None:
    assert versions(project) == [("1", ["challenger", "champion"])]
    assert project.run("dvc", "status").strip() == "Data and pipelines are up to date."
    assert project.run("git", "status", "--porcelain") == ""
    project.run("segline", "models", "verify")


def test_a_version_is_rebuilt_bit_for_bit(project: Project) -> None:
    assert "the rebuilt model is the same" in project.run("segline", "models", "rebuild", "1")


def test_a_clone_gets_its_models_back(project: Project, tmp_path: Path) -> None:
    clone = cloned(project, tmp_path)
    assert "@champion is version 1" in clone.run("segline", "models", "sync")
    for place, out in ((project, "a"), (clone, "b")):
        images = str(place.folder / "data/raw/cells/images")
        place.run("segline", "predict", images, "--model", "models:/cells@champion", "--out", str(tmp_path / out))
    assert [*(tmp_path / "a").glob("*.png")]
    for file in (tmp_path / "a").glob("*.png"):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def cloned(project: Project, folder: Path) -> Project:
    """Return a clone of the project after `dvc pull`."""
    project.run("dvc", "remote", "add", "--local", "-d", "-f", "storage", str(folder / "remote"))
    project.run("dvc", "push")
    Project(folder).run("git", "clone", "-q", str(project.folder), "clone")
    clone = Project(folder / "clone")
    clone.run("dvc", "remote", "add", "--local", "-d", "storage", str(folder / "remote"))
    clone.run("dvc", "pull")
    return clone


def test_another_segline_is_refused_until_the_project_is_upgraded(project: Project) -> None:
    other_segline(project, "0.0.9", "train")
    refused = project.attempt("dvc", "repro")
    assert refused.returncode
    assert "stage train was not run: segline.yaml names segline 0.0.9" in refused.stdout + refused.stderr
    assert "the code of these stages changed: train" in project.run("segline", "upgrade")
    # DVC removed the model before it started the refused stage. It now takes the model from its cache.
    assert "Running stage" not in project.run("dvc", "repro")
    assert project.run("git", "status", "--porcelain") == ""


@pytest.fixture
def older(project: Project, tmp_path: Path) -> Project:
    """A clone in which version 1 was registered by segline 0.0.9, as far as its files say."""
    clone = cloned(project, tmp_path)
    clone.run("git", "config", "user.email", "test@segline.invalid")
    clone.run("git", "config", "user.name", "test")
    other_segline(clone, "0.0.9", "train")
    lock = clone.folder / "dvc.lock"
    lock.write_text(lock.read_text().replace(installed.digest("train"), "0" * 32))
    # Stage register records the code in segline.yaml as it is now, but runs only if that is the installed code.
    code = "from segline.stages import register; print(register.again('cells'))"
    clone.run(sys.executable, "-c", code)
    clone.run("git", "add", "-A")
    clone.run("git", "commit", "-q", "--amend", "-m", "as segline 0.0.9 made it")
    return clone


def test_rebuild_names_the_segline_that_a_version_needs(older: Project) -> None:
    refused = older.attempt("segline", "models", "rebuild", "1")
    assert refused.returncode == 2
    assert "Run `pip install segline==0.0.9` and try again" in refused.stderr
