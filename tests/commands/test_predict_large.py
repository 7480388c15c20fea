"""Predict large images by the command with a registered model, and compare with the same model in memory."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
import zarr
from safetensors.torch import save_file

from segline.commands import predict
from segline.commands.prediction_records import PredictOptions
from segline.data.imagefiles import read_image
from segline.data.omezarr import Chunks
from segline.data.sources import OpenImage
from segline.gate import champion
from segline.model import maps
from segline.model.images import encode_png
from segline.model.inference import Description, Inference, Predictor, load
from segline.model.normalisation import Statistics
from segline.model.objects import Separation, encode
from segline.track import rows
from segline.track.packaging import Parts
from segline.track.registry import Registry
from segline.track.store import open_store
from segline.track.verdict import Verdict

NETWORK = {"width": 2, "depth": 1, "padding": "same", "norm": "none", "upsampling": "transposed", "dropout": 0.0}
SCALE = (0.5, 0.5, 0.0)
ALL = PredictOptions(instances=True, probabilities=True, overlays=True, views=4)


def image(height: int, width: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(height)
    coarse = np.kron(rng.integers(0, 200, (-(-height // 9), -(-width // 9))), np.ones((9, 9)))[:height, :width]
    return (coarse + rng.integers(0, 56, (height, width))).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Predictor]:
    """Make a project with a registered model; return the project and the model."""
    project = tmp_path_factory.mktemp("project")
    (project / "dvc.yaml").touch()
    torch.manual_seed(1)
    statistics = Statistics("uint8", 1, (0.4,), (0.2,))
    description = Description(NETWORK, {0: "background", 1: "cell"}, "instances", statistics)
    save_file(description.build().state_dict(), project / "weights.safetensors")
    description.write(project / "model.json")
    Inference(separation=Separation(0.3, 3), tile=48).write(project / "inference.json")
    predictor = load(project)
    example = image(40, 50)
    labels, objects = predictor.predict(example[..., np.newaxis])
    parts = Parts(project, project / "inference.json", encode_png(example), encode_png(labels), encode(objects))
    before = Path.cwd()
    os.chdir(project)
    try:
        store = open_store()
        with store.start_run("test") as run:
            champion.register(Registry(store, "cells"), parts, run, Verdict(()), {})
    finally:
        os.chdir(before)
    return project, predictor


@pytest.fixture
def predicted(made: tuple[Path, Predictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs the command and treats every image as large."""
    monkeypatch.chdir(made[0])
    monkeypatch.setattr(rows, "LARGE", 0)

    def run(*images: Path, options: PredictOptions = ALL) -> None:
        predict.main([str(path) for path in images], "models:/cells@champion", tmp_path / "out", "off", options)

    return run


def write(file: Path, pixels: npt.NDArray[np.uint8]) -> Path:
    tifffile.imwrite(file, pixels, tile=(32, 32), metadata=None, extratags=[(33550, "d", 3, SCALE, True)])
    return file


def test_a_large_image_is_predicted_as_in_memory(
    made: tuple[Path, Predictor], predicted: Callable[..., None], tmp_path: Path
) -> None:
    pixels, out = image(130, 171), tmp_path / "out"
    predicted(write(tmp_path / "earth.tif", pixels))
    predictor = made[1].with_views(4)
    labels, objects = predictor.predict(pixels[..., np.newaxis])
    assert objects.max() > 20
    expected = {"": labels, "_instances": objects, "_probabilities": predictor.probabilities(pixels[..., np.newaxis])}
    for ending, wanted in expected.items():
        with tifffile.TiffFile(out / f"earth{ending}.tif") as file:
            assert np.array_equal(file.asarray(), wanted)
            assert file.pages.first.tags[33550].value == SCALE
    assert read_image(out / "earth_overlay.png").shape == (130, 171, 3)
    assert sorted(path.name for path in out.iterdir()) == [
        ".segline-predict.lock",
        *(f"earth{ending}.tif" for ending in ("", "_instances")),
        "earth_overlay.png",
        "earth_probabilities.tif",
        "predictions.jsonl",
    ]


def test_the_overlay_of_a_large_image_is_reduced(
    predicted: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segline.data.writers.OVERLAY", 50)
    predicted(write(tmp_path / "a.tif", image(130, 171)), options=PredictOptions(overlays=True))
    assert read_image(tmp_path / "out" / "a_overlay.png").shape == (32, 42, 3)


def test_a_stopped_call_is_resumed(
    made: tuple[Path, Predictor], predicted: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, out = image(130, 171), tmp_path / "out"
    file = write(tmp_path / "a.tif", pixels)
    reads = list[slice]()

    open_image = predict.open_image

    def stop(after: int) -> None:
        """Stop the next call of the command after `after` reads."""
        reads.clear()

        @contextmanager
        def opened(path: Path) -> Iterator[OpenImage]:
            with open_image(path) as source:
                read_source = source.read

                def read(rows: slice, columns: slice) -> npt.NDArray[np.uint8]:
                    if len(reads) == after:
                        raise KeyboardInterrupt
                    reads.append(rows)
                    part: npt.NDArray[np.uint8] = read_source(rows, columns)
                    return part

                monkeypatch.setattr(source, "read", read)
                yield source

        monkeypatch.setattr(predict, "open_image", opened)

    for after in (5, 30, 30):
        stop(after)
        with pytest.raises(KeyboardInterrupt):
            predicted(file)
        assert sorted(path.name for path in out.iterdir()) == [".a.windows", ".segline-predict.lock"]
    shutil.copytree(out, tmp_path / "begun")
    stop(10**6)
    predicted(file)
    again = len(reads)
    labels, objects = made[1].with_views(4).predict(pixels[..., np.newaxis])
    assert np.array_equal(tifffile.imread(out / "a.tif"), labels)
    assert np.array_equal(tifffile.imread(out / "a_instances.tif"), objects)
    shutil.rmtree(out)
    stop(10**6)
    predicted(file)
    assert again < len(reads) - 30
    # Work for another image is not resumed.
    shutil.rmtree(out)
    shutil.copytree(tmp_path / "begun", out)
    predicted(write(file, pixels[::-1]))
    assert np.array_equal(tifffile.imread(out / "a.tif"), made[1].with_views(4).labels(pixels[::-1, :, np.newaxis]))


def test_a_model_that_needs_the_whole_image_predicts_in_memory_or_refuses(
    predicted: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.tif", image(60, 70))
    monkeypatch.setattr("segline.track.rows.memory", lambda *_: ("its norm is over all of it", 10**6))
    predicted(file, options=PredictOptions())
    assert (tmp_path / "out" / "a.tif").exists()
    monkeypatch.setattr("segline.progress.machine_memory", lambda: 10**6)
    with pytest.raises(
        predict.PredictError, match=r"a\.tif: an image of 70 x 60 px needs .*: its norm is over all of it; cut"
    ):
        predicted(file)


def test_a_bad_large_image_is_named_and_the_others_are_labelled(predicted: Callable[..., None], tmp_path: Path) -> None:
    pixels = image(64, 64)
    tifffile.imwrite(tmp_path / "bad.tif", pixels, tile=(32, 32), compression="zlib")
    data = bytearray((tmp_path / "bad.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "bad.tif") as file:
        data[file.pages.first.dataoffsets[3] + 4] ^= 0xFF
    (tmp_path / "bad.tif").write_bytes(data)
    colour = tmp_path / "colour.tif"
    tifffile.imwrite(colour, np.dstack([pixels] * 3), tile=(32, 32))
    expected = r"bad\.tif: not a readable TIFF.*\n.*colour\.tif: the image is uint8 with 3 channels"
    with pytest.raises(predict.PredictError, match=expected):
        predicted(tmp_path / "bad.tif", colour, write(tmp_path / "good.tif", pixels), options=PredictOptions())
    assert (tmp_path / "out" / "good.tif").exists()


def write_zarr(path: Path, form: int, pixels: npt.NDArray[np.uint8]) -> Path:
    group = zarr.create_group(path, zarr_format=form)
    array = group.create_array("0", shape=(1, *pixels.shape), chunks=(1, 50, 64), dtype=pixels.dtype)
    array[0] = pixels
    scale = [{"type": "scale", "scale": [1.0, *SCALE[:2]]}]
    metadata = {
        "axes": [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"],
        "datasets": [{"path": "0", "coordinateTransformations": scale}],
    }
    group.attrs.update(
        {"multiscales": [metadata]} if form == 2 else {"ome": {"version": "0.5", "multiscales": [metadata]}}
    )
    return path


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("limit", [0, rows.LARGE])
def test_ome_zarr_results_equal_tiff_results(
    predicted: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: int, limit: int
) -> None:
    monkeypatch.setattr(rows, "LARGE", limit)
    pixels, out = image(130, 171), tmp_path / "out"
    path = write_zarr(tmp_path / "in" / "cells.ome.zarr", form, pixels)
    predicted(path.parent)
    files = ["cells.ome.zarr", "cells_instances.ome.zarr", "cells_overlay.png", "cells_probabilities.ome.zarr"]
    assert sorted(path.name for path in out.iterdir()) == [".segline-predict.lock", *files, "predictions.jsonl"]
    predicted(path)
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 1
    monkeypatch.setattr(rows, "LARGE", 0)
    predicted(write(tmp_path / "b.tif", pixels))
    for ending in ("", "_instances", "_probabilities"):
        expected = tifffile.imread(out / f"b{ending}.tif")
        array = zarr.open_array(out / f"cells{ending}.ome.zarr" / "0", mode="r")
        assert (array.dtype, array.metadata.zarr_format) == (expected.dtype, form)
        assert np.array_equal(array[:], expected)
    attributes = zarr.open_group(out / "cells.ome.zarr", mode="r").attrs
    scale = (attributes if form == 2 else attributes["ome"])["multiscales"][0]["datasets"][0][
        "coordinateTransformations"
    ]
    assert scale == [{"type": "scale", "scale": [0.5, 0.5]}]
    assert np.array_equal(read_image(out / "cells_overlay.png"), read_image(out / "b_overlay.png"))
    # Another pixel is another image.
    zarr.open_array(path / "0")[0, 5, 5] ^= 255
    predicted(path)
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert ["labels" in line for line in lines] == [True, True, False, True]  # of the former image nothing is left


def test_a_stopped_call_on_ome_zarr_is_resumed(
    predicted: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out, reads = write_zarr(tmp_path / "a.zarr", 2, image(130, 171)), tmp_path / "out", [0]
    read = Chunks.read

    def counted(self: Chunks, rows: slice, columns: slice) -> npt.NDArray[np.uint8]:
        if reads[0] == 30:
            raise KeyboardInterrupt
        reads[0] += 1
        return read(self, rows, columns)

    monkeypatch.setattr(Chunks, "read", counted)
    with pytest.raises(KeyboardInterrupt):
        predicted(path)
    assert sorted(path.name for path in out.iterdir()) == [".a.windows", ".segline-predict.lock"]
    reads[0] = -(10**6)
    predicted(path)
    again = reads[0] + 10**6
    resumed = zarr.open_array(out / "a.ome.zarr" / "0", mode="r")[:]
    shutil.rmtree(out)
    reads[0] = -(10**6)
    predicted(path)
    assert again < reads[0] + 10**6
    assert np.array_equal(resumed, zarr.open_array(out / "a.ome.zarr" / "0", mode="r")[:])


def test_refused_ome_zarr_images_are_named(predicted: Callable[..., None], tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "out" / "a.ome.zarr", 3, image(64, 64))
    with pytest.raises(predict.PredictError, match=r"a\.ome\.zarr: its results in .* would replace this image"):
        predicted(path)
    plate = tmp_path / "plate.zarr"
    zarr.create_group(plate, zarr_format=2, attributes={"plate": {}})
    good = write(tmp_path / "good.tif", image(64, 64))
    with pytest.raises(
        predict.PredictError, match=r"^\S*plate\.zarr: the folder is a plate of many images; name the folders\S*"
    ):
        predicted(plate, good, options=PredictOptions())
    assert (tmp_path / "out" / "good.tif").exists()


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps.os, "fsync", lambda _: None)
