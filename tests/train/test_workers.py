"""Helping processes: they work, their failure is heard, and they end with the block."""

import os
import time
from pathlib import Path

import pytest

from segline.train.workers import WorkerError, helpers


def test_they_work_and_are_waited_for(tmp_path: Path) -> None:
    with helpers(2, Path.mkdir, tmp_path / "made", 0o777, False, True):
        pass
    assert (tmp_path / "made").is_dir()
    with helpers(0, os._exit, 1):
        pass


def test_the_failure_of_one_is_heard() -> None:
    with pytest.raises(WorkerError, match="2 of 2 processes failed, exit code 3"), helpers(2, os._exit, 3):
        pass


def test_they_end_when_the_block_fails() -> None:
    began = time.monotonic()
    with pytest.raises(KeyError), helpers(1, time.sleep, 600):
        raise KeyError
    assert time.monotonic() - began < 60
