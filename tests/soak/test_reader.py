"""Many damaged image files; SEGLINE_SOAK_CASES and SEGLINE_SOAK_SEED say how many and which."""

import os

import pytest

from tests.data.test_reader_fuzz import fuzz


@pytest.mark.soak
def test_many_damaged_files() -> None:
    cases, seed = int(os.environ.get("SEGLINE_SOAK_CASES", "20000")), int(os.environ.get("SEGLINE_SOAK_SEED", "1"))
    assert fuzz(cases, seed)["read"] > cases / 100
