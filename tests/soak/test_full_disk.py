"""Each command on a disk that is really full: a small tmpfs that holds the project."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.checkout import Project

pytestmark = pytest.mark.soak
ROOM = 96  # MiB beside the project
PREDICT = ("predict", "data/raw/cells/images/cells-000.png", "--model", "models:/cells@champion", "--out", "out")
COMMANDS = {
    "import": ("import", "source", "--name", "copy"),
    "prepare": ("prepare",),
    "weights": ("weights",),
    "tune": ("tune",),
    "train": ("train",),
    "evaluate": ("evaluate",),
    "register": ("register",),
    "preset": ("preset", "isbi2012_paper"),
    "predict": PREDICT,
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs; the test skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    for piece in (bytes(1 << 16), b"0"):
        # Without a buffer, because closing the file would raise an error if the buffer does not fit.
        with (disk / "filler").open("ab", buffering=0) as file, suppress(OSError):
            while file.write(piece):
                pass


def contents(folder: Path) -> dict[str, bytes]:
    """The files that a user would miss."""
    kept = [*folder.glob("*.*"), *(file for file in (folder / "data").rglob("*") if file.is_file())]
    return {str(file.relative_to(folder)): file.read_bytes() for file in kept if file.is_file()}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_a_full_disk_names_the_reason_and_can_be_repeated(
    finished: Project, disk: Path, tmp_path: Path, name: str
) -> None:
    project = Project(disk / "project")
    shutil.copytree(
        finished.folder, project.folder, symlinks=True, ignore=shutil.ignore_patterns(".git", "__pycache__")
    )
    shutil.rmtree(project.folder / "mlruns" / "training", ignore_errors=True)
    project.set(train={"seed": 1 if name in ("tune", "train") else 0})
    if name == "train":
        project.run("segline", "tune", PYTHONPATH="src")
    raw, source = project.folder / "data" / "raw" / "cells", project.folder / "source"
    shutil.copytree(raw / "images", source / "images")
    shutil.copytree(raw / "instances", source / "masks")
    before = contents(project.folder)
    fill(disk)
    command = ("segline", *COMMANDS[name])
    (tmp_path / "temporary").mkdir()
    result = project.attempt(
        *command, PYTHONPATH="src", PYTHONDONTWRITEBYTECODE="1", TMPDIR=str(tmp_path / "temporary")
    )
    text = result.stdout + result.stderr
    print(f"{name}: {result.returncode} {text.strip().splitlines()[-1]}")  # noqa: T201  the table of the test
    assert "Traceback" not in text
    assert result.returncode == 1
    assert re.search(r"[Nn]o space left on device|disk is full", text), text
    partial = [path for path in project.folder.rglob("*.partial") if "cache" not in path.parts]
    assert partial == []
    after = contents(project.folder)
    assert {file for file in before if after.get(file) not in (None, before[file])} == set()
    (disk / "filler").unlink()
    project.run(*command, PYTHONPATH="src")
