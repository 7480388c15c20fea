"""Stage sample: its output is a valid dataset with equal bytes in each run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from segline.data.checks import per_dataset
from segline.data.dataset import Dataset
from segline.data.synthetic import draw
from segline.stages import sample


def test_the_dataset_is_valid_and_the_same_in_each_run(project: Path, tree: Callable[[Path], dict[str, str]]) -> None:
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


def test_fewer_images_than_before_leave_no_old_image(project: Path) -> None:
    sample.main()
    file = project / "params.yaml"
    file.write_text(file.read_text().replace("images: 6", "images: 4"))
    sample.main()
    assert len(list((project / "data/raw/cells/images").iterdir())) == 4
