"""A process killed at random moments while it makes a project's store: every later process opens the store."""

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
def test_fifty_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "dvc.yaml").touch()
    command = [sys.executable, __file__, str(KILLS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    moments = done.stdout.split()
    assert len(moments) == KILLS
    assert moments.count("under-way") > KILLS // 4


def opened() -> int:
    """Open the store in a process of its own; the process."""
    from segline.track.store import open_store

    if child := os.fork():
        return child
    try:
        store = open_store()
        with store.start_run("train"):
            pass
        os._exit(0)
    except BaseException as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201  what the test shows
        os._exit(1)


def wait_for(pattern: str) -> None:
    """Return when there is such a file in mlruns."""
    while not list(Path("mlruns").glob(pattern)):
        time.sleep(0.001)


def undisturbed() -> float:
    """Make a store; seconds from its first byte to the end of the last migration."""
    child = opened()
    wait_for("*.db")
    begun = time.monotonic()
    wait_for("mlflow.db")
    taken = time.monotonic() - begun
    assert os.waitpid(child, 0)[1] == 0
    return taken


def main() -> None:
    """Fork: the imports, which take longest, are made once."""
    chance = random.Random(0)
    longest = undisturbed()
    for number in range(int(sys.argv[1])):
        shutil.rmtree("mlruns")
        Path("mlruns").mkdir()
        killed, *others = [opened() for _ in range(1 + number % 2)]  # every second time two make it at once
        wait_for("*.db")
        time.sleep(chance.uniform(0, longest))
        whole = Path("mlruns/mlflow.db").exists()
        os.kill(killed, signal.SIGKILL)
        os.waitpid(killed, 0)
        states = [os.waitpid(child, 0)[1] for child in (*others, opened())]
        left = {file.name for file in Path("mlruns").iterdir()}
        assert states == [0] * len(states), states
        assert left == {"mlflow.db", "open.lock"}, left
        print("whole" if whole else "under-way", flush=True)  # noqa: T201  what the test reads


if __name__ == "__main__":
    main()
