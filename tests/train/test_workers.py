"""Helping processes: they work, their failure is heard, and they end with the block."""

import os
import sys
import time
from pathlib import Path

import pytest

from segline.train.workers import WorkerError, helpers


def nothing() -> None:
    pass


def test_they_work_and_are_waited_for(tmp_path: Path) -> None:
    with helpers(2, nothing, Path.mkdir, tmp_path / "made", 0o777, False, True):
        pass
    assert (tmp_path / "made").is_dir()
    with helpers(0, nothing, os._exit, 1):
        pass


def test_the_failure_of_one_is_heard() -> None:
    with pytest.raises(WorkerError, match="2 of 2 processes failed, exit code 3"), helpers(2, nothing, os._exit, 3):
        pass


def test_they_end_when_the_block_fails() -> None:
    began = time.monotonic()
    with pytest.raises(KeyError), helpers(1, nothing, time.sleep, 600):
        raise KeyError
    assert time.monotonic() - began < 60


def test_they_end_when_this_process_is_to_end_while_it_waits_for_them() -> None:
    began = time.monotonic()

    def asked() -> None:
        sys.exit(143)

    with pytest.raises(SystemExit), helpers(1, asked, time.sleep, 600):
        pass
    assert time.monotonic() - began < 60
