"""Stage train, killed: the next start resumes in the same run and ends with the bytes of an undisturbed one."""

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from segline.stages import prepare, sample, tune, weights
from segline.track.store import open_store

SETTINGS = """
sample: {images: 6, min_size: 64, max_size: 80, seed: 3}
model: {width: 2, depth: 1, dropout: 0.2}
tune: {trials: 0}
train: {epochs: 5, tiles_per_epoch: 5, batch_size: 2, tile: 32, validation_tiles: 2, learning_rate: 0.01}
runtime: {progress: lines, threads: 1}
"""
OUTPUTS = ("weights.safetensors", "model.json", "history.csv", "metrics.json")
SOME = [
    ("after the run is made", "SIGKILL"),
    ("checkpoint, weights half written", "SIGKILL"),
    ("validation, epoch 3", "SIGTERM"),
    ("step, in the backward pass", "SIGTERM"),
    ("before the run is FINISHED", "SIGKILL"),
]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project with an empty store in which the stages before train have run."""
    root = tmp_path_factory.mktemp("ready")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_TRACKING", "MLFLOW_EXPERIMENT"))]:
            patch.delenv(name)
        (root / "dvc.yaml").touch()
        (root / "params.yaml").write_text(SETTINGS)
        for stage in (sample, prepare, weights, tune):
            stage.main()
        open_store()
    return root


def run(ready: Path, work: Path, cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results of an undisturbed training and of each of `cases`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_TRACKING"))}
    environment |= {"OMP_NUM_THREADS": "1", "DVC_STAGE": "train"}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("kill_at.py"), ready, work],
        input=json.dumps([{}, *cases]),  # an undisturbed one first
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def outputs(folder: Path) -> dict[str, str]:
    """Return the MD5 of each file of data/model by name."""
    return {file.name: md5(file) for file in (folder / "data" / "model").iterdir()}


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Query the database of the store."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def faults(case: dict[str, Any], result: dict[str, Any], undisturbed: dict[str, Any]) -> list[str]:
    """List the faults of a training that was killed once."""
    folder, (killed, resumed) = Path(result["folder"]), result["runs"]
    database = folder / "mlruns" / "mlflow.db"
    after = dict(rows(folder / "mlruns" / "after the kill.db", "SELECT run_uuid, status FROM runs"))
    runs = dict(rows(database, "SELECT run_uuid, status FROM runs"))
    steps = rows(database, "SELECT key, group_concat(step) FROM metrics WHERE key NOT LIKE 'system/%' GROUP BY key")
    pictures = list(folder.glob("mlruns/artifacts/*/artifacts/images/*"))
    wanted = list(Path(undisturbed["folder"]).glob("mlruns/artifacts/*/artifacts/images/*"))
    left = [each.name for each in folder.glob("mlruns/resume/*/*") if each.name in ("finished.json", "state.json")]
    found = {
        "the point was not reached": not result["reached"],
        f"ended by {killed['code']}": killed["code"] != {"SIGTERM": 143, "SIGKILL": -9}[case["signal"]],
        f"after the kill {after}": killed["code"] == 143 and set(after.values()) - {"KILLED", "FINISHED"},
        f"resumed: {resumed['code']} {resumed['said']}": resumed["code"] != 0,
        "other bytes": outputs(folder) != outputs(Path(undisturbed["folder"])),
        f"runs {runs}": list(runs.values()) != ["FINISHED"] or (after and set(after) != set(runs)),
        f"steps {steps}": not steps or any(sorted(map(int, each.split(","))) != [1, 2, 3, 4, 5] for _, each in steps),
        "other pictures": sorted(map(md5, pictures)) != sorted(map(md5, wanted)),
        f"left {left}": left not in ([], ["finished.json"]),
    }
    return [fault for fault, there in found.items() if there]


def table(cases: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]], undisturbed: dict[str, Any]) -> str:
    """Return a line for each case: point, signal, where it resumed, whether the bytes are equal, and the faults."""
    lines = [f"{'killed at':44}{'by':9}{'resumed after':22}{'md5 equal':11}{'seconds':9}faults"]
    expected = outputs(Path(undisturbed["folder"]))
    for case, result in zip(cases, results, strict=True):
        match = re.search(r"resumes after epoch (\d+) of \d+(?:, step (\d+))?", result["runs"][1]["said"])
        where = "the beginning" if match is None else f"epoch {match[1]}" + (f" step {match[2]}" if match[2] else "")
        equal = "yes" if outputs(Path(result["folder"])) == expected else "NO"
        seconds = "+".join(f"{each['seconds']:.1f}" for each in result["runs"])
        wrong = "; ".join(faults(case, result, undisturbed)) or "none"
        lines.append(f"{case['point']:44}{case['signal'][3:]:9}{where:22}{equal:11}{seconds:9}{wrong}")
    return "\n".join(lines)


def test_a_killed_training_resumes_at_its_last_checkpoint(ready: Path, tmp_path: Path) -> None:
    cases = [{"point": point, "signal": number} for point, number in SOME]
    undisturbed, *results = run(ready, tmp_path, cases)
    assert set(outputs(Path(undisturbed["folder"]))) == set(OUTPUTS)
    assert {case["point"]: faults(case, result, undisturbed) for case, result in zip(cases, results, strict=True)} == {
        case["point"]: [] for case in cases
    }
