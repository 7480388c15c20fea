from pathlib import Path

import numpy as np
import pytest

from segline.commands import predict
from segline.data import files
from segline.model.images import decode, encode_png


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that calls every pixel above 100 a cell."""

    def answer(image: bytes) -> bytes:
        return encode_png((decode(image)[..., 0] > 100).astype(np.uint8))

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
    predict.main([image.parent], "models:/a/1", tmp_path / "out" / "deep", True, "off")
    assert sorted(file.name for file in (tmp_path / "out" / "deep").iterdir()) == ["a.png", "a_overlay.png"]
    assert np.array_equal(files.read_labels(tmp_path / "out" / "deep" / "a.png"), files.read_labels(image) > 100)


@pytest.mark.usefixtures("model")
def test_a_bad_file_is_named_and_the_others_are_labelled(image: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("hello")
    with pytest.raises(predict.PredictError, match=r"bad\.png: not a readable.*\n.*missing\.png: cannot be read"):
        predict.main([bad, tmp_path / "missing.png", image], "models:/a/1", tmp_path / "out", False, "off")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.png"]


def test_two_images_of_one_stem_are_refused_before_anything_is_written(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "a.tif"
    other.parent.mkdir()
    other.touch()
    with pytest.raises(predict.PredictError, match="a is the stem of two images"):
        predict.main([image, other], "models:/a/1", tmp_path / "out", False, "off")
    assert not (tmp_path / "out").exists()
