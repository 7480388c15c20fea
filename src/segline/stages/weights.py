"""Stage weights: one border weight map for each image to learn from."""

import cv2
import numpy as np
import numpy.typing as npt

from segline import params, progress
from segline.data import files
from segline.data.borders import class_weights, weight_map
from segline.data.prepared import WEIGHTS, Prepared
from segline.score.overlay import CLASS_COLOURS, RGB, gallery, view

EXAMPLES = 4  # images in the montage
STEPS = 6  # values in its scale


def main() -> None:
    """Write data/weights from data/prepared as params.yaml's section weights says."""
    settings, runtime = params.read(params.Weights), params.read(params.Runtime)
    prepared = Prepared.open()
    shape = settings.model_dump(exclude={"class_balance"})
    of_class = class_weights(_train_pixels(prepared), settings.class_balance)
    names = prepared.names("train") + prepared.names("validation")
    with files.whole_folder(WEIGHTS) as folder:

        def write(name: str) -> None:
            classes, instances, ignore = prepared.classes(name), prepared.instances(name), prepared.dataset.ignore
            weights = weight_map(classes, instances, **shape, class_weights=of_class, ignore=ignore)
            files.save_array(folder / f"{name}.npy", weights)

        for _ in progress.each(write, names, "weights", runtime.progress):
            pass
        train = prepared.names("train")
        shown = train[:: max(1, len(train) // EXAMPLES)][:EXAMPLES]
        maps = [files.load_array(folder / f"{name}.npy") for name in shown]
        files.write_png(folder / "montage.png", _montage(prepared, shown, maps))


def _train_pixels(prepared: Prepared) -> list[int]:
    """Pixels of each class over the training images."""
    train = prepared.manifest[prepared.manifest["split"] == "train"]
    return [int(train[f"pixels_{class_id}"].astype(int).sum()) for class_id in prepared.dataset.classes]


def _montage(prepared: Prepared, names: list[str], maps: list[npt.NDArray[np.float32]]) -> RGB:
    """A row an image: what is seen, what is learned, how much each pixel weighs."""
    top = max(float(weights.max()) for weights in maps) or 1.0
    panels: list[tuple[str, RGB]] = []
    for name, weights in zip(names, maps, strict=True):
        panels.append((name, view(prepared.image(name))))
        panels.append(("target", _class_picture(prepared.target(name))))
        panels.append((f"weight, {weights.min():.2f} to {weights.max():.2f}", _heat(weights / top)))
    values = np.linspace(0, 1, STEPS, dtype=np.float32)
    colours = _heat(values[None])[0].tolist()
    scale = [(f"{value * top:.1f}", (r, g, b)) for value, (r, g, b) in zip(values, colours, strict=True)]
    return gallery(panels, columns=3, legend=scale)


def _class_picture(target: npt.NDArray[np.uint8]) -> RGB:
    """Background black, ignored grey, classes in the colours of the overlays."""
    palette = np.zeros((256, 3), np.uint8)
    palette[1:] = np.resize(np.array(CLASS_COLOURS, np.uint8), (255, 3))
    palette[255] = 128
    return palette[target]


def _heat(share: npt.NDArray[np.float32]) -> RGB:
    """0 to 1 (H, W) in viridis, whose steps look equal to the eye."""
    levels = np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1]).astype(np.uint8)
