"""Scores and digests of the test split: the digests change with the split, and with nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segline.data import truth
from segline.data.dataset import IGNORE, Spec
from segline.data.prepared import Prepared
from segline.model.normalisation import Statistics

LABELS = np.array([[0, 0, 1, 1], [0, 0, 0, IGNORE], [1, 1, 0, 0]], np.uint8)
OBJECTS = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [2, 2, 0, 0]], np.int32)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Write a prepared dataset of two test images and one training image, with instances."""
    manifest = pd.DataFrame({"image": ["a", "b", "c"], "split": ["test", "test", "train"]})
    for name in manifest["image"]:
        for kind, array in {"images": LABELS[..., None], "classes": LABELS, "instances": OBJECTS}.items():
            (tmp_path / kind).mkdir(exist_ok=True)
            np.save(tmp_path / kind / f"{name}.npy", array)
    spec = Spec(name="cells", classes={0: "background", 1: "cell"}, labels="instances")
    return Prepared(tmp_path, manifest, spec, Statistics("uint8", 1, (0.5,), (0.2,)))


def of_kind(prepared: Prepared, labels: str) -> Prepared:
    return replace(prepared, dataset=prepared.dataset.model_copy(update={"labels": labels}))


def test_score_has_the_metrics_that_the_labels_allow(prepared: Prepared) -> None:
    foreground = (LABELS == 1).astype(np.float32)
    score = truth.score(prepared, "a", LABELS % IGNORE, OBJECTS, foreground)
    assert score.confusion.tolist() == [[7, 0], [0, 4]]
    assert score.matched == (2, 0, 0)
    assert score.v_rand is score.detection_score is None
    # A model without objects.
    assert truth.score(prepared, "a", LABELS % IGNORE, None).matched is None
    classes = truth.score(of_kind(prepared, "classes"), "a", LABELS % IGNORE, OBJECTS, foreground)
    assert classes.matched is classes.v_rand is None
    assert classes.detection_score is not None
    boundaries = truth.score(of_kind(prepared, "boundaries"), "a", LABELS % IGNORE, OBJECTS, foreground)
    assert boundaries.v_rand == boundaries.v_info == 1
    assert boundaries.matched is boundaries.detection_score is None


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda it: np.save(it.folder / "images" / "b.npy", LABELS[..., None] + 1), True),
        (lambda it: np.save(it.folder / "classes" / "a.npy", LABELS * 0), True),
        (lambda it: np.save(it.folder / "instances" / "a.npy", OBJECTS * 2), True),
        (lambda it: it.manifest.loc.__setitem__((2, "split"), "test"), True),
        (lambda it: it.dataset.classes.update({1: "nucleus"}), True),
        (lambda it: np.save(it.folder / "images" / "c.npy", LABELS[..., None] + 1), False),
        (lambda it: it.manifest.__setitem__("group", ["x", "x", "y"]), False),
    ],
)
def test_md5s_change_only_with_the_test_split(
    prepared: Prepared, change: Callable[[Prepared], object], seen: bool
) -> None:
    before = truth.md5s(prepared)
    assert truth.md5s(prepared) == before
    change(prepared)
    assert (truth.md5s(prepared) != before) == seen


def test_md5s_change_with_the_meaning_of_the_labels(prepared: Prepared) -> None:
    assert truth.md5s(prepared) != truth.md5s(of_kind(prepared, "classes"))
