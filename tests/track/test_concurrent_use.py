"""Log, register and promote in several processes at once: nothing is lost, and the history is complete."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from segline.track.packaging import Parts
from segline.track.registry import CHAMPION, VERSION_TAG, Registry
from segline.track.store import Store

SCRIPT = Path(__file__).with_name("at_once.py")
STEPS = 20  # as in at_once.py


@pytest.fixture
def model(parts: Parts, tmp_path: Path) -> Path:
    """Return a folder with all parts of a version."""
    folder = tmp_path / "model"
    shutil.copytree(parts.model, folder)
    for name in ("example", "answer", "instances"):
        (folder / name).write_bytes(getattr(parts, name))
    return folder


def test_three_processes_at_once_lose_nothing(store: Store, model: Path, repository: Path) -> None:
    at_once(model, repository, processes=3, promotions=4)
    judge(store, processes=3, promotions=4)


def at_once(model: Path, repository: Path, processes: int, promotions: int) -> None:
    """Run the processes in the working directory."""
    command = [sys.executable, str(SCRIPT), str(model), str(processes), str(promotions)]
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def judge(store: Store, processes: int, promotions: int) -> None:
    """Compare the content of the store with the work of the processes."""
    client = store.client
    runs = client.search_runs([store.experiment_id])
    assert sorted(run.data.params["number"] for run in runs) == [str(number) for number in range(processes)]
    for run in runs:
        number, run_id = int(run.data.params["number"]), run.info.run_id
        assert run.info.status == "FINISHED"
        logged = [(point.step, point.value) for point in client.get_metric_history(run_id, "loss")]
        assert sorted(logged) == [(step, number + 1 / step) for step in range(1, STEPS + 1)]
        assert {f"step {step}" for step in range(1, STEPS + 1)} <= run.data.tags.keys()
        assert [file.path for file in client.list_artifacts(run_id, "pictures")] == ["pictures/tile.png"]
        assert len(run.outputs.model_outputs) == 2
    versions = client.search_model_versions("name = 'cells'")
    assert sorted(int(version.version) for version in versions) == list(range(1, 2 * processes + 1))
    assert Counter(version.run_id for version in versions) == {run.info.run_id: 2 for run in runs}
    assert len({version.tags[VERSION_TAG] for version in versions}) == len(versions)

    history = [json.loads(line) for line in (store.place.root / "registry.jsonl").read_text().splitlines()]
    registered = Counter(line["version_md5"] for line in history if line["action"] == "register")
    assert registered == Counter(version.tags[VERSION_TAG] for version in versions)
    lines = [line for line in history if line["alias"] == "champion"]
    expected = Counter(f"process {number}, turn {turn}" for number in range(processes) for turn in range(promotions))
    assert Counter(line["reason"] for line in lines) - expected == Counter(["first to meet the minimum metrics"])
    assert not expected - Counter(line["reason"] for line in lines)
    holders = [line["version_md5"] for line in lines]
    assert all(holder != following for holder, following in pairwise(holders))
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    champion = Registry(store, "cells").holder(CHAMPION)
    assert champion is not None
    assert champion.tags[VERSION_TAG] == holders[-1]
