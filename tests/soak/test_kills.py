"""Stage train stopped at every named point by both signals; the table is printed and saved as $SEGLINE_KILL_TABLE."""

import os
from pathlib import Path

import pytest

from tests.stages import kill_at as points
from tests.stages import test_train_killed as killed

ready = killed.ready  # the fixture


@pytest.mark.soak
def test_a_training_resumes_wherever_it_is_stopped(ready: Path, tmp_path: Path) -> None:
    cases = [
        {"point": point, "signal": number}
        for point, (_, _, when) in points.POINTS.items()
        for number in ("SIGKILL", "SIGTERM")
        if not (when == "half" and number == "SIGTERM")
    ]
    uninterrupted, *results = killed.run(ready, tmp_path, cases)
    table = killed.table(cases, results, uninterrupted)
    print(table)  # noqa: T201  what the test is for
    if file := os.environ.get("SEGLINE_KILL_TABLE"):
        Path(file).write_text(table + "\n")
    assert [line for line in table.splitlines()[1:] if not line.endswith("none")] == []
