"""Stage weights: the maps are those of `weight_map`, with class weights from the training images alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segline.data.borders import weight_map
from segline.data.prepared import Prepared
from segline.stages import prepare, sample, weights


@pytest.fixture
def prepared(project: Path) -> Prepared:
    del project
    sample.main()
    prepare.main()
    return Prepared.open()


def test_maps(prepared: Prepared, project: Path) -> None:
    with (project / "params.yaml").open("a") as file:
        file.write("weights: {kind: falk2019, w0: 50, sigma: 6, class_balance: 1}\n")
    weights.main()
    train = np.concatenate([prepared.classes(name).ravel() for name in prepared.names("train")])
    even = train.size / (3 * np.bincount(train, minlength=3))  # balance 1: every class has a third of the weight
    for name in prepared.names("train") + prepared.names("validation"):
        expected = weight_map(
            prepared.target(name),
            prepared.instances(name),
            kind="falk2019",
            w0=50,
            sigma=6,
            background=0.1,
            background_sigma=10,
            class_weights=even,
        )
        np.testing.assert_allclose(prepared.weights(name), expected, rtol=1e-6)
        assert prepared.weights(name).dtype == np.float32


def test_the_test_split_is_left_alone(prepared: Prepared, project: Path) -> None:
    weights.main()
    learned = {f"{name}.npy" for split in ("train", "validation") for name in prepared.names(split)}
    assert {file.name for file in (project / "data/weights").iterdir()} == learned | {"montage.png"}


def test_again_is_the_same_bytes(prepared: Prepared, project: Path, tree: Callable[[Path], dict[str, str]]) -> None:
    weights.main()
    first = tree(project / "data/weights")
    weights.main()
    assert tree(project / "data/weights") == first
    del prepared


def test_montage_has_a_row_an_image(prepared: Prepared, project: Path) -> None:
    weights.main()
    with Image.open(project / "data/weights/montage.png") as picture:
        assert picture.mode == "RGB"
        assert picture.width > 3 * 64
        assert picture.height > 64 * min(4, len(prepared.names("train")))
