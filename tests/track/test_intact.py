"""Check the files of a registered version: their kinds, and the refusal of one altered bit."""

import ast
import io
import json
import pickletools
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML
from safetensors import safe_open

from segline.gate import champion
from segline.gate.rules import floors
from segline.params import Gate
from segline.track import intact
from segline.track.packaging import Parts
from segline.track.registry import Registry, RegistryError, load_model
from segline.track.store import Store

GOOD = floors({"mean_iou": 0.9, "pixel_error": 0.05}, Gate())


@pytest.fixture
def folder(store: Store, parts: Parts, project: Path) -> Path:
    """Return the folder of a registered version."""
    with store.start_run("train") as run:
        champion.register(
            Registry(store, "cells"), parts, run, GOOD, {}, records={"images.csv": b"image,file,md5,split\n"}
        )
    return next(project.glob("mlruns/artifacts/**/MLmodel")).parent


def test_nothing_is_pickled_and_an_altered_bit_is_refused(folder: Path, store: Store, parts: Parts) -> None:
    present = {file for file in folder.rglob("*") if file.is_file()}
    assert not any("__pycache__" in file.parts for file in present)
    assert {file.relative_to(folder).as_posix() for file in present} == set(
        intact.recorded(Registry(store, "cells").version("1"))
    )
    for file in present:
        opened(file)
    answer = load_model(store, "models:/cells@champion")
    assert answer(parts.example).labels == parts.answer
    load_model(store, "models:/cells/1")
    for file in sorted(present):
        content = file.read_bytes()
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:] if content else b"x")
        with pytest.raises(RegistryError, match=f"{file.name} was altered"):
            load_model(store, "models:/cells@champion")
        file.write_bytes(content)
    (folder / "code" / "torch.py").write_text("")
    with pytest.raises(RegistryError, match=r"code/torch\.py was added"):
        load_model(store, "models:/cells@champion")


def test_loading_a_version_writes_nothing_into_its_folder(folder: Path, store: Store) -> None:
    before = {file: file.stat().st_mtime_ns for file in (folder, *folder.rglob("*"))}
    load_model(store, "models:/cells@champion")
    assert {file: file.stat().st_mtime_ns for file in (folder, *folder.rglob("*"))} == before


def opened(file: Path) -> None:
    """Open a file by its name suffix without unpickling, and check that it is not a pickle."""
    content = file.read_bytes()
    if file.suffix == ".safetensors":
        with safe_open(file, "numpy") as tensors:
            assert list(tensors.keys())
    elif file.suffix == ".json":
        json.loads(content)
    elif file.suffix in (".yaml", "") and file.name != "image":
        assert YAML(typ="safe", pure=True).load(content.decode())
    elif file.suffix == ".py":
        ast.parse(content)
    elif file.suffix in (".png", ".tif") or file.name == "image":
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format in ("PNG", "TIFF")
            picture.load()
    else:
        assert file.suffix in (".txt", ".csv")
        content.decode()
    with pytest.raises(ValueError):
        for _ in pickletools.genops(content):
            pass


@pytest.mark.usefixtures("folder")
def test_a_failing_load_of_an_intact_version_is_not_reported_as_altered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", "bogus")
    with pytest.raises(
        RegistryError, match=r"(?s)bogus.*; the variable MLFLOW_DEFAULT_PREDICTION_DEVICE is bogus; set it"
    ) as raised:
        load_model(store, "models:/cells/1")
    assert "altered" not in str(raised.value)
    monkeypatch.delenv("MLFLOW_DEFAULT_PREDICTION_DEVICE")
    monkeypatch.setattr("segline.track.modules.load", lambda *_: {}["x"])
    with pytest.raises(RegistryError, match="KeyError: 'x'; the version's files are unchanged"):
        load_model(store, "models:/cells/1")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.fwalk", refuse)
    with pytest.raises(RegistryError, match=r"cells version 1: the files cannot be checked: .*Permission denied"):
        load_model(store, "models:/cells/1")


@pytest.mark.parametrize(
    "address", ["models:/m-0123", "models:/cells", "models:/cells/latest", "runs:/0123/model", "x"]
)
def test_addresses_without_a_check_are_refused(store: Store, address: str) -> None:
    with pytest.raises(RegistryError, match=f"^{address} is not a model URI; give models:/NAME@ALIAS"):
        load_model(store, address)
