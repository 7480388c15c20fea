"""The import command, judged by its printed lines and by real datasets where available."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segline.commands.import_ import ImportFlagError, next_steps, run
from segline.data import imagefiles
from segline.data.dataset import Dataset


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("data: {source: data/raw/cells}\n")
    rng = np.random.default_rng(0)
    for name in "abcd":
        imagefiles.write_png(tmp_path / "source" / "images" / f"{name}.png", rng.integers(0, 256, (4, 6), np.uint8))
        imagefiles.write_png(
            tmp_path / "source" / "masks" / f"{name}.png", np.tile(np.arange(3, dtype=np.uint8), (4, 2))
        )
    return tmp_path / "source"


def test_lines(source: Path) -> None:
    assert run(source, "small", classes=["1=cell body", "2 = nucleus"], mode="off") == [
        "data/raw/small",
        "  images    4, 6x4 px",
        "  pixels    uint8 grey",
        "  labels    classes",
        "  class 0   background   33.333% of the pixels, in 4 images",
        "  class 1   cell body    33.333% of the pixels, in 4 images",
        "  class 2   nucleus      33.333% of the pixels, in 4 images",
        "How `segline import` understood the source:",
        "  images from images/, masks from masks/, paired by stem",
        "  labels: classes, because the masks share the few values 0, 1, 2; if this is wrong, add --labels instances",
        "Look at data/raw/small/contact_sheet.png: do the outlines match the objects?",
    ]
    assert next_steps("small") == [
        "Then: dvc add data/raw/small",
        "and set in params.yaml:",
        "data:",
        "  source: data/raw/small",
        "After that, `dvc repro` plans the settings that are `auto`; `segline preset auto` sets all of them to `auto`.",
    ]


def test_problems_are_listed(source: Path) -> None:
    imagefiles.write_png(source / "images" / "b.png", np.arange(24, dtype=np.uint16).reshape(4, 6))
    lines = run(source, "small", mode="off")
    assert any("images/b.png" in line and "uint16" in line for line in lines)
    assert "stage prepare will refuse the dataset until these errors are corrected" in lines


def test_colours_by_table(source: Path) -> None:
    for file in (source / "masks").iterdir():
        imagefiles.write_png(file, np.array([[[0, 0, 0], [255, 0, 0], [0, 0, 9]] * 2] * 4, np.uint8))
    (source / "colours.csv").write_text("colour,class,name\n#000000,0,\n#ff0000,2,nucleus\n#000009,1,cytoplasm\n")
    run(source, "small", colours=source / "colours.csv", classes=["1=body"], mode="off")
    dataset = Dataset.open(Path("data/raw/small"))
    assert dataset.spec.classes == {0: "background", 1: "body", 2: "nucleus"}
    np.testing.assert_array_equal(dataset.truth("a")[0], [[0, 2, 1, 0, 2, 1]] * 4)


def test_flags_reach_the_layout(source: Path) -> None:
    (source / "images").rename(source / "pics")
    lines = run(source, "small", mode="off", images="pics/*", labels="instances", group_by=".")
    assert "  images images".replace("images images", "images pics/*, masks masks/*, paired by the text at *") in lines
    assert (Dataset.open(Path("data/raw/small"))).spec.labels == "instances"


@pytest.mark.parametrize("flag", ["nucleus", "1=", "one=nucleus", "-1=x"])
def test_class_flags(source: Path, flag: str) -> None:
    with pytest.raises(ImportFlagError, match=r"--class '.*give an id and a name"):
        run(source, "small", classes=[flag], mode="off")


def test_the_drawn_dataset_keeps_its_place(source: Path) -> None:
    with pytest.raises(ImportFlagError, match="--name cells: the DVC stage `sample` writes"):
        run(source, "cells", mode="off")


def test_outside_a_project(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source)
    with pytest.raises(ImportFlagError, match=r"there is no params\.yaml in"):
        run(source, "small", mode="off")
    assert not (source / "data").exists()


@pytest.mark.parametrize(
    ("name", "images", "groups"),
    [("isbi2012", 18, 18), ("dsb2018", 216, 216), ("wbc", 300, 299), ("magnetic_tile", 500, 0)],
)
def test_real_datasets_need_no_flag(
    source: Path, shared_data: Callable[[str], Path], name: str, images: int, groups: int
) -> None:
    del source  # only its working directory is needed
    lines = run(shared_data(name), name, mode="off")
    assert lines[1].startswith(f"  images    {images}, ")
    dataset = Dataset.open(Path("data/raw") / name)
    if groups:
        assert len(set(dataset.groups.values())) == groups
    else:
        assert 1 < len(set(dataset.groups.values())) < images
