"""Eight processes create the default store and log, register and promote there at the same time."""

import shutil
from pathlib import Path

import pytest

from segline.track.store import open_store
from tests.track import conftest as track
from tests.track import test_concurrent_use as use

made, project, parts, no_surroundings = track.made, track.project, track.parts, track.no_surroundings
model = use.model

pytestmark = pytest.mark.soak


def test_eight_processes_share_a_store(project: Path, model: Path, repository: Path) -> None:
    shutil.rmtree(project / "mlruns")
    use.at_once(model, repository, processes=8, promotions=12)
    use.judge(open_store(), processes=8, promotions=12)
