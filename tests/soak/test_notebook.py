"""examples/tutorial.ipynb runs from top to bottom, and shows the same kinds of output as those kept in the file."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import Project
from tests.soak.test_tutorial import BLOCK, USER, shape

pytestmark = pytest.mark.soak

Cell = dict[str, Any]
PICTURES = 5
LARGEST = 600_000  # bytes


def code_cells(file: Path) -> list[Cell]:
    return [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]


def pictures(cell: Cell) -> int:
    """Count the pictures that a cell shows."""
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])


def printed(cell: Cell) -> list[str]:
    """Return the lines that a cell prints to stdout, without numbers."""
    text = "".join("".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stdout")
    return [shape(line) for line in text.splitlines()]


@pytest.fixture
def kept(repository: Path) -> Path:
    return repository / "examples" / "tutorial.ipynb"


def test_the_notebook_runs_and_shows_the_kept_kinds_of_output(kept: Path, tmp_path: Path) -> None:
    notebook = tmp_path / kept.name
    shutil.copy(kept, notebook)
    folders = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "temporary"}  # Jupyter and the notebook write there
    for folder in folders.values():
        folder.mkdir()
    execute = [sys.executable, "-c", "from nbclient.cli import main; main()", "--inplace", str(notebook)]
    Project(tmp_path).run(*execute, **USER, **{name: str(folder) for name, folder in folders.items()})
    for now, before in zip(code_cells(notebook), code_cells(kept), strict=True):
        assert pictures(now) == pictures(before), now["source"]
        assert printed(now) == printed(before), now["source"]


def test_the_kept_notebook_has_its_pictures_and_no_errors(kept: Path) -> None:
    cells = code_cells(kept)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(pictures(cell) for cell in cells) == PICTURES
    assert {output["output_type"] for cell in cells for output in cell["outputs"]} <= {"stream", "display_data"}
    assert kept.stat().st_size < LARGEST


def test_the_kept_notebook_names_no_path_of_a_machine(kept: Path) -> None:
    assert re.findall(r"/(?:home|root|tmp|work|Users)/\S*", kept.read_text()) == []


def test_the_notebook_draws_the_discs_of_the_tutorial(kept: Path, repository: Path) -> None:
    page = (repository / "docs" / "tutorial.md").read_text()
    (script,) = (content for _, name, content in BLOCK.findall(page) if name == "draw.py")
    assert script.rstrip("\n") in ["".join(cell["source"]) for cell in code_cells(kept)]
