"""The first command of a checkout killed at random moments while it makes the store: every later command works."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak
KILLS = 50
COMMAND = [sys.executable, "-m", "segline", "runs"]
LONGEST = 2.0  # seconds from the first byte of a store to its last migration, and some more


def start(project: Path) -> "subprocess.Popen[bytes]":
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(COMMAND, cwd=project, start_new_session=True, **quiet)  # type: ignore[call-overload]


def first_byte(project: Path, process: "subprocess.Popen[bytes]") -> None:
    """Return when there is a database under either name, or the process has ended."""
    while process.poll() is None and not list((project / "mlruns").glob("*.db")):
        time.sleep(0.002)


def test_fifty_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "dvc.yaml").touch()
    chance, killed = random.Random(0), 0
    for number in range(KILLS):
        shutil.rmtree(tmp_path / "mlruns", ignore_errors=True)
        others = [start(tmp_path) for _ in range(1 + number % 2)]  # every second time two make it at once
        first_byte(tmp_path, others[0])
        time.sleep(chance.uniform(0, LONGEST))
        if others[0].poll() is None:
            os.killpg(others[0].pid, signal.SIGKILL)
            killed += 1
        others[0].wait()
        assert [other.wait() for other in others[1:]] in ([], [0])
        done = subprocess.run(COMMAND, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert {file.name for file in (tmp_path / "mlruns").iterdir()} == {"mlflow.db", "open.lock"}
    assert killed > KILLS // 4
