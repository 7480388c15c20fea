"""Run sync with nothing to restore, or without a source to restore from; tests/soak restores in a real clone."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from segline.commands import sync
from segline.track.history import Promotion, read_history
from segline.track.registry import RegistryError

LINE = Promotion("2026-01-01T00:00:00+00:00", "cells", "champion", "a" * 32, "e" * 32, "", "false", "me", "first")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a clone of a project without a store."""
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        program = [command[0]] if command[0] == "git" else [sys.executable, "-m", "dvc"]
        subprocess.run([*program, *command[1:]], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "dvc.lock").write_text(f"stages: {{train: {{outs: [{{path: data/model/x, md5: {'e' * 32}}}]}}}}\n")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def never(name: str) -> str:
    raise AssertionError(name)


def test_sync_without_promotions_does_nothing(project: Path) -> None:
    output: list[str] = []
    sync.main(never, output.append)
    assert "nothing to restore" in output[0]
    (project / "registry.jsonl").write_text("{}\n")
    with pytest.raises(RegistryError, match=r"registry\.jsonl, line 1"):
        sync.main(never, output.append)


def test_sync_names_all_versions_without_a_commit(project: Path) -> None:
    history = project / "registry.jsonl"
    lines = [LINE, Promotion(**{**asdict(LINE), "version_md5": "b" * 32, "model_md5": "f" * 32})]
    history.write_text("".join(f"{json.dumps(asdict(line))}\n" for line in lines))
    identity = ["-c", "user.name=test", "-c", "user.email=test@segline.invalid"]
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", *identity, "commit", "-qm", "all"], check=True)
    with pytest.raises(sync.SyncError) as failure:
        sync.main(never, lambda _: None)
    first, second = str(failure.value).splitlines()
    assert f"cells {'a' * 32} cannot be restored: commit " in first
    assert (
        "lists the version's weights in dvc.lock, but has other inference settings or other model code than the "
        "version; restore dvc.lock and the code as they were at registration, then commit and push them" in first
    )
    assert (
        f"cells {'b' * 32} cannot be restored: no commit of this clone has a dvc.lock with the version's weights"
        in second
    )
    assert read_history(history) == lines
