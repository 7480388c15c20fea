from pathlib import Path

import numpy as np
import pytest
import tifffile

from segline.commands import predict
from segline.data import files
from segline.model.images import decode, encode_png
from segline.model.instances import components, encode
from segline.track.registry import Answer


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that calls every pixel above 100 a cell, and what is connected an object."""

    def answer(image: bytes) -> Answer:
        labels = (decode(image)[..., 0] > 100).astype(np.uint8)
        return Answer(encode_png(labels), encode(components(labels)))

    monkeypatch.setattr(predict, "open_store", lambda: None)
    monkeypatch.setattr(predict, "load_model", lambda _store, _address: answer)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A bright square."""
    pixels = np.zeros((12, 15), np.uint8)
    pixels[3:8, 4:9] = 200
    files.write_png(tmp_path / "in" / "a.png", pixels)
    return tmp_path / "in" / "a.png"


@pytest.mark.usefixtures("model")
def test_a_label_image_for_each_file_and_a_picture_where_asked(image: Path, tmp_path: Path) -> None:
    predict.main([image.parent], "models:/a/1", tmp_path / "out" / "deep", "off", overlays=True)
    assert sorted(file.name for file in (tmp_path / "out" / "deep").iterdir()) == ["a.png", "a_overlay.png"]
    assert np.array_equal(files.read_labels(tmp_path / "out" / "deep" / "a.png"), files.read_labels(image) > 100)


@pytest.mark.usefixtures("model")
def test_labels_of_a_geotiff_lie_where_it_lies(image: Path, tmp_path: Path) -> None:
    pixels, scale = files.read_labels(image), (0.5, 0.5, 0.0)
    tifffile.imwrite(tmp_path / "earth.tif", pixels, metadata=None, extratags=[(33550, "d", 3, scale, True)])
    predict.main([image, tmp_path / "earth.tif"], "models:/a/1", tmp_path / "out", "off", instances=True)
    written = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert written == ["a.png", "a_instances.png", "earth.tif", "earth_instances.tif"]
    for name in ("earth.tif", "earth_instances.tif"):
        with tifffile.TiffFile(tmp_path / "out" / name) as file:
            assert file.pages.first.tags[33550].value == scale
            assert np.array_equal(file.asarray(), pixels > 100)


@pytest.mark.usefixtures("model")
def test_instances_are_ids_of_16_bits_or_32_where_that_is_too_few(tmp_path: Path) -> None:
    dots = np.zeros((600, 601), np.uint8)
    dots[::2, ::2] = 200
    files.write_png(tmp_path / "in" / "few.png", dots[:200, :200])
    files.write_png(tmp_path / "in" / "many.png", dots)
    predict.main([tmp_path / "in"], "models:/a/1", tmp_path / "out", "off", instances=True)
    few = files.read_labels(tmp_path / "out" / "few_instances.png")
    assert (few.dtype, few.max()) == (np.uint16, 100 * 100)
    many = tifffile.imread(tmp_path / "out" / "many_instances.tif")
    assert (many.dtype, many.max()) == (np.int32, 300 * 301)


def test_a_model_that_knows_no_instances_is_named(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "open_store", lambda: None)
    monkeypatch.setattr(predict, "load_model", lambda _store, _address: lambda data: Answer(data, None))
    predict.main([image], "models:/a/1", tmp_path / "out", "off", overlays=True)
    with pytest.raises(predict.PredictError, match="models:/a/1 was registered by a segline that knew no instances"):
        predict.main([image], "models:/a/1", tmp_path / "out", "off", instances=True)


@pytest.mark.usefixtures("model")
def test_a_bad_file_is_named_and_the_others_are_labelled(image: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("hello")
    with pytest.raises(predict.PredictError, match=r"bad\.png: not a readable.*\n.*missing\.png: cannot be read"):
        predict.main([bad, tmp_path / "missing.png", image], "models:/a/1", tmp_path / "out", "off")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.png"]


def test_two_images_of_one_stem_are_refused_before_anything_is_written(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "a.tif"
    other.parent.mkdir()
    other.touch()
    with pytest.raises(predict.PredictError, match="two images would be written to a;"):
        predict.main([image, other], "models:/a/1", tmp_path / "out", "off")
    other.rename(other.with_name("a_overlay.tif"))
    with pytest.raises(predict.PredictError, match="two images would be written to a_overlay;"):
        predict.main([image, other.with_name("a_overlay.tif")], "models:/a/1", tmp_path / "out", "off", overlays=True)
    assert not (tmp_path / "out").exists()
