"""Legends: labelmap.txt of CVAT and CSV tables, judged by colours and names written by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segline.data import imagefiles
from segline.data.dataset import IGNORE
from segline.importing.formats.folders import recognise
from segline.importing.formats.legends import read_csv, read_labelmap
from segline.importing.layout import ImportOptions, LayoutError

TEXT = """\
# label:color_rgb:parts:actions
background:0,0,0::
Zelle:250,50,83::
kern: a:51,221,255:part:
ignored:1,2,3::
"""
CELL, NUCLEUS, VOID = (250, 50, 83), (51, 221, 255), (1, 2, 3)


def export(folder: Path, text: str = TEXT, masks: str = "SegmentationClass") -> Path:
    """As CVAT exports `Segmentation mask 1.1`."""
    (folder / "labelmap.txt").write_text(text)
    for index in range(4):
        imagefiles.write_png(folder / "JPEGImages" / f"{index}.png", np.full((30, 40, 3), 9 * index, np.uint8))
        mask = np.zeros((30, 40, 3), np.uint8)
        mask[2:20, 2:20], mask[5:12, 5:12], mask[25:, 30:] = CELL, NUCLEUS, VOID
        imagefiles.write_png(folder / masks / f"{index}.png", mask)
    return folder


def test_colours_and_names_are_those_of_the_map(tmp_path: Path) -> None:
    found = recognise(export(tmp_path), ImportOptions())
    assert found is not None
    assert found.names == {0: "background", 1: "Zelle", 2: "kern: a"}
    mask = found.classes["0"].read()
    assert [mask[0, 0], mask[3, 3], mask[6, 6], mask[29, 39]] == [0, 1, 2, IGNORE]
    assert "labelmap.txt" in " ".join(found.reasons)


def test_flags_are_above_the_map(tmp_path: Path) -> None:
    export(tmp_path)
    renamed = recognise(tmp_path, ImportOptions(names={1: "cell"}))
    assert renamed is not None and renamed.names[1] == "cell"
    table = {(0, 0, 0): 0, CELL: 1, NUCLEUS: 1, VOID: 0}
    joined = recognise(tmp_path, ImportOptions(colours=table))
    assert joined is not None and set(joined.names) == {0, 1}


def test_a_palette_is_read_by_the_map(tmp_path: Path) -> None:
    export(tmp_path)
    for file in (tmp_path / "SegmentationClass").iterdir():
        Image.open(file).quantize(8).save(file)
    found = recognise(tmp_path, ImportOptions())
    assert found is not None
    assert np.unique(found.classes["0"].read()).tolist() == [0, 1, 2, IGNORE]


def test_masks_of_numbers_ignore_the_label_map(tmp_path: Path) -> None:
    export(tmp_path)
    for file in (tmp_path / "SegmentationClass").iterdir():
        imagefiles.write_png(file, np.kron(np.array([[0, 1], [2, 0]], np.uint8), np.ones((15, 20), np.uint8)))
    found = recognise(tmp_path, ImportOptions())
    assert found is not None and found.names == {0: "background", 1: "class 1", 2: "class 2"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cell", "'cell' does not have the form NAME:RED,GREEN,BLUE:PARTS:ACTIONS"),
        ("cell:::", "does not have the form NAME:RED,GREEN,BLUE:PARTS:ACTIONS"),
        ("cell:1,2,300::", "does not have the form NAME:RED,GREEN,BLUE:PARTS:ACTIONS"),
        (
            "cell:250,50,83::",
            r"another line already has the colour \(250, 50, 83\) or the name 'cell'; give each class its own",
        ),
        (
            "Zelle:9,9,9::",
            r"another line already has the colour \(9, 9, 9\) or the name 'Zelle'; give each class its own",
        ),
        (":9,9,9::", "name '' is empty"),
        ("a\x1bb:9,9,9::", "control character"),
    ],
)
def test_invalid_lines_are_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "labelmap.txt").write_text(TEXT + line + "\n")
    with pytest.raises(LayoutError, match=rf"labelmap\.txt, line 6.*{message}"):
        read_labelmap(tmp_path)


def test_a_map_of_background_only(tmp_path: Path) -> None:
    assert read_labelmap(tmp_path) is None
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\n")
    with pytest.raises(LayoutError, match="names 0 classes"):
        read_labelmap(tmp_path)


def test_a_colour_outside_the_map_is_refused(tmp_path: Path) -> None:
    export(tmp_path, TEXT.replace("51,221,255", "51,221,254"))
    found = recognise
    with pytest.raises(LayoutError, match="without a class: #33ddff"):
        found(tmp_path, ImportOptions())


def test_a_table_is_read(tmp_path: Path) -> None:
    file = tmp_path / "colours.csv"
    file.write_text('colour,class,name\n#000000,0,\n#FF8000,1,cell\n"0, 0, 255",2,nucleus\n00ff00,ignore,void\n')
    assert read_csv(file) == (
        {(0, 0, 0): 0, (255, 128, 0): 1, (0, 0, 255): 2, (0, 255, 0): IGNORE},
        {1: "cell", 2: "nucleus"},
    )
    file.write_text("class,colour\n1,#ff0000\n1,#00ff00\n")
    assert read_csv(file) == ({(255, 0, 0): 1, (0, 255, 0): 1}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("color,class\n#000000,0\n", r"has no column colour, only the columns color, class; give --colours"),
        ("colour,name\n#000000,x\n", "has no column class"),
        ("colour,class\n#00000,0\n", r"line 2: the colour is '#00000'; write #rrggbb"),
        ('colour,class\n#000000,0\n"1,2,300",1\n', "line 3: the colour is '1,2,300'"),
        ('colour,class\n"1,2",1\n', "the colour is '1,2'"),
        ('colour,class\n"1,-2,3",1\n', "the colour is '1,-2,3'"),
        ("colour,class\n#000000,zero\n", "the class is 'zero'; write a number from 0 to 254, or the word ignore"),
        ("colour,class\n#000000,256\n", "the class is '256'"),
        ("colour,class\n#000000,0\n#000000,1\n", "line 3: an earlier line already gives colour #000000 the class 0"),
        ("colour,class,name\n#000000,0,a\n#000001,0,b\n", "class 0 already has the name 'a', not 'b'"),
        ("colour,class\n", "lists no colours; add a line for the colour of each class"),
        ("colour,class\n#000000,ignore\n", "only ignored colours"),
    ],
)
def test_invalid_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "colours.csv").write_text(text)
    with pytest.raises(LayoutError, match=f"colours.csv.*{message}"):
        read_csv(tmp_path / "colours.csv")
