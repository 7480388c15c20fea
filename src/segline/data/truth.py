"""The truth of the test split: what it lets be counted against a prediction, and by what it is known."""

from typing import Any

import numpy as np
import numpy.typing as npt

from segline import files
from segline.data.dataset import IGNORE
from segline.data.prepared import Prepared
from segline.model.objects import segments, thin
from segline.score import judge

KINDS = ("images", "classes", "instances")  # folders whose arrays make the test split


def score(
    prepared: Prepared,
    name: str,
    labels: npt.NDArray[np.uint8],
    objects: npt.NDArray[Any] | None,
    foreground: npt.NDArray[np.float32] | None = None,
) -> judge.Score:
    """Score what was predicted for an image, as far as the dataset's labels allow.

    All of it comes from the label and the instance image, so that whoever has those can check the figures; but for the
    detection score, which is of the foreground's probability.

    Parameters
    ----------
    labels, objects, foreground
        (H, W) predicted class ids, object ids and probability of not being background; None where not known.
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
    """What makes the test split, by content: the pixels and labels of each image, and what the labels mean."""
    names = prepared.names("test")
    content = {f"{kind}/{name}": files.md5(prepared.folder / kind / f"{name}.npy") for name in names for kind in KINDS}
    return content | {"labels": prepared.dataset.labels, "classes": str(sorted(prepared.dataset.classes.items()))}
