"""Claims on training folders, differences to other trainings, and removal of old ones."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from segline.files import FileError
from segline.train import resume
from segline.train.resume import claim

HOLD = """
import sys, time
from pathlib import Path
from segline.train import resume
with resume.claim(Path(sys.argv[1]), {"train.epochs": "5"}, print):
    print("held", flush=True)
    sys.stdin.read()
"""
CROWD = """
import sys
from pathlib import Path
from segline.train import resume
print("there", flush=True)
sys.stdin.readline()
for number in range(40):
    with resume.claim(Path(sys.argv[1]), {"a": str(number)}, lambda _: None) as claim:
        claim.differences()
        (claim.folder / "epoch-00001").mkdir(exist_ok=True)
        claim.prune()
        claim.run = "abc"
        (claim.folder / "epoch-00001" / "weights").touch()
        claim.finish("md5", keep=False)
"""


def unfinished(root: Path, age: float = 0, **parts: str) -> Path:
    """Make the folder of a training that was stopped after its first epoch."""
    with resume.claim(root, parts, pytest.fail) as claim:
        (claim.folder / "epoch-00001").mkdir(exist_ok=True)
    os.utime(claim.folder, (time.time() - age,) * 2)
    return claim.folder


def test_the_folder_depends_on_all_parts(tmp_path: Path) -> None:
    folders = [unfinished(tmp_path, a="1", b="2"), unfinished(tmp_path, b="2", a="1"), unfinished(tmp_path, a="1")]
    assert folders[0] == folders[1] != folders[2]
    assert json.loads((folders[0] / "parts.json").read_text()) == {"a": "1", "b": "2"}


def test_a_training_that_finished_or_never_started_leaves_no_folder(tmp_path: Path) -> None:
    with resume.claim(tmp_path, {"a": "1"}, pytest.fail):
        pass
    with resume.claim(tmp_path, {"a": "2"}, pytest.fail) as claim:
        (claim.folder / "epoch-00001").mkdir()
        claim.run = "abc"
        assert claim.run == "abc"
        claim.finish("md5", keep=False)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_training_is_kept_until_dvc_has_the_model(tmp_path: Path) -> None:
    with resume.claim(tmp_path, {"a": "1"}, pytest.fail) as claim:
        (claim.folder / "epoch-00001").mkdir()
        assert claim.finished is None
        claim.finish("md5", keep=True)
    with resume.claim(tmp_path, {"a": "1"}, pytest.fail) as claim:
        assert claim.finished == "md5"
        claim.clear()
        assert claim.finished is None
    with resume.claim(tmp_path, {"a": "2"}, pytest.fail) as claim:
        assert claim.differences() is None


def test_changed_settings_are_named(tmp_path: Path) -> None:
    unfinished(tmp_path, 9, epochs="9")
    unfinished(tmp_path, 1, **{"train.epochs": "5", "data": "x", "a": "1", "b": "1", "c": "1"})
    with resume.claim(tmp_path, {"train.epochs": "6", "data": "x", "a": "1", "b": "1", "c": "1"}, pytest.fail) as claim:
        assert claim.differences() == "train.epochs (5 before)"
    with resume.claim(tmp_path, {"a": "2", "b": "2", "c": "2", "data": "x"}, pytest.fail) as claim:
        assert claim.differences() == "a (1 before), b (1 before), c (1 before), 1 more"


def test_prune_keeps_the_latest_other_trainings(tmp_path: Path) -> None:
    folders = [unfinished(tmp_path, age, a=str(age)) for age in range(6)]
    own = unfinished(tmp_path, 99, a="own")
    with resume.claim(tmp_path, {"a": "own"}, pytest.fail) as claim:
        claim.prune()
    assert set(tmp_path.iterdir()) == {own, *folders[: resume.OTHERS]}


def test_a_claim_is_exclusive_and_released_by_a_kill(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdin is not None
    assert other.stdout.readline() == "held\n"
    (folder,) = tmp_path.iterdir()
    with resume.claim(tmp_path, {"a": "1"}, pytest.fail) as claim:
        claim.prune()  # keeps the running training
    assert folder.exists()
    messages = []

    def say(line: str) -> None:
        messages.append(line)
        other.kill()

    with resume.claim(tmp_path, {"train.epochs": "5"}, say) as claim:
        assert claim.folder == folder
    assert len(messages) == 1
    assert "waiting until it ends" in messages[0]
    other.communicate()


def test_a_folder_removed_by_its_former_owner_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner removes the folder after this process has opened the lock file and before it locks it."""
    lockf, calls = resume.fcntl.lockf, []

    def slow(*args: object) -> None:
        if not calls:
            calls.append(1)
            shutil.rmtree(next(tmp_path.iterdir()))
        lockf(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(resume.fcntl, "lockf", slow)
    with resume.claim(tmp_path, {"a": "1"}, pytest.fail) as claim:
        assert (claim.folder / "lock").exists()


def test_many_processes_can_claim_and_release_at_the_same_time(tmp_path: Path) -> None:
    for number in range(30):
        unfinished(tmp_path, number, a=str(number))
    command = [sys.executable, "-c", CROWD, str(tmp_path)]
    with ExitStack() as stack:
        crowd = [stack.enter_context(started(command)) for _ in range(4)]
        for process in crowd:
            assert process.stdout is not None
            assert process.stdout.readline() == "there\n"
        for process in crowd:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        errors = [process.communicate()[1] for process in crowd]
    assert errors == [""] * len(crowd)


def started(command: list[str]) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("data", [b"[1]", b'{"run": 7}', b'{"run": "../x"}', b"x", b'{"run": "' + b"x" * 100 + b'"}'])
def test_a_damaged_run_record_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    with claim(tmp_path, {"a": "1"}, print) as claimed:
        (claimed.folder / "run.json").write_bytes(data)
        with pytest.raises(
            FileError, match=r"run\.json: .*remove this file; the training then gets a new run|run\.json: not valid"
        ):
            _ = claimed.run


def test_files_beside_the_trainings_are_not_touched(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "epoch-00001").mkdir(parents=True)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "notes").mkdir()
    (tmp_path / "root" / "notes" / "text").touch()
    (tmp_path / "root" / ("0" * 32)).symlink_to(mine)
    with claim(tmp_path / "root", {"a": "1"}, print) as claimed:
        (claimed.folder / "link").symlink_to(mine)
        claimed.prune()
        claimed.clear()
    assert (tmp_path / "root" / "notes" / "text").exists()
    assert (mine / "epoch-00001").exists()
