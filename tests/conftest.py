"""What every room's tests share: where the repository is, and real data where a machine has it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import segline  # noqa: F401  sets the environment that keeps libraries from phoning home

ROOT = Path(__file__).parents[1]
# A process that a test starts runs this checkout's code, whatever is installed.
os.environ["PYTHONPATH"] = str(ROOT / "src")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of this checkout; never written to."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Folder of a real dataset below SEGLINE_TEST_DATA, or a skip that says what is missing."""

    def find(name: str) -> Path:
        root = os.environ.get("SEGLINE_TEST_DATA")
        if not root:
            pytest.skip("SEGLINE_TEST_DATA is not set: no real data on this machine")
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"SEGLINE_TEST_DATA={root} holds no {name}")
        return folder

    return find
