"""Stage weights: maps equal to `weight_map` with class weights from the training images alone, and densities."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segline.data.borders import weight_map
from segline.data.density import CELL
from segline.data.object_maps import object_map
from segline.data.prepared import Prepared
from segline.params import ParamsError
from segline.stages import prepare, sample, weights


@pytest.fixture
def prepared(project: Path) -> Prepared:
    del project
    sample.main()
    prepare.main()
    return Prepared.open()


def test_maps_use_class_weights_of_the_training_images(prepared: Prepared, project: Path) -> None:
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


def test_no_map_is_written_for_the_test_split(prepared: Prepared, project: Path) -> None:
    weights.main()
    learned = {f"{name}.npy" for split in ("train", "validation") for name in prepared.names(split)}
    assert {file.name for file in (project / "data/weights").iterdir()} == learned | {"montage.png", "object_maps"}
    assert {file.name for file in (project / "data/weights/object_maps").iterdir()} == learned


def test_object_maps_are_those_of_the_instances(prepared: Prepared) -> None:
    weights.main()
    for split in ("train", "validation"):
        for name, values in zip(prepared.names(split), prepared.object_maps(split), strict=True):
            np.testing.assert_array_equal(values, object_map(prepared.instances(name)))


def test_a_second_run_writes_the_same_bytes(
    prepared: Prepared, project: Path, tree: Callable[[Path], dict[str, str]]
) -> None:
    weights.main()
    first = tree(project / "data/weights")
    weights.main()
    assert tree(project / "data/weights") == first
    del prepared


def test_the_montage_has_a_row_for_each_image(prepared: Prepared, project: Path) -> None:
    weights.main()
    with Image.open(project / "data/weights/montage.png") as picture:
        assert picture.mode == "RGB"
        assert picture.width > 3 * 64
        assert picture.height > 64 * min(4, len(prepared.names("train")))


def test_the_montage_shows_the_middle_of_a_large_image(
    prepared: Prepared, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at 16 px, so that panels scaled by whole factors are a multiple of 16 px wide and high."""
    del prepared
    monkeypatch.setattr(weights, "SHOWN_SIDE", 16)
    assert weights._middle(np.arange(100)[:, None] + np.zeros(10, int))[:, 0].tolist() == list(range(42, 58))
    weights.main()
    with Image.open(project / "data/weights/montage.png") as picture:
        assert picture.width == 3 * 256 + 4 * 8


def test_the_density_is_high_for_rare_classes_and_in_the_border_term(prepared: Prepared, project: Path) -> None:
    with (project / "params.yaml").open("a") as file:
        file.write("weights: {kind: falk2019, w0: 0, sigma: 6, density_balance: 1, density_border: 3}\n")
    weights.main()
    density = prepared.density()
    assert density is not None
    train = [prepared.classes(name) for name in prepared.names("train")]
    pixels = np.bincount(np.concatenate(train, axis=None), minlength=3)
    assert density.classes.names == prepared.names("train")  # type: ignore[attr-defined]
    totals = [float(sums[0, -1, -1]) for sums in density.sums]
    extra = 0.0
    for name, classes, sums, total in zip(prepared.names("train"), train, density.sums, totals, strict=True):
        border = weight_map(
            prepared.target(name),
            prepared.instances(name),
            kind="falk2019",
            w0=3,
            sigma=6,
            background=0,
            background_sigma=1,
            class_weights=[0, 0, 0],
        )
        extra += border.sum()
        likely = (pixels.sum() / (3 * pixels))[classes] + border
        assert total == pytest.approx(likely.sum(), rel=1e-6)
        assert sums[0].shape == tuple(-(-side // CELL) for side in classes.shape)
        assert sums[0, 0, 0] == pytest.approx(likely[:CELL, :CELL].sum(), rel=1e-6)
        assert sums[1].max() <= 3
    # Without the border every pixel is drawn once on average: no setting changes the scale of another.
    assert sum(totals) - extra == pytest.approx(pixels.sum())
    assert extra > 0


def test_without_density_settings_pixels_are_drawn_uniformly(prepared: Prepared, project: Path) -> None:
    weights.main()
    assert prepared.density() is None
    assert not list((project / "data/weights").glob("density*"))


def test_a_density_of_a_border_term_that_does_not_exist_is_refused(prepared: Prepared, project: Path) -> None:
    with (project / "params.yaml").open("a") as file:
        file.write("weights: {kind: none, density_border: 2}\n")
    with pytest.raises(
        ParamsError,
        match=r"params\.yaml: weights .*density_border 2 needs the border term, which kind 'none' does not compute; "
        r"set density_border to 0, or set kind to 'paper' \(with w0 = 0 if the loss must not contain the border term\)",
    ):
        weights.main()
    assert not (project / "data/weights").exists()
    del prepared
