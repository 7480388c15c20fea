"""The import command, judged by what it tells and by real datasets where a machine has them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segline.commands.import_ import ImportFlagError, run
from segline.data import files
from segline.data.dataset import Dataset


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("data: {source: data/raw/cells}\n")
    for name in "abcd":
        for kind in ("images", "masks"):
            (tmp_path / "source" / kind).mkdir(parents=True, exist_ok=True)
            files.write_png(tmp_path / "source" / kind / f"{name}.png", np.tile(np.arange(3, dtype=np.uint8), (4, 4)))
    return tmp_path / "source"


def test_lines(source: Path) -> None:
    assert run(source, "small", classes=["1=cell body", "2 = nucleus"], mode="off") == [
        "data/raw/small: 4 images",
        "  images from images/, masks from masks/, paired by stem",
        "  labels: classes, for the masks share the few values 0, 1, 2; if not, say --labels instances",
        "  class 0 background: 33.33% of the pixels",
        "  class 1 cell body: 33.33% of the pixels",
        "  class 2 nucleus: 33.33% of the pixels",
        "Next: dvc add data/raw/small",
        "and in params.yaml, section data: source: data/raw/small",
    ]


def test_problems_are_told(source: Path) -> None:
    files.write_png(source / "images" / "b.png", np.arange(144, dtype=np.uint8).reshape(4, 12, 3))
    lines = run(source, "small", mode="off")
    assert any("images/b.png" in line and "3 channel" in line for line in lines)
    assert "prepare will refuse the dataset until these errors are mended" in lines


@pytest.mark.parametrize("flag", ["nucleus", "1=", "one=nucleus", "-1=x"])
def test_class_flags(source: Path, flag: str) -> None:
    with pytest.raises(ImportFlagError, match=r"--class '.*give an id and a name"):
        run(source, "small", classes=[flag], mode="off")


def test_the_drawn_dataset_keeps_its_place(source: Path) -> None:
    with pytest.raises(ImportFlagError, match="--name cells: stage sample"):
        run(source, "cells", mode="off")


def test_outside_a_project(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source)
    with pytest.raises(ImportFlagError, match=r"there is no params\.yaml in"):
        run(source, "small", mode="off")
    assert not (source / "data").exists()


@pytest.mark.parametrize(
    ("name", "images", "groups"),
    [("isbi2012", 18, 18), ("dsb2018", 216, 216), ("wbc", 300, 300), ("magnetic_tile", 500, 0)],
)
def test_real_datasets_need_no_flag(
    source: Path, shared_data: Callable[[str], Path], name: str, images: int, groups: int
) -> None:
    del source  # only its working directory is needed
    lines = run(shared_data(name), name, mode="off")
    assert lines[0].startswith(f"data/raw/{name}: {images} images")
    dataset = Dataset.open(Path("data/raw") / name)
    if groups:
        assert len(set(dataset.groups.values())) == groups
    else:
        assert 1 < len(set(dataset.groups.values())) < images
