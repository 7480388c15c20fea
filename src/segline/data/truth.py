"""Score predictions for the test split against the ground truth; identify the test split by digests."""

from typing import Any

import numpy as np
import numpy.typing as npt

from segline import files
from segline.data.dataset import IGNORE
from segline.data.prepared import Prepared
from segline.model.objects import segments, thin
from segline.score import judge

KINDS = ("images", "classes", "instances")  # folders with the arrays of the test split


def score(
    prepared: Prepared,
    name: str,
    labels: npt.NDArray[np.uint8],
    objects: npt.NDArray[Any] | None,
    foreground: npt.NDArray[np.float32] | None = None,
) -> judge.Score:
    """Score the prediction for an image; compute every metric that the labels of the dataset allow.

    All metrics except the detection score need only `labels` and `objects`. The detection score also needs
    `foreground`.

    Parameters
    ----------
    labels, objects, foreground
        (H, W) predicted class ids, object ids and foreground probability; None if unknown.
    """
    truth, kind = prepared.classes(name), prepared.dataset.labels
    return judge.score(
        truth,
        labels,
        len(prepared.dataset.classes),
        IGNORE,
        objects=(prepared.instances(name), objects) if kind == "instances" and objects is not None else None,
        segments=(segments((truth > 0) & (truth != IGNORE)), thin(labels, 0)) if kind == "boundaries" else None,
        foreground=foreground if kind == "classes" else None,
    )


def md5s(prepared: Prepared) -> dict[str, str]:
    """Return values that identify the test split: the MD5s of its arrays, the setting `labels` and the classes."""
    names = prepared.names("test")
    content = {f"{kind}/{name}": files.md5(prepared.folder / kind / f"{name}.npy") for name in names for kind in KINDS}
    return content | {"labels": prepared.dataset.labels, "classes": str(sorted(prepared.dataset.classes.items()))}
