"""Eight processes that make the default store and log, register and promote there, all at once."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from segline.track.store import open_store

TRACK = Path(__file__).parents[1] / "track"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"track_{name}", TRACK / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


track, use = _load("conftest"), _load("test_concurrent_use")
made, project, parts, no_surroundings = track.made, track.project, track.parts, track.no_surroundings
model = use.model

pytestmark = pytest.mark.soak


def test_eight_processes(project: Path, model: Path, repository: Path) -> None:
    shutil.rmtree(project / "mlruns")
    use.at_once(model, repository, processes=8, promotions=12)
    use.judge(open_store(), processes=8, promotions=12)
