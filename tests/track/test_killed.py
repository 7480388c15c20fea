"""Kill a registration at the calls that leave most behind; tests/soak/test_registry_kills.py tests all calls."""

import pytest
from mlflow import MlflowClient

from segline.track import history, versions
from segline.track.packaging import Parts
from segline.track.store import Store
from tests.track import killed

FEW = ((MlflowClient, "create_logged_model"), (history, "append"), (MlflowClient, "create_model_version"))


def test_next_registration_repairs_a_killed_one(store: Store, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_upload", killed.upload)
    killed.kill_and_repair(store, parts, FEW, ("after",))
