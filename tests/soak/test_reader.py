"""Many damaged image files; SEGLINE_SOAK_CASES sets their number, SEGLINE_SOAK_SEED the seed."""

import os

import pytest

from tests.data.test_reader_fuzz import fuzz


@pytest.mark.soak
def test_damaged_image_files_are_read_or_refused() -> None:
    cases, seed = int(os.environ.get("SEGLINE_SOAK_CASES", "20000")), int(os.environ.get("SEGLINE_SOAK_SEED", "1"))
    assert fuzz(cases, seed)["read"] > cases / 100
