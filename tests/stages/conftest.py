"""Fixtures of the light stages: a project with params.yaml in its own folder."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

PARAMS = """\
data: {source: data/raw/cells}
sample: {images: 6, min_size: 64, max_size: 80, seed: 3}
tune: {trials: 0}
runtime: {progress: "off"}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project with settings for six small drawn images; it is the working directory."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tree() -> Callable[[Path], dict[str, str]]:
    """Return a function that gives the MD5 of each file below a folder, by its path in it."""

    def md5s(folder: Path) -> dict[str, str]:
        found = (file for file in sorted(folder.rglob("*")) if file.is_file())
        return {str(file.relative_to(folder)): hashlib.md5(file.read_bytes()).hexdigest() for file in found}

    return md5s
