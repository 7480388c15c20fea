"""Register versions, and read them through MLflow's own client and by loading them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
import pytest

from segline.files import md5 as file_md5
from segline.gate import champion
from segline.gate.rules import floors
from segline.params import Gate
from segline.track.packaging import PackagingError, Parts
from segline.track.recording import StartedRun
from segline.track.registry import Answer, Md5s, Registered, Registry, RegistryError, load_model
from segline.track.store import Store, open_store
from segline.track.verdict import Verdict

GOOD = floors({"mean_iou": 0.9, "pixel_error": 0.05}, Gate())
BAD = floors({"mean_iou": 0.1, "pixel_error": 0.05}, Gate())
TAGS = {"model.md5": "m", "data.md5": "d", "dataset": "cells", "classes": '{"0": "background"}'}

REGISTER = """
import sys
from pathlib import Path
from segline.gate import champion
from segline.track.verdict import Verdict
from segline.track.registry import Registry
from segline.track.packaging import Parts
from segline.track.store import open_store
folder = Path(sys.argv[1])
example, answer, instances = ((folder / name).read_bytes() for name in ("example", "answer", "instances"))
parts = Parts(folder, folder / "inference.json", example, answer, instances, Path(sys.argv[2]))
store = open_store()
with store.start_run("train") as run:
    done = champion.register(Registry(store, "cells"), parts, run, Verdict(()), {"model.md5": "m"})
print(done.version, done.created)
"""


@pytest.fixture
def register(store: Store, parts: Parts, run: StartedRun) -> Callable[..., Registered]:
    """Return a function that registers `parts` as cells, with changes."""

    def call(verdict: Verdict = GOOD, parts: Parts = parts, name: str = "cells", card: str = "# Card") -> Registered:
        return champion.register(Registry(store, name), parts, run, verdict, TAGS, description=card)

    return call


def answer(store: Store, uri: str, image: bytes) -> bytes:
    with store.current():
        model = mlflow.pyfunc.load_model(uri)
    labels: bytes = model.predict(pd.DataFrame({"image": [image]}))["labels"][0]
    return labels


def test_first_model_that_passes_is_challenger_and_champion(
    store: Store, register: Callable[..., Registered], parts: Parts, run: StartedRun
) -> None:
    assert register() == Registered("cells", "1", ("challenger", "champion"), True, Md5s.of(parts))
    version = store.client.get_model_version_by_alias("cells", "champion")
    assert TAGS.items() <= version.tags.items()
    assert version.tags["version.md5"] == parts.md5
    assert json.loads(version.tags["gate"]) == GOOD.as_dict()
    assert version.description == "# Card"
    assert version.run_id == run.id
    logged = store.client.get_logged_model(version.source.removeprefix("models:/"))
    assert str(logged.status) == "READY"
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "cells", "version": "1"}]
    assert [output.model_id for output in store.client.get_run(run.id).outputs.model_outputs] == [logged.model_id]
    assert answer(store, "models:/cells@champion", parts.example) == parts.answer


def test_a_first_model_below_the_floors_is_not_champion(store: Store, register: Callable[..., Registered]) -> None:
    assert register(BAD).aliases == ("challenger",)
    assert Registry(store, "cells").holder("champion") is None
    assert [line.action for line in Registry(store, "cells").history()] == ["register"]


def test_a_repeated_registration_changes_nothing(store: Store, register: Callable[..., Registered]) -> None:
    first = register()
    assert register() == replace(first, created=False)
    assert len(store.client.search_model_versions("name = 'cells'")) == 1
    assert [line.action for line in Registry(store, "cells").history()] == ["register", "promote"]


def test_registering_a_former_version_again_finds_it(
    store: Store, register: Callable[..., Registered], parts: Parts, tmp_path: Path
) -> None:
    inference = tmp_path / "inference.json"
    inference.write_text('{"threshold": null, "views": 8, "tile": 0}')
    tiled = replace(parts, inference=inference, answer=parts.answer)
    with pytest.raises(PackagingError):  # the answer of eight views differs from that of one view
        register(parts=replace(tiled, answer=parts.example))
    assert len(store.client.search_model_versions("name = 'cells'")) == 0
    separation = '"separation": {"depth": 1.0, "min_area": 3}'
    inference.write_text(f'{{"threshold": null, {separation}, "views": 1, "tile": 32}}')
    assert register().version == "1"
    assert register(parts=tiled) == Registered("cells", "2", ("challenger",), True, Md5s.of(tiled))
    assert register() == Registered("cells", "1", ("challenger", "champion"), False, Md5s.of(parts))


def test_models_of_different_names_are_independent(store: Store, register: Callable[..., Registered]) -> None:
    assert register(name="cells").version == "1"
    assert register(name="it's v1.5").aliases == ("challenger", "champion")
    assert {line.name for line in Registry(store, "it's v1.5").history()} == {"it's v1.5"}


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "a\nb", "a\x1bb", 'it\'s "v1"'])
def test_invalid_model_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(RegistryError, match=r"registration\.name"):
        Registry(store, name)


def test_a_long_model_card_is_cut(store: Store, register: Callable[..., Registered]) -> None:
    register(card="x" * 6000)
    description = store.client.get_model_version("cells", "1").description
    assert len(description) <= 5000
    assert "model_card.md" in description


def test_registration_and_promotion_are_lines_of_the_history(
    store: Store, register: Callable[..., Registered], parts: Parts, project: Path
) -> None:
    register()
    registered, content = map(json.loads, (project / "registry.jsonl").read_text().splitlines())
    assert content["version_md5"] == registered["version_md5"] == parts.md5
    assert content["model_md5"] == file_md5(parts.model / "weights.safetensors")
    assert (content["alias"], registered["alias"]) == ("champion", "challenger")
    assert (content["action"], registered["action"]) == ("promote", "register")
    assert set(content) == {
        "time", "name", "alias", "version_md5", "model_md5", "commit", "dirty", "who", "reason", "action", "forced",
    }  # fmt: skip
    assert content["reason"]
    assert [line.version_md5 for line in Registry(store, "cells").history()] == [parts.md5, parts.md5]


def test_an_interrupted_first_promotion_is_completed(
    store: Store, register: Callable[..., Registered], project: Path
) -> None:
    register()
    store.client.delete_registered_model_alias("cells", "champion")
    assert register().aliases == ("challenger", "champion")
    assert len((project / "registry.jsonl").read_text().splitlines()) == 2


def test_the_champion_is_loaded_after_a_move_of_the_project(
    store: Store, parts: Parts, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.start_run("train") as run:
        champion.register(Registry(store, "cells"), parts, run, GOOD, TAGS)
    moved = project.with_name("moved")
    project.rename(moved)
    monkeypatch.chdir(moved)
    again = open_store()
    assert answer(again, "models:/cells@champion", parts.example) == parts.answer
    assert not project.exists()
    assert str(project).encode() not in (moved / "mlruns" / "mlflow.db").read_bytes()


def test_a_loaded_model_answers_with_labels_and_instances(
    store: Store, register: Callable[..., Registered], parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    assert load_model(store, "models:/cells@champion")(parts.example) == Answer(parts.answer, parts.instances)
    # The code of versions registered before instances were supported does not mention them.
    monkeypatch.setattr("segline.track.answers.PARAMS", ())
    assert load_model(store, "models:/cells@champion")(parts.example) == Answer(parts.answer)


def test_two_processes_at_once_make_one_version(store: Store, parts: Parts, tmp_path: Path, repository: Path) -> None:
    for name in ("weights.safetensors", "model.json", "inference.json"):
        (tmp_path / name).write_bytes((parts.model / name).read_bytes())
    (tmp_path / "example").write_bytes(parts.example)
    (tmp_path / "answer").write_bytes(parts.answer)
    (tmp_path / "instances").write_bytes(parts.instances)
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    command = [sys.executable, "-c", REGISTER, str(tmp_path), str(parts.room)]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    answers = sorted(process.communicate()[0].decode().strip() for process in processes)
    assert answers == ["1 False", "1 True"]
    assert len(store.client.search_model_versions("name = 'cells'")) == 1
    assert [line.action for line in Registry(store, "cells").history()] == ["register", "promote"]
