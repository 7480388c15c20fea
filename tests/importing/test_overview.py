"""The table of what a dataset holds, judged by hand."""

from collections.abc import Callable
from pathlib import Path

from segline.data.checks.problems import Checked
from segline.data.dataset import Dataset
from segline.importing import preview


def test_lines(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(images=3)
    (folder / "groups.csv").write_text("image,group\na,1\nb,1\nc,2\n")
    dataset = Dataset.open(folder)
    checked = [
        Checked("a", ("uint8", 1), (10, 20), pixels=((0, 150), (1, 50))),
        Checked("b", ("uint8", 1), (10, 20), pixels=((0, 200),)),
        Checked("c", ("uint16", 4), (30, 15), pixels=((1, 300), (2, 150))),
    ]
    assert list(preview.lines(dataset, checked, 7)) == [
        "  images    3, 15x10 to 20x30 px (2 sizes)",
        "  pixels    uint8 grey (2 images), uint16 with 4 channels (1 images)",
        "  labels    instances",
        "  groups    2",
        "  instances 7, 2.3 an image",
        "  class 0   background   41.176% of the pixels, in 2 images",
        "  class 1   cell         41.176% of the pixels, in 2 images",
        "  class 2   nucleus      17.647% of the pixels, in 1 images",
    ]


def test_one_size_one_type_no_groups(make_dataset: Callable[..., Path]) -> None:
    dataset = Dataset.open(make_dataset(images=2))
    checked = [Checked(stem, ("uint8", 3), (10, 20)) for stem in "ab"]
    lines = list(preview.lines(dataset, checked))
    assert lines[:3] == ["  images    2, 20x10 px", "  pixels    uint8 RGB", "  labels    instances"]
    assert lines[3].startswith("  class 0")
