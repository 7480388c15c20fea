"""The layout of images with one mask each, judged by masks made by hand."""

from pathlib import Path

import numpy as np
import pytest

from segline.data import imagefiles
from segline.data.dataset import IGNORE
from segline.importing.formats.masks import layout
from segline.importing.layout import ImageSource, ImportOptions, LayoutError, MaskSource


def mask_of(array: np.ndarray) -> MaskSource:
    return MaskSource(Path("a.png"), lambda: array.astype(np.uint8))


def net() -> np.ndarray:
    mask = np.full((64, 64), 255)
    mask[::12], mask[:, ::12] = 0, 0
    return mask


def soft() -> np.ndarray:
    mask = np.zeros((24, 24))
    mask[4:20, 4:20], mask[4, 4:20], mask[19, 4:20] = 255, 170, 90
    return mask


def test_images_without_mask_as_background(tmp_path: Path) -> None:
    file = tmp_path / "b.png"
    imagefiles.write_png(file, np.ones((3, 5), np.uint8))
    masks = {"a": mask_of(np.array([[200, 255]]).repeat(3, 0))}
    found = layout({}, masks, ImportOptions(), blank={"b": file})
    assert found.class_of == {0: 0, 200: 1, 255: 2}
    np.testing.assert_array_equal(found.classes["b"].read(), np.zeros((3, 5)))
    with pytest.raises(LayoutError, match="segline reads these masks as boundary masks, in which 0 is the border"):
        layout({}, {"a": mask_of(net())}, ImportOptions(), blank={"b": file})
    with pytest.raises(LayoutError, match="--missing-as-background and --ignore 0"):
        layout({}, {"a": mask_of(np.array([[0, 1, 2]]))}, ImportOptions(ignore=0), blank={"b": file})


def test_a_threshold_makes_two_values() -> None:
    masks = {"a": mask_of(soft()), "b": mask_of(net())}
    found = layout({stem: ImageSource(Path(stem)) for stem in masks}, masks, ImportOptions(threshold=100))
    assert (found.labels, dict(found.class_of or {})) == ("classes", {0: 0, 1: 1})
    np.testing.assert_array_equal(found.classes["a"].read(), soft() > 100)
    with pytest.raises(LayoutError, match="no mask holds a pixel above 255"):
        layout({}, masks, ImportOptions(threshold=255))


def test_named_classes() -> None:
    masks = {"a": mask_of(np.array([[0, 2, 255]]))}
    found = layout({}, masks, ImportOptions(names={2: "nucleus"}), named={0: "", 2: "red", 255: ""})
    assert found.names == {0: "background", 1: "class 1", 2: "nucleus"}
    assert found.class_of == {0: 0, 1: 1, 2: 2, 255: IGNORE}
    assert found.labels == "classes"
    with pytest.raises(LayoutError, match="--class 3: there is no such class; the classes are 0, 1, 2"):
        layout({}, masks, ImportOptions(names={3: "x"}), named={0: "", 2: "red"})
