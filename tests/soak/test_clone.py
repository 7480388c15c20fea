"""A clone restores data from a remote, and runs, versions and aliases from the history; a version is rebuilt."""

import hashlib
import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.checkout import Project

pytestmark = pytest.mark.soak
SYNC_KILLS = 4
KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def s3() -> Iterator[str]:
    """Start an S3 server with the bucket `data`, and return its address."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name=KEYS["AWS_DEFAULT_REGION"],
    )
    client.create_bucket(Bucket="data")
    yield address
    server.stop()


@pytest.fixture(scope="module")
def grown(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A committed project with two models: the second is champion, the first was champion before."""
    folder = tmp_path_factory.mktemp("grown") / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    project = Project(folder)
    project.set(train={"seed": 1}, tune={"trials": 0})
    project.run("dvc", "repro")
    project.commit("another seed")
    project.run("segline", "models", "promote", "2", "--force", "--reason", "to have two", PYTHONPATH="src")
    project.commit("version 2 is champion")
    return project


def listed(project: Project) -> tuple[object, ...]:
    """Return what a clone must restore: versions, the aliases champion and previous, and test metrics of runs."""
    models = {
        name: sorted((md5, [alias for alias in aliases if alias != "challenger"]) for _, md5, aliases in held)
        for name, held in project.versions().items()
    }
    return models, project.query("SELECT value FROM latest_metrics WHERE key = 'test_mean_iou' ORDER BY value")


def answers(project: Project, address: str, out: Path) -> dict[str, bytes]:
    images = project.folder / "data" / "raw" / "cells" / "images"
    project.run("segline", "predict", str(images), "--model", address, "--out", str(out), PYTHONPATH="src")
    return {file.name: file.read_bytes() for file in out.iterdir()}


def pushed(grown: Project, tmp_path: Path, url: str, *options: str) -> tuple[Project, Project]:
    """Push a copy of the project with both models to a remote; return the copy, and a clone after `dvc pull`."""
    origin, clone = Project(tmp_path / "origin"), Project(tmp_path / "clone")
    shutil.copytree(grown.folder, origin.folder, symlinks=True)
    remote(origin, url, *options)
    origin.commit("a remote")
    origin.run("dvc", "push", **KEYS)
    # Push the first model from its own commit, because push --all-commits leaves out some of its files.
    former = Project(tmp_path / "former")
    Project(tmp_path).run("git", "clone", "-q", str(origin.folder), "former")
    former.run("git", "checkout", "-q", "HEAD~3")
    former.run("dvc", "cache", "dir", "--local", str(origin.folder / ".dvc" / "cache"))
    remote(former, url, *options)
    former.run("dvc", "push", **KEYS)
    Project(tmp_path).run("git", "clone", "-q", str(origin.folder), "clone")
    clone.run("dvc", "pull", **KEYS)
    return origin, clone


def remote(project: Project, url: str, *options: str) -> None:
    project.run("dvc", "remote", "add", "-d", "storage", url)
    for option in options:
        project.run("dvc", "remote", "modify", "storage", *option.split("="))


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_clone_restores_all_models_with_the_same_answers(
    grown: Project, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "local":
        origin, clone = pushed(grown, tmp_path, str(tmp_path / "remote"))
    else:
        address = request.getfixturevalue("s3")
        origin, clone = pushed(grown, tmp_path, "s3://data/cells", f"endpointurl={address}")
    history = (clone.folder / "registry.jsonl").read_bytes()
    output = clone.run("segline", "models", "sync", PYTHONPATH="src", **KEYS)
    assert "@champion is version" in output
    assert listed(clone) == listed(origin)
    assert (clone.folder / "registry.jsonl").read_bytes() == history
    assert clone.run("git", "status", "--porcelain") == ""
    for alias in ("champion", "previous"):
        address = f"models:/cells@{alias}"
        assert answers(clone, address, tmp_path / alias / "clone") == answers(
            origin, address, tmp_path / alias / "origin"
        )
    assert "nothing to do" in clone.run("segline", "models", "sync", PYTHONPATH="src")
    assert listed(clone) == listed(origin)


def test_a_killed_sync_is_finished_by_the_next_one(grown: Project, tmp_path: Path) -> None:
    origin, clone = pushed(grown, tmp_path, str(tmp_path / "remote"))
    undisturbed = Project(tmp_path / "undisturbed")
    shutil.copytree(clone.folder, undisturbed.folder, symlinks=True)
    start = time.monotonic()
    undisturbed.run("segline", "models", "sync", PYTHONPATH="src")
    duration = time.monotonic() - start
    history, chance, kills = (clone.folder / "registry.jsonl").read_bytes(), random.Random(0), 0
    while kills < SYNC_KILLS:
        copy = Project(tmp_path / f"copy-{kills}")
        shutil.copytree(clone.folder, copy.folder, symlinks=True)
        if killed := copy.killed_after(chance.uniform(1, duration), "segline", "models", "sync", PYTHONPATH="src"):
            kills += 1
            copy.run("segline", "models", "sync", PYTHONPATH="src")
            assert listed(copy) == listed(origin)
            assert (copy.folder / "registry.jsonl").read_bytes() == history
            assert copy.run("git", "status", "--porcelain") == ""
            copy.run("segline", "models", "verify", PYTHONPATH="src")
        shutil.rmtree(copy.folder)
        if not killed:
            duration *= 0.8


def test_a_version_that_cannot_be_restored_is_named_and_the_others_are_restored(grown: Project, tmp_path: Path) -> None:
    origin, clone = pushed(grown, tmp_path, str(tmp_path / "remote"))
    first, second = promotions(origin)
    md5 = first["model_md5"]
    (tmp_path / "remote" / "files" / "md5" / md5[:2] / md5[2:]).unlink()
    with pytest.raises(AssertionError, match=f"cells {first['version_md5']} cannot be restored"):
        clone.run("segline", "models", "sync", PYTHONPATH="src")
    versions = json.loads(clone.run("segline", "models", "list", "--json", PYTHONPATH="src"))
    assert second["version_md5"] in json.dumps(versions)
    assert answers(clone, "models:/cells@champion", tmp_path / "a") == answers(
        origin, "models:/cells@champion", tmp_path / "b"
    )


def test_a_moved_project_predicts_and_writes_nothing_to_the_old_folder(grown: Project, tmp_path: Path) -> None:
    before = Project(tmp_path / "before")
    shutil.copytree(grown.folder, before.folder, symlinks=True)
    expected = answers(before, "models:/cells@champion", tmp_path / "a")
    moved = Project(tmp_path / "after")
    before.folder.rename(moved.folder)
    assert answers(moved, "models:/cells@champion", tmp_path / "b") == expected
    moved.run("dvc", "repro", "--force", "register")
    assert not before.folder.exists()
    descriptions = moved.folder.rglob("MLmodel")
    assert all(str(before.folder) not in file.read_text() for file in descriptions)


def test_the_first_version_is_rebuilt_after_later_commits(grown: Project, tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    shutil.copytree(grown.folder, project.folder, symlinks=True)
    cache = sorted((project.folder / ".dvc" / "cache").rglob("*"))
    output = project.run("segline", "models", "rebuild", "1", "--keep", str(tmp_path / "kept"), PYTHONPATH="src")
    assert "the rebuilt model is the same" in output
    assert "Running stage 'train'" in output
    assert project.run("git", "status", "--porcelain") == ""
    assert sorted((project.folder / ".dvc" / "cache").rglob("*")) == cache
    assert project.runs() == grown.runs()
    first = promotions(project)[0]
    weights = tmp_path / "kept" / "data" / "model" / "weights.safetensors"
    assert first["model_md5"] == md5_of(weights)


def test_a_version_with_planned_settings_is_rebuilt_with_its_own_plan(finished: Project, tmp_path: Path) -> None:
    """A new plan would time the machine again, and could choose another network."""
    project = Project(tmp_path / "project")
    shutil.copytree(finished.folder, project.folder, symlinks=True)
    project.run("segline", "preset", "auto", PYTHONPATH="src")
    # Limits of time that even a busy machine keeps: a training that was shortened cannot be rebuilt.
    project.set(plan={"minutes": 0.1}, model={"width": 4}, train={"minutes": 5}, tune={"minutes": 5})
    project.commit("planned settings")
    output = project.run("dvc", "repro")
    assert "timing training steps of the network: width 4" in output
    project.commit("results of the plan")
    assert "Running stage" not in project.run("dvc", "repro")
    project.set(train={"weight_decay": 0.02})
    assert project.would_run()[0] == "tune"
    project.run("git", "checkout", "-q", "params.yaml")
    output = project.run("segline", "models", "rebuild", "2", PYTHONPATH="src")
    assert "the rebuilt model is the same" in output
    assert "Running stage 'train'" in output
    assert "Running stage 'plan'" not in output


def promotions(project: Project) -> list[dict[str, str]]:
    lines = map(json.loads, (project.folder / "registry.jsonl").read_text().splitlines())
    return [line for line in lines if line["alias"] == "champion"]


def md5_of(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
