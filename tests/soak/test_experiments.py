"""An experiment in DVC's queue: its stages, its code and its runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.checkout import STAGES, Project

pytestmark = pytest.mark.soak


def stages_of(lock: str) -> dict[str, Any]:
    """Return the stages of a dvc.lock."""
    stages: dict[str, Any] = YAML(typ="safe").load(lock)["stages"]
    return stages


def test_a_queued_experiment_runs_its_own_code_and_logs_to_the_same_store(finished: Project, tmp_path: Path) -> None:
    project = Project(tmp_path / "copy")
    shutil.copytree(finished.folder, project.folder, symlinks=True)
    code = project.folder / "src" / "segline" / "score" / "judge.py"
    runs = project.runs()
    before = code.read_text()
    code.write_text(before.replace('"images": len(scores),', '"images": len(scores), "changed": True,'))
    project.run("dvc", "exp", "run", "--queue", "-n", "changed", "-S", "weights.sigma=4")
    code.write_text(before)  # the experiment must run its own copy of the code, not this one
    project.run("dvc", "exp", "run", "--run-all")
    reference = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps/**/changed").strip()
    result = json.loads(project.run("git", "show", f"{reference}:data/reports/test.json"))
    assert result["changed"] is True
    assert "changed" not in project.json("data/reports/test.json")
    assert project.runs() == runs + 4  # a search with other weights, its two trials, and the training
    ours = stages_of((project.folder / "dvc.lock").read_text())
    theirs = stages_of(project.run("git", "show", f"{reference}:dvc.lock"))
    assert [stage for stage in STAGES if theirs[stage] != ours[stage]] == STAGES[STAGES.index("plan") :]
