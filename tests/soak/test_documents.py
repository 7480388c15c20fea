"""Many damaged YAML and JSON documents; SEGLINE_SOAK_CASES sets the number per document, SEGLINE_SOAK_SEED the seed.

By default 5,000 mutations of each of params.yaml, dataset.yaml, model.json, inference.json, predictions.jsonl and
state.json: 30,000 in all.
"""

import os
from pathlib import Path

import pytest

from tests.test_parse import fuzz

SETTINGS = b"train: {epochs: 3, learning_rate: 3e-4, schedule: {kind: cosine}}\nmodel: {depth: 2, norm: batch}\n"


@pytest.mark.soak
def test_damaged_documents_are_read_or_refused(tmp_path: Path) -> None:
    cases, seed = int(os.environ.get("SEGLINE_SOAK_CASES", "5000")), int(os.environ.get("SEGLINE_SOAK_SEED", "1"))
    outcomes = fuzz(cases, seed, tmp_path, SETTINGS)
    assert sum(outcomes.values()) == 6 * cases
    assert sum(count for name, count in outcomes.items() if name.endswith("read")) > cases / 10
