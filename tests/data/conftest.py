"""A small dataset folder for tests that read, check, damage or import it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segline import files
from segline.data import imagefiles

SPEC = {"name": "small", "classes": {0: "background", 1: "cell", 2: "nucleus"}, "ignore": 9, "labels": "instances"}


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes images (12, 10) a, b, ... with labels; `spec` changes dataset.yaml."""

    def make(images: int = 5, kinds: tuple[str, ...] = ("instances", "classes"), **spec: object) -> Path:
        folder = tmp_path / "small"
        for kind in ("images", *kinds):
            (folder / kind).mkdir(parents=True)
        for index in range(images):
            rng = np.random.default_rng(index)
            instances = np.zeros((12, 10), np.uint16)
            instances[1:5, 1:4], instances[1:5, 4:7], instances[7:11, 2:8] = 1, 2, 700
            classes = np.array([0, 1, 2], np.uint8)[np.select([instances == 700, instances > 0], [2, 1], 0)]
            arrays = {"instances": instances, "classes": classes}
            imagefiles.write_png(folder / "images" / f"{chr(97 + index)}.png", rng.integers(0, 255, (12, 10), np.uint8))
            for kind in kinds:
                imagefiles.write_png(folder / kind / f"{chr(97 + index)}.png", arrays[kind])
        files.write_yaml(folder / "dataset.yaml", SPEC | spec)
        return folder

    return make
