"""Stage sample: the folder it writes is a sound dataset, the same each time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from segline.data.checks import per_dataset
from segline.data.dataset import Dataset
from segline.data.synthetic import draw
from segline.stages import sample


def test_a_sound_dataset_the_same_each_time(project: Path, tree: Callable[[Path], dict[str, str]]) -> None:
    sample.main()
    folder = project / "data/raw/cells"
    first = tree(folder)
    sample.main()
    assert tree(folder) == first
    assert {path.name for path in folder.parent.iterdir()} == {"cells"}
    dataset = Dataset.open(folder)
    assert per_dataset.problems(dataset) == []
    assert dataset.stems == [f"cells-{index:03d}" for index in range(6)]
    drawing = draw(3, 4, 64, 80)
    np.testing.assert_array_equal(dataset.image("cells-004")[..., 0], drawing.image)
    for found, expected in zip(dataset.truth("cells-004"), (drawing.classes, drawing.instances), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_fewer_images_leave_none_of_the_old(project: Path) -> None:
    sample.main()
    file = project / "params.yaml"
    file.write_text(file.read_text().replace("images: 6", "images: 4"))
    sample.main()
    assert len(list((project / "data/raw/cells/images").iterdir())) == 4
