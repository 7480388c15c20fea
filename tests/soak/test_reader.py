"""Many damaged image files; SEGLINE_SOAK_CASES and SEGLINE_SOAK_SEED say how many and which."""

import importlib.util
import os
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "data" / "test_reader_fuzz.py"


@pytest.mark.soak
def test_many_damaged_files() -> None:
    spec = importlib.util.spec_from_file_location("reader_fuzz", FUZZ)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cases, seed = int(os.environ.get("SEGLINE_SOAK_CASES", "20000")), int(os.environ.get("SEGLINE_SOAK_SEED", "1"))
    assert module.fuzz(cases, seed)["read"] > cases / 100
