import hashlib
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from segline.commands import predict
from segline.commands.prediction_records import LOCK, RECORDS, PredictOptions, Records, RecordsError
from segline.data import imagefiles
from segline.model.images import decode, encode_png
from segline.model.objects import components, encode, encode_probabilities
from segline.track.registry import Answer


class Bright:
    """A model that labels every pixel above 100 as cell; connected cells are objects, if `knows` is set."""

    md5 = "0" * 32
    knows = True
    calls = 0

    def __call__(self, image: bytes, *, views: int, probabilities: bool) -> Answer:
        self.calls += 1
        labels = (decode(image)[..., 0] > 100).astype(np.uint8)
        sure = encode_probabilities(np.stack([1 - labels, labels]).astype(np.float32) * (views or 1))
        objects = encode(components(labels)) if self.knows else None
        return Answer(encode_png(labels), objects, sure if probabilities else None)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Bright:
    """Replace the registry by one model."""
    loaded = Bright()
    monkeypatch.setattr(predict.answers, "load", lambda _address, **_: loaded)
    return loaded


def run(*images: Path | str, out: Path, **options: Any) -> None:
    predict.main([str(image) for image in images], "models:/a/1", out, "off", PredictOptions(**options))


def names(folder: Path) -> list[str]:
    """List the folder without the records and their lock."""
    return sorted(file.name for file in folder.iterdir() if file.name not in (RECORDS, LOCK))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Write an image with a bright square."""
    pixels = np.zeros((12, 15), np.uint8)
    pixels[3:8, 4:9] = 200
    imagefiles.write_png(tmp_path / "in" / "a.png", pixels)
    return tmp_path / "in" / "a.png"


@pytest.mark.usefixtures("model")
def test_each_file_gets_a_label_image_and_an_overlay_on_request(image: Path, tmp_path: Path) -> None:
    run(image.parent, out=tmp_path / "out" / "deep", overlays=True)
    assert names(tmp_path / "out" / "deep") == ["a.png", "a_overlay.png"]
    assert np.array_equal(
        imagefiles.read_labels(tmp_path / "out" / "deep" / "a.png"), imagefiles.read_labels(image) > 100
    )


@pytest.mark.usefixtures("model")
def test_labels_of_a_geotiff_keep_its_georeference(image: Path, tmp_path: Path) -> None:
    pixels, scale = imagefiles.read_labels(image), (0.5, 0.5, 0.0)
    tifffile.imwrite(tmp_path / "earth.tif", pixels, metadata=None, extratags=[(33550, "d", 3, scale, True)])
    run(image, tmp_path / "earth.tif", out=tmp_path / "out", instances=True)
    written = names(tmp_path / "out")
    assert written == ["a.png", "a_instances.png", "earth.tif", "earth_instances.tif"]
    for name in ("earth.tif", "earth_instances.tif"):
        with tifffile.TiffFile(tmp_path / "out" / name) as file:
            assert file.pages.first.tags[33550].value == scale
            assert np.array_equal(file.asarray(), pixels > 100)


@pytest.mark.usefixtures("model")
def test_instances_have_16_bits_or_32_bits_for_many_ids(tmp_path: Path) -> None:
    dots = np.zeros((600, 601), np.uint8)
    dots[::2, ::2] = 200
    imagefiles.write_png(tmp_path / "in" / "few.png", dots[:200, :200])
    imagefiles.write_png(tmp_path / "in" / "many.png", dots)
    run(tmp_path / "in", out=tmp_path / "out", instances=True)
    few = imagefiles.read_labels(tmp_path / "out" / "few_instances.png")
    assert (few.dtype, few.max()) == (np.uint16, 100 * 100)
    many = tifffile.imread(tmp_path / "out" / "many_instances.tif")
    assert (many.dtype, many.max()) == (np.int32, 300 * 301)


def test_instances_of_a_model_without_instances_are_refused(image: Path, tmp_path: Path, model: Bright) -> None:
    model.knows = False
    run(image, out=tmp_path / "out", overlays=True)
    with pytest.raises(predict.PredictError, match="registered by an earlier segline and predicts no instances"):
        run(image, out=tmp_path / "out", instances=True)


def test_an_image_is_predicted_again_only_if_something_changed(image: Path, tmp_path: Path, model: Bright) -> None:
    out = tmp_path / "out"
    for times, options in enumerate([{}, {"overlays": True}, {"overlays": True, "views": 4}], 1):
        run(image, out=out, **options)
        run(image, out=out, **options)
        assert model.calls == times
    model.md5 = "1" * 32
    run(image, out=out)
    assert model.calls == 4
    model.md5 = "0" * 32  # the files are now of another version
    run(image, out=out)
    assert model.calls == 5
    imagefiles.write_png(image, np.zeros((5, 6), np.uint8))
    run(image, out=out)
    assert model.calls == 6
    (out / "a.png").unlink()
    run(image, out=out)
    assert model.calls == 7


def test_a_line_that_was_cut_off_is_ignored(image: Path, tmp_path: Path, model: Bright) -> None:
    run(image, out=tmp_path / "out")
    records = tmp_path / "out" / "predictions.jsonl"
    records.write_bytes(records.read_bytes()[:-9])
    for _ in range(2):
        run(image, out=tmp_path / "out")
        assert model.calls == 2


@pytest.mark.usefixtures("model")
def test_one_process_at_a_time_writes_to_a_folder(image: Path, tmp_path: Path) -> None:
    with (
        Records(tmp_path / "out"),
        pytest.raises(RecordsError, match="another `segline predict` writes to this folder"),
    ):
        run(image, out=tmp_path / "out")


@pytest.mark.usefixtures("model")
def test_patterns_are_expanded(image: Path, tmp_path: Path) -> None:
    deep = tmp_path / "in" / "x" / "y" / "b.png"
    imagefiles.write_png(deep, imagefiles.read_labels(image).astype(np.uint8))
    (deep.parent / "c.txt").write_text("no image")
    run(f"{tmp_path}/in/**/*.png", out=tmp_path / "out")
    assert names(tmp_path / "out") == ["a.png", "b.png"]
    with pytest.raises(predict.PredictError, match=r"none\*\.png: no image found"):
        run(f"{tmp_path}/in/none*.png", out=tmp_path / "out")
    odd = tmp_path / "in" / "odd[1].png"
    deep.rename(odd)
    run(odd, out=tmp_path / "out")
    assert "odd[1].png" in names(tmp_path / "out")


@pytest.mark.usefixtures("model")
def test_images_are_labelled_upright_and_notes_are_printed_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels, notes = np.zeros((12, 15), np.uint8), Image.Exif()
    pixels[1:5, 2:4] = 200
    notes[274] = 6  # to be turned by 90 degrees clockwise
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(tmp_path / name, exif=notes)
    missing = [(42113, "s", 0, "200", True)]
    tifffile.imwrite(tmp_path / "c.tif", pixels, extratags=missing, metadata=None)
    run(tmp_path, out=tmp_path / "out", overlays=True)
    for stem in "ab":
        assert np.array_equal(imagefiles.read_labels(tmp_path / "out" / f"{stem}.png"), np.rot90(pixels, -1) > 100)
        assert imagefiles.read_image(tmp_path / "out" / f"{stem}_overlay.png").shape == (15, 12, 3)
    messages = capfd.readouterr().err
    assert messages.count("2 image(s): the pixels are turned upright, because the orientation is 6") == 1
    assert messages.count("1 image(s): 200 is declared as missing (nodata)") == 1


@pytest.mark.usefixtures("model")
def test_probabilities_of_a_geotiff_keep_its_georeference(image: Path, tmp_path: Path) -> None:
    pixels, scale = imagefiles.read_labels(image), (0.5, 0.5, 0.0)
    tifffile.imwrite(tmp_path / "earth.tif", pixels, metadata=None, extratags=[(33550, "d", 3, scale, True)])
    run(image, tmp_path / "earth.tif", out=tmp_path / "out", probabilities=True)
    for name in ("a", "earth"):
        with tifffile.TiffFile(tmp_path / "out" / f"{name}_probabilities.tif") as file:
            assert np.array_equal(file.asarray(), [pixels <= 100, pixels > 100])
            assert len(file.pages) == 1
            assert (33550 in file.pages.first.tags) == (name == "earth")


@pytest.mark.usefixtures("model")
def test_a_bad_file_is_named_and_the_others_are_labelled(image: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("hello")
    with pytest.raises(predict.PredictError, match=r"bad\.png: not a readable.*\n.*missing\.png: cannot be read"):
        run(bad, tmp_path / "missing.png", image, out=tmp_path / "out")
    assert names(tmp_path / "out") == ["a.png"]


def test_two_images_of_one_stem_are_refused_before_anything_is_written(image: Path, tmp_path: Path) -> None:
    second = tmp_path / "second" / "a.tif"
    second.parent.mkdir()
    second.touch()
    with pytest.raises(predict.PredictError, match="the results of two images would both be named a;"):
        run(image, second, out=tmp_path / "out")
    second.rename(second.with_name("a_overlay.tif"))
    with pytest.raises(predict.PredictError, match="the results of two images would both be named a_overlay;"):
        run(image, second.with_name("a_overlay.tif"), out=tmp_path / "out", overlays=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("model")
def test_ome_zarr_images_are_found_and_their_files_are_not(image: Path, tmp_path: Path) -> None:
    for name in ("b.zarr", "c"):
        group = zarr.create_group(image.parent / name, zarr_format=3)
        group.create_array("0", data=imagefiles.read_labels(image).astype(np.uint8))
        axes = [{"name": axis} for axis in "yx"]
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    (image.parent / "folder").mkdir()
    for number, given in enumerate([image.parent, f"{tmp_path}/in/**", f"{tmp_path}/in/*"]):
        run(given, out=tmp_path / f"out{number}")
        assert names(tmp_path / f"out{number}") == ["a.png", "b.ome.zarr", "c.ome.zarr"]
    run(f"{tmp_path}/in/*.zarr", out=tmp_path / "out", instances=True, probabilities=True)
    assert names(tmp_path / "out") == ["b.ome.zarr", "b_instances.ome.zarr", "b_probabilities.ome.zarr"]
    (image.parent / "c").rename(image.parent / "a.ome.zarr")
    with pytest.raises(predict.PredictError, match="the results of two images would both be named a"):
        run(image.parent, out=tmp_path / "out")


def test_ome_zarr_by_a_model_without_instances(image: Path, tmp_path: Path, model: Bright) -> None:
    model.knows = False
    group = zarr.create_group(tmp_path / "b.zarr", zarr_format=2)
    group.create_array("0", data=imagefiles.read_labels(image).astype(np.uint8))
    axes = [{"name": axis} for axis in "yx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    run(tmp_path / "b.zarr", out=tmp_path / "out")
    assert np.array_equal(
        zarr.open_array(tmp_path / "out" / "b.ome.zarr" / "0")[:], imagefiles.read_labels(image) > 100
    )
    with pytest.raises(predict.PredictError, match="registered by an earlier segline and predicts no instances"):
        run(tmp_path / "b.zarr", out=tmp_path / "out", instances=True)


def contents(folder: Path) -> dict[str, str]:
    """Return the md5 of all files below `folder` by their paths."""
    every = (file for file in folder.rglob("*") if file.is_file())
    return {f"{file.relative_to(folder)}": hashlib.md5(file.read_bytes()).hexdigest() for file in every}


@pytest.mark.parametrize(
    ("name", "given", "out"),
    [
        ("a.png", "in", "in"),
        ("a.png", "in/a.png", "link"),  # a link to the folder
        ("a.png", "link/*.png", "in"),
        ("a.tif", "in", "in/../in"),  # a GeoTIFF, or one too large for memory
        ("linked.png", "in/linked.png", "elsewhere"),  # leads to elsewhere/linked.png
        ("linked.png", "in/linked.png", "in"),
        ("a_overlay.png", "in", "in"),
        ("a_instances.png", "in", "in"),
    ],
)
@pytest.mark.usefixtures("model")
def test_no_image_is_replaced_by_labels(image: Path, tmp_path: Path, name: str, given: str, out: str) -> None:
    (tmp_path / "link").symlink_to("in", target_is_directory=True)
    if name == "linked.png":
        imagefiles.write_png(tmp_path / "elsewhere" / "linked.png", np.zeros((5, 6), np.uint8))
        (image.parent / name).symlink_to("../elsewhere/linked.png")
    else:
        (image.parent / name).write_bytes(image.read_bytes())
        if name != "a.png":
            image.rename(image.with_name("other.png" if name == "a.tif" else "a.jpg"))
    before = contents(tmp_path)
    with pytest.raises(
        predict.PredictError,
        match=r"its results in .* would replace this image|the results of two images would both be named",
    ):
        run(tmp_path / given, out=tmp_path / out, instances="_" in name, overlays="_" in name)
    assert contents(tmp_path) == before


def test_an_image_named_twice_is_labelled_once(image: Path, tmp_path: Path, model: Bright) -> None:
    (tmp_path / "link").symlink_to("in", target_is_directory=True)
    (image.parent / "b.png").symlink_to("a.png")  # of another name: another image
    run(image, image, image.parent, tmp_path / "link", out=tmp_path / "out")
    assert (names(tmp_path / "out"), model.calls) == (["a.png", "b.png"], 2)


@pytest.mark.usefixtures("model")
def test_a_broken_link_is_named_and_the_others_are_labelled(image: Path, tmp_path: Path) -> None:
    (image.parent / "lost.png").symlink_to("nowhere.png")
    (image.parent / "round.png").symlink_to("round.png")
    for number, given in enumerate([image.parent, f"{image.parent}/*.png"]):
        with pytest.raises(predict.PredictError, match=r"lost\.png: cannot be read.*\n.*round\.png: cannot be read"):
            run(given, out=tmp_path / f"out{number}")
        assert names(tmp_path / f"out{number}") == ["a.png"]


@pytest.mark.usefixtures("model")
def test_an_empty_name_is_refused(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image.parent)
    with pytest.raises(predict.PredictError, match="the name of an image is empty"):
        run("", image, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_another_version_are_removed(image: Path, tmp_path: Path, model: Bright) -> None:
    out = tmp_path / "out"
    (tmp_path / "out").mkdir()
    (out / "a_mine.png").touch()
    run(image, out=out, instances=True)
    run(image, out=out, overlays=True)
    assert names(out) == ["a.png", "a_instances.png", "a_mine.png", "a_overlay.png"]  # all of one version
    model.md5 = "1" * 32
    run(image, out=out)
    assert names(out) == ["a.png", "a_mine.png"]
    run(image, out=out, probabilities=True)
    imagefiles.write_png(image, np.zeros((5, 6), np.uint8))
    run(image, out=out, overlays=True)
    assert names(out) == ["a.png", "a_mine.png", "a_overlay.png"]


def test_files_that_cannot_be_made_again_are_kept(image: Path, tmp_path: Path, model: Bright) -> None:
    run(image, out=tmp_path / "out", instances=True)
    before = contents(tmp_path / "out")
    model.md5, model.knows = "1" * 32, False
    with pytest.raises(predict.PredictError, match="registered by an earlier segline and predicts no instances"):
        run(image, out=tmp_path / "out", instances=True)
    assert contents(tmp_path / "out") == before


def test_files_of_a_stopped_call_are_not_taken_for_those_of_the_former_version(
    image: Path, tmp_path: Path, model: Bright, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(image, out=tmp_path / "out")
    model.md5 = "1" * 32
    with monkeypatch.context() as patch:
        patch.setattr(Records, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(image, out=tmp_path / "out")
    assert names(tmp_path / "out") == ["a.png"]  # of version 1
    model.md5 = "0" * 32
    run(image, out=tmp_path / "out")
    assert model.calls == 3


@pytest.mark.parametrize("name", ["a.png", "a_overlay.tif"])
def test_a_foreign_file_is_not_replaced(image: Path, tmp_path: Path, model: Bright, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(predict.PredictError, match=rf"{name} exists, but `segline predict` did not write it"):
        run(image, out=out, overlays=True)
    assert (model.calls, names(out), (out / name).read_text()) == (0, [name], "mine")
    (out / name).unlink()
    run(image, out=out, overlays=True)
    (out / "a.png").write_text("half done by an earlier call")
    run(image, out=out, overlays=True, views=4)
    assert names(out) == ["a.png", "a_overlay.png"]


@pytest.mark.usefixtures("model")
def test_a_user_without_a_name_may_write(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: {}["uid not found"])
    run(image, out=tmp_path / "out")
    assert names(tmp_path / "out") == ["a.png"]


ODD = [os.fsdecode(b"gr\xfcn.png"), "line\u2028two\u2029three\u0085.png"]


def test_odd_file_names_are_recorded(image: Path, tmp_path: Path, model: Bright) -> None:
    for name in ODD:
        (image.parent / name).write_bytes(image.read_bytes())
    for _ in range(2):
        run(image.parent, out=tmp_path / "out", overlays=True)
        assert model.calls == 3
    lines = (tmp_path / "out" / "predictions.jsonl").read_bytes().decode("ascii").splitlines()
    assert sorted(json.loads(line)["stem"] + ".png" for line in lines) == sorted(["a.png", *ODD])
    # As an earlier segline wrote it.
    told = "".join(json.dumps(json.loads(line), ensure_ascii=False) + "\n" for line in lines if "\\udcfc" not in line)
    (tmp_path / "out" / "predictions.jsonl").write_text(told, encoding="utf-8")
    run(image.parent, out=tmp_path / "out", overlays=True)
    assert model.calls == 4


@pytest.mark.parametrize("mode", ["lines", "bar"])
def test_odd_file_names_are_printed(tmp_path: Path, mode: str) -> None:
    for name in ODD:
        (tmp_path / name).write_text("no image")
    program = f"""
from segline import cli
from segline.commands import predict
predict.answers.load = lambda *_, **__: type("Model", (), {{"md5": ""}})
main = predict.main
predict.main = lambda images, model, out, mode, options, **_: main(images, model, out, {mode!r}, options)
cli.main()
"""
    command = [sys.executable, "-c", program, "predict", str(tmp_path), "--model", "models:/a/1"]
    command += ["--out", str(tmp_path / "out" / ODD[0])]
    environment = os.environ | {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr
    assert result.stderr.count(b"not a readable") == 2
    assert b"n.png: " in result.stderr
