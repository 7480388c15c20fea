import resource
from pathlib import Path

import numpy as np
import pytest

from segline.data import files
from segline.data.prepared import Arrays


def test_arrays_open_one_file_at_a_time(tmp_path: Path) -> None:
    """More arrays than a process may have files open: each is opened when it is asked for."""
    names = [f"{number}" for number in range(300)]
    for name in names:
        files.save_array(tmp_path / name, np.full((2, 3), int(name), np.int32))
    arrays = Arrays(names, lambda name: files.load_array(tmp_path / name))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        held = [array.shape for array in arrays]
        assert [int(arrays[index][0, 0]) for index in range(len(arrays))] == list(range(300))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert held == [(2, 3)] * 300
    assert [int(array[0, 0]) for array in arrays[5:8]] == [5, 6, 7]
    with pytest.raises(IndexError):
        arrays[300]
