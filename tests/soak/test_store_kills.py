"""A process is killed at a random moment while it creates a project's store; the next process opens the store."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 50


@pytest.mark.soak
def test_the_store_opens_after_each_of_fifty_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "dvc.yaml").touch()
    command = [sys.executable, __file__, str(KILLS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    moments = done.stdout.split()
    assert len(moments) == KILLS
    assert moments.count("incomplete") > KILLS // 4


def start_opener() -> int:
    """Open the store in a child process, and return its process id."""
    from segline.track.store import open_store

    if child := os.fork():
        return child
    try:
        store = open_store()
        with store.start_run("train"):
            pass
        os._exit(0)
    except BaseException as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201  shown by the failed test
        os._exit(1)


def wait_for(pattern: str) -> None:
    """Wait until mlruns has a file that matches `pattern`."""
    while not list(Path("mlruns").glob(pattern)):
        time.sleep(0.001)


def measure() -> float:
    """Create a store, and return the seconds from its first byte to the end of the last migration."""
    child = start_opener()
    wait_for("*.db")
    start = time.monotonic()
    wait_for("mlflow.db")
    seconds = time.monotonic() - start
    assert os.waitpid(child, 0)[1] == 0
    return seconds


def main() -> None:
    """Create, kill and reopen the store; children are forked, because importing MLflow takes longest."""
    chance = random.Random(0)
    longest = measure()
    for number in range(int(sys.argv[1])):
        shutil.rmtree("mlruns")
        Path("mlruns").mkdir()
        killed, *survivors = [
            start_opener() for _ in range(1 + number % 2)
        ]  # every second time two processes create the store
        wait_for("*.db")
        time.sleep(chance.uniform(0, longest))
        complete = Path("mlruns/mlflow.db").exists()
        os.kill(killed, signal.SIGKILL)
        os.waitpid(killed, 0)
        states = [os.waitpid(child, 0)[1] for child in (*survivors, start_opener())]
        remaining = {file.name for file in Path("mlruns").iterdir()}
        assert states == [0] * len(states), states
        assert remaining == {"mlflow.db", "open.lock"}, remaining
        print("complete" if complete else "incomplete", flush=True)  # noqa: T201  read by the test


if __name__ == "__main__":
    main()
