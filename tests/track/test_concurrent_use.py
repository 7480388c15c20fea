"""Processes that log, register and promote at once: nothing is lost, one is champion, and the history has no gap."""

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
STEPS = 20  # as there


@pytest.fixture
def model(parts: Parts, tmp_path: Path) -> Path:
    """A folder with all that makes a version."""
    folder = tmp_path / "model"
    shutil.copytree(parts.model, folder)
    for name in ("example", "answer", "instances"):
        (folder / name).write_bytes(getattr(parts, name))
    return folder


def test_three_processes(store: Store, model: Path, repository: Path) -> None:
    at_once(model, repository, processes=3, promotions=4)
    judge(store, processes=3, promotions=4)


def at_once(model: Path, repository: Path, processes: int, promotions: int) -> None:
    """Let them work in the project that is the working directory."""
    command = [sys.executable, str(SCRIPT), str(model), str(processes), str(promotions)]
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def judge(store: Store, processes: int, promotions: int) -> None:
    """Compare what is kept with what the processes were told to do."""
    client = store.client
    runs = client.search_runs([store.experiment_id])
    assert sorted(run.data.params["number"] for run in runs) == [str(number) for number in range(processes)]
    for run in runs:
        number, run_id = int(run.data.params["number"]), run.info.run_id
        assert run.info.status == "FINISHED"
        logged = [(each.step, each.value) for each in client.get_metric_history(run_id, "loss")]
        assert sorted(logged) == [(step, number + 1 / step) for step in range(1, STEPS + 1)]
        assert {f"step {step}" for step in range(1, STEPS + 1)} <= run.data.tags.keys()
        assert [file.path for file in client.list_artifacts(run_id, "pictures")] == ["pictures/tile.png"]
        assert len(run.outputs.model_outputs) == 2
    versions = client.search_model_versions("name = 'cells'")
    assert sorted(int(each.version) for each in versions) == list(range(1, 2 * processes + 1))
    assert Counter(each.run_id for each in versions) == {run.info.run_id: 2 for run in runs}
    assert len({each.tags[VERSION_TAG] for each in versions}) == len(versions)

    every = [json.loads(line) for line in (store.place.root / "registry.jsonl").read_text().splitlines()]
    registered = Counter(line["version_md5"] for line in every if line["action"] == "register")
    assert registered == Counter(each.tags[VERSION_TAG] for each in versions)
    lines = [line for line in every if line["alias"] == "champion"]
    asked = Counter(f"process {number}, turn {turn}" for number in range(processes) for turn in range(promotions))
    assert Counter(line["reason"] for line in lines) - asked == Counter(["first model that passes the floors"])
    assert not asked - Counter(line["reason"] for line in lines)
    holders = [line["version_md5"] for line in lines]
    assert all(holder != following for holder, following in pairwise(holders))
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    champion = Registry(store, "cells").holder(CHAMPION)
    assert champion is not None
    assert champion.tags[VERSION_TAG] == holders[-1]
