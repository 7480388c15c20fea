"""The Python interface: the same results as the version's own files, whatever way the image comes in."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow.artifacts
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

import segline
from segline.commands import predict
from segline.gate import champion
from segline.model.images import decode, encode_png
from segline.serve import following, reports
from segline.track import packaging, rows
from segline.track.packaging import Parts
from segline.track.registry import Registry
from segline.track.store import Store
from segline.track.verdict import Verdict
from tests.checkout import read_only
from tests.track import conftest as track

parts, made, project, store = track.parts, track.made, track.project, track.store
no_surroundings = track.no_surroundings

NAMES = ["Dataset", "Segmentation", "Segmenter", "load", "read_dataset"]


@pytest.fixture(scope="session")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, as MLflow stores it for a version."""
    folder = tmp_path_factory.mktemp("packed") / "model"
    packaging.pack(parts, folder)
    return folder


@pytest.fixture
def model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> segline.Segmenter:
    """The model, loaded in an empty folder without a project."""
    monkeypatch.chdir(tmp_path)
    return segline.load(folder)


@pytest.fixture(scope="session")
def pixels(parts: Parts) -> npt.NDArray[np.uint8]:
    return decode(parts.example)[..., 0]


def assert_stored(prediction: segline.Segmentation, parts: Parts) -> None:
    """The prediction equals the one that was computed when the model was made."""
    assert prediction.labels.dtype == np.uint8 and prediction.labels.shape == (33, 47)
    np.testing.assert_array_equal(prediction.labels, decode(parts.answer)[..., 0])
    assert prediction.objects is not None and prediction.objects.dtype == np.int32
    np.testing.assert_array_equal(prediction.objects, decode(parts.instances)[..., 0])


def test_the_public_names_are_these() -> None:
    assert segline.__all__ == NAMES
    assert set(NAMES) <= set(dir(segline))
    for name in NAMES:
        assert inspect.getdoc(getattr(segline, name)), name
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        segline.predict  # noqa: B018


def test_import_loads_no_large_library() -> None:
    code = "import sys, segline; print(sorted({'torch', 'mlflow', 'numpy', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_model_folder_needs_no_project(model: segline.Segmenter, parts: Parts, tmp_path: Path) -> None:
    assert model.classes == {0: "background", 1: "cell"} and model.channels == 1 and model.md5 == parts.md5
    assert_stored(model.predict(parts.example), parts)
    assert list(tmp_path.iterdir()) == []


def test_a_model_folder_in_a_read_only_checkout_predicts(
    folder: Path, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "Nur lesen für alle"
    shutil.copytree(folder, checkout / "model")
    (checkout / "a.png").write_bytes(parts.example)
    before = sorted(checkout.rglob("*"))
    monkeypatch.chdir(tmp_path)
    with read_only(checkout):
        monkeypatch.chdir(checkout)
        assert_stored(segline.load("model").predict("a.png"), parts)
        predict.main(["a.png"], "model", tmp_path / "labels", "off", predict.PredictOptions())
        with pytest.raises(OSError, match=r"Read-only|Permission"):
            predict.main(["a.png"], "model", Path("labels"), "off", predict.PredictOptions())
        assert sorted(checkout.rglob("*")) == before
        monkeypatch.chdir(tmp_path)
    assert (tmp_path / "labels" / "a.png").read_bytes() == parts.answer


def test_arrays_paths_and_bytes_give_the_same(
    model: segline.Segmenter, parts: Parts, pixels: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    file = tmp_path / "a b.png"
    file.write_bytes(parts.example)
    for image in (pixels, pixels[..., None], np.asfortranarray(pixels), file, str(file), parts.example):
        assert_stored(model.predict(image), parts)


def test_probabilities_are_those_of_the_labels(model: segline.Segmenter, pixels: npt.NDArray[np.uint8]) -> None:
    prediction = model.predict(pixels, probabilities=True)
    assert prediction.probabilities is not None and prediction.probabilities.shape == (2, 33, 47)
    np.testing.assert_allclose(prediction.probabilities.sum(axis=0), 1, atol=1e-5)
    likeliest = prediction.probabilities.argmax(axis=0)
    assert (likeliest[prediction.labels == 1] == 1).all()  # the watershed only removes pixels between objects
    assert (likeliest == prediction.labels).mean() > 0.9
    averaged = model.predict(pixels, views=8, probabilities=True).probabilities
    assert averaged is not None and not np.array_equal(averaged, prediction.probabilities)


def test_other_ways_to_give_an_image(model: segline.Segmenter, parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(parts.example)
    with os.scandir(tmp_path) as entries:
        for entry in entries:
            assert_stored(model.predict(entry), parts)
            assert set(model.predict_large(entry, "out")) == {"labels", "instances"}
    for image in (bytearray(parts.example), memoryview(parts.example)):
        assert_stored(model.predict(image), parts)


def test_an_error_names_the_file(model: segline.Segmenter) -> None:
    Path("a.png").write_bytes(encode_png(np.zeros((5, 5), np.uint16)))
    with pytest.raises(ValueError, match=r"^a\.png: .*uint16"):
        model.predict("a.png")
    with pytest.raises(ValueError, match=r"^the image\b(?!.*image 0).*uint16"):
        model.predict(np.zeros((5, 5), np.uint16))


def test_predict_large_takes_one_image(model: segline.Segmenter, parts: Parts) -> None:
    """A folder or pattern is not expanded, as the result has the files of one image."""
    Path("scans").mkdir()
    for name in ("scans/a.png", "scans/b.png", "scan1.png"):
        Path(name).write_bytes(parts.example)
    for name in ("scans", "scans/*.png", "scan[1].png", "none.png"):
        with pytest.raises(ValueError, match=re.escape(name)):
            model.predict_large(name, "out")
    assert not list(Path().glob("out/*.png"))


def test_large_images_give_the_same(
    model: segline.Segmenter,
    parts: Parts,
    pixels: npt.NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = model.predict(pixels, probabilities=True)
    monkeypatch.setattr(rows, "LARGE", 100)
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, pixels, tile=(16, 16))
    for image in (pixels, file):
        prediction = model.predict(image, probabilities=True)
        assert_stored(prediction, parts)
        np.testing.assert_array_equal(prediction.probabilities, whole.probabilities)


def test_predict_large_writes_the_files_of_the_command(
    model: segline.Segmenter, parts: Parts, pixels: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, pixels)
    written = model.predict_large(file, "results", overlays=True)
    assert {kind: path.name for kind, path in written.items()} == {
        "labels": "a.png",
        "instances": "a_instances.png",
        "overlays": "a_overlay.png",
    }
    assert written["labels"].read_bytes() == parts.answer
    np.testing.assert_array_equal(decode(written["instances"].read_bytes()), decode(parts.instances))
    times = {path: path.stat().st_mtime_ns for path in written.values()}
    assert model.predict_large(file, "results", overlays=True) == written
    assert {path: path.stat().st_mtime_ns for path in written.values()} == times


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5,), np.uint8), r"shape \(5,\)"),
        (np.zeros((0, 5), np.uint8), r"shape \(0, 5\)"),
        (np.zeros((5, 5), np.int64), "type int64; convert it to .* uint8, uint16, float32"),
        (np.zeros((5, 5), np.uint16), "uint16"),
        (np.zeros((5, 5, 2), np.uint8), "channels"),
        (b"no image", "^the image: not a readable"),
        ("missing.png", "missing.png"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(model: segline.Segmenter, image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.predict(image)


@pytest.mark.parametrize("file", ["weights.safetensors", "model.json", "inference.json"])
def test_a_damaged_folder_is_refused(folder: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damaged = copy / "artifacts/model" / file
    content = bytearray(damaged.read_bytes())
    content[-2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match="missing or altered"):
        segline.load(copy)


def test_links_in_a_folder_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "artifacts/model/weights.safetensors"
    weights.unlink()
    weights.symlink_to(folder / "artifacts/model/weights.safetensors")
    with pytest.raises(ValueError, match=r"weights\.safetensors is a link; segline reads only regular files"):
        segline.load(copy)


def test_a_missing_model_is_a_value_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address, message in (("", "is empty"), ("none", "not a model folder"), ("models:/cells/1", "inside a project")):
        with pytest.raises(ValueError, match=message):
            segline.load(address)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_mlflow_has_copied_is_loaded(
    store: Store, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.start_run("train") as run:
        Registry(store, "cells").register(parts, run, Verdict(()), {})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.place.uri)  # set_tracking_uri sets it beyond the end of the test
    mlflow.set_tracking_uri(store.place.uri)
    mlflow.artifacts.download_artifacts("models:/cells/1", dst_path=str(tmp_path / "copy"))
    assert_stored(segline.load(tmp_path / "copy").predict(parts.example), parts)


@pytest.mark.parametrize("file", ["MLmodel", "artifacts/model/weights.safetensors", "artifacts/model/model.json"])
def test_an_incomplete_folder_is_refused(folder: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / file).unlink()
    with pytest.raises(ValueError, match="not a model folder" if file == "MLmodel" else "are missing or altered"):
        segline.load(copy)


def test_altered_code_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (code,) = copy.glob("code/*/served.py")
    code.write_text(code.read_text() + "\nprint('altered')\n")
    with pytest.raises(ValueError, match="are missing or altered"):
        segline.load(copy)


def test_a_registered_version_is_loaded_by_its_address(store: Store, parts: Parts) -> None:
    with store.start_run("train") as run:
        Registry(store, "cells").register(parts, run, Verdict(()), {})
    model = segline.load("models:/cells@challenger")
    assert_stored(model.predict(parts.example), parts)
    assert "cells@challenger" in repr(model) and parts.md5[:8] in repr(model)
    with pytest.raises(ValueError, match="models:/other/1"):
        segline.load("models:/other/1")


def test_a_model_folder_is_used_by_predict_and_serve(
    folder: Path, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(parts.example)
    predict.main(["a.png"], str(folder), Path("out"), "off")
    assert Path("out/a.png").read_bytes() == parts.answer
    served = following.load_served(str(folder), print, trust=False)
    assert served.serving.answer(parts.example).labels == parts.answer
    served.check()
    assert reports.health(served).status == "ok"
    assert reports.version(served).model_dump() == {
        "name": "model",
        "version": parts.md5[:8],
        "aliases": [],
        "md5": parts.md5,
        "address": "model",
    }
    page = reports.page(served)
    assert "background" in page and "cell" in page and str(folder) not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out"]
    with pytest.raises(ValueError, match="not a model folder"):
        following.load_served("cells@champion", print, trust=False)


def dataset_folder(folder: Path) -> npt.NDArray[np.uint8]:
    """Write a dataset with one image; return the instance ids."""
    for name in ("images", "instances"):
        (folder / name).mkdir(parents=True)
    (folder / "dataset.yaml").write_text("name: cells\nclasses: {0: background, 1: cell}\nlabels: instances\n")
    instances = np.array([[0, 1], [2, 2]], np.uint8)
    (folder / "images/a.png").write_bytes(encode_png(instances * 9))
    (folder / "instances/a.png").write_bytes(encode_png(instances))
    return instances


def test_read_dataset_reads_images_and_truth(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    instances = dataset_folder(folder)
    dataset = segline.read_dataset(folder)
    assert isinstance(dataset, segline.Dataset) and dataset.stems == ["a"]
    np.testing.assert_array_equal(dataset.image("a")[..., 0], instances * 9)
    classes, ids = dataset.truth("a")
    np.testing.assert_array_equal(classes, instances > 0)
    np.testing.assert_array_equal(ids, instances)
    with pytest.raises(ValueError, match="is not a folder"):
        segline.read_dataset(tmp_path / "none")


def test_the_examples_of_the_page_run(
    store: Store, parts: Parts, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with store.start_run("train") as run:
        champion.register(Registry(store, "cells"), parts, run, Verdict(()), {})
    Path("scan.png").write_bytes(parts.example)
    dataset_folder(Path("data/raw/cells"))
    blocks = re.findall(r"^```python\n(.*?)^```", (repository / "docs/python.md").read_text(), re.MULTILINE | re.DOTALL)
    exec("\n".join(blocks), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:3] == ["(33, 47)", str(decode(parts.instances).max())]
    assert printed[3] == "results/scan.png results/scan_instances.png results/scan_overlay.png"
