"""DVC stage `sample`: render the synthetic default dataset."""

from pathlib import Path

from segline import files, params, progress
from segline.data import imagefiles, synthetic
from segline.data.dataset import SPEC, Spec, write_spec

OUT = Path("data/raw") / synthetic.NAME


def main() -> None:
    """Write synthetic images with instances and classes to data/raw/cells; params.yaml sets their number and size."""
    settings, runtime = params.read(params.Sample), params.read(params.Runtime)
    with files.whole_folder(OUT) as folder:
        for kind in ("images", "instances", "classes"):
            files.make_empty_folder(folder / kind)

        def write(index: int) -> None:
            drawing = synthetic.draw(settings.seed, index, settings.min_size, settings.max_size)
            name = f"cells-{index:03d}.png"
            imagefiles.write_png(folder / "images" / name, drawing.image)
            imagefiles.write_png(folder / "instances" / name, drawing.instances.astype("uint16"))
            imagefiles.write_png(folder / "classes" / name, drawing.classes)

        for _ in progress.each(write, range(settings.images), "sample", runtime.progress):
            pass
        write_spec(folder / SPEC, _spec())


def _spec() -> Spec:
    return Spec(
        name=synthetic.NAME,
        classes=synthetic.CLASSES,
        labels="instances",
        licence="CC0-1.0",
        source="drawn by segline sample",
    )
