"""DVC stage `weights`: compute weight maps, object maps, and the density of tile centres."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segline import files, params, progress
from segline.data import borders, imagefiles
from segline.data.density import cells
from segline.data.object_maps import object_map_bands
from segline.data.prepared import DENSITY, OBJECT_MAPS, WEIGHTS, Prepared
from segline.score.overlay import CLASS_COLOURS, RGB, gallery, view

EXAMPLES = 4  # number of images in the montage
SHOWN_SIDE = 1024  # px; a larger image is cropped to its middle
STEPS = 6  # number of values in the colour scale of the montage


def main() -> None:
    """Write data/weights from data/prepared, with the settings in section `weights` of params.yaml."""
    settings, runtime = params.read(params.Weights), params.read(params.Runtime)
    prepared = Prepared.open()
    of_class = borders.class_weights(_train_pixels(prepared), settings.class_balance)
    terms = _terms(settings, of_class)
    names = prepared.names("train") + prepared.names("validation")
    instances = prepared.dataset.labels == "instances"
    with files.whole_folder(WEIGHTS) as folder:
        if instances:
            files.make_empty_folder(folder / OBJECT_MAPS)

        def write(name: str) -> None:
            _write_map(prepared, name, terms, folder / f"{name}.npy")
            if instances:
                file, shape = folder / OBJECT_MAPS / f"{name}.npy", prepared.target(name).shape
                files.save_parts(file, shape, np.uint8, object_map_bands(lambda: prepared.instances(name)))

        for _ in progress.each(write, names, "weights", runtime.progress):
            pass
        if settings.density_balance or settings.density_border:
            _densities(prepared, settings, folder, runtime.progress)
        train = prepared.names("train")
        shown = train[:: max(1, len(train) // EXAMPLES)][:EXAMPLES]
        maps = [_middle(files.load_array(folder / f"{name}.npy")) for name in shown]
        imagefiles.write_png(folder / "montage.png", _montage(prepared, shown, maps))


def _terms(settings: params.Weights, of_class: npt.NDArray[np.float64]) -> borders.Terms:
    return {
        "kind": settings.kind,
        "w0": settings.w0,
        "sigma": settings.sigma,
        "background": settings.background,
        "background_sigma": settings.background_sigma,
        "class_weights": of_class,
    }


def _write_map(prepared: Prepared, name: str, terms: borders.Terms, file: Path) -> None:
    """Write the weight map of one image in bands of rows, so that only one band is in memory at a time."""

    def weigh(rows: slice) -> npt.NDArray[np.float32]:
        # The arrays are reopened for each band of rows, so that the memory of the previous band is freed.
        target, instances = prepared.target(name), prepared.instances(name)
        return borders.weight_band(target, instances, rows, ignore=prepared.dataset.ignore, **terms)

    shape = prepared.target(name).shape
    files.save_parts(file, shape, np.float32, map(weigh, borders.bands(shape[0])))


def _densities(prepared: Prepared, settings: params.Weights, folder: Path, mode: progress.Mode) -> None:
    """Write the density of tile centres: how often each pixel of the training images becomes the centre of a tile."""
    of_class = borders.class_weights(_train_pixels(prepared), settings.density_balance)
    # Set all class weights to 0, so that the weight map consists of the border term only.
    border_term: borders.Terms = {**_terms(settings, np.zeros_like(of_class)), "w0": settings.density_border}

    def write(name: str) -> None:
        border, file = folder / DENSITY / f".{name}.npy", folder / DENSITY / f"{name}.npy"
        if not settings.density_border:
            files.save_array(file, cells(prepared.classes(name), 0.0, of_class))
            return
        _write_map(prepared, name, border_term, border)
        files.save_array(file, cells(prepared.classes(name), files.load_array(border), of_class))
        border.unlink()

    files.make_empty_folder(folder / DENSITY)
    for _ in progress.each(write, prepared.names("train"), "density", mode):
        pass
    files.write_json((folder / DENSITY).with_suffix(".json"), {"of_class": of_class.tolist()})


def _train_pixels(prepared: Prepared) -> list[int]:
    """Return the number of pixels of each class in the training images."""
    train = prepared.manifest[prepared.manifest["split"] == "train"]
    return [int(train[f"pixels_{class_id}"].astype(int).sum()) for class_id in prepared.dataset.classes]


def _montage(prepared: Prepared, names: list[str], maps: list[npt.NDArray[np.float32]]) -> RGB:
    """Draw three pictures side by side for each image: image, target and weight map. Large images are cropped."""
    top = max(float(weights.max()) for weights in maps) or 1.0
    panels: list[tuple[str, RGB]] = []
    for name, weights in zip(names, maps, strict=True):
        panels.append((name, view(_middle(prepared.image(name)))))
        panels.append(("target", _class_picture(_middle(prepared.target(name)))))
        panels.append((f"weight, {weights.min():.2f} to {weights.max():.2f}", _heat(weights / top)))
    values = np.linspace(0, 1, STEPS, dtype=np.float32)
    colours = _heat(values[None])[0].tolist()
    scale = [(f"{value * top:.1f}", (r, g, b)) for value, (r, g, b) in zip(values, colours, strict=True)]
    return gallery(panels, columns=3, legend=scale)


def _middle(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the middle of an array (H, W, ...), at most SHOWN_SIDE rows and columns.

    The array is cropped, not scaled down, because scaling would hide gaps that are one pixel wide.
    """
    rows, columns = (slice(max(0, side - SHOWN_SIDE) // 2, (side + SHOWN_SIDE) // 2) for side in pixels.shape[:2])
    return pixels[rows, columns]


def _class_picture(target: npt.NDArray[np.uint8]) -> RGB:
    """Draw a target (H, W): background black, ignored pixels grey, and classes in the same colours as in overlays."""
    palette = np.zeros((256, 3), np.uint8)
    palette[1:] = np.resize(np.array(CLASS_COLOURS, np.uint8), (255, 3))
    palette[255] = 128
    return palette[target]


def _heat(share: npt.NDArray[np.float32]) -> RGB:
    """Draw an array (H, W) of values between 0 and 1 in the colours of viridis, a perceptually uniform colour map."""
    levels = np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1]).astype(np.uint8)
