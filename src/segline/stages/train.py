"""Stage train: fit the network, keep its best epoch, log all of it."""

import math
import tempfile
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import DataLoader

from segline import params, progress
from segline.data import files
from segline.data.dataset import IGNORE
from segline.data.prepared import PREPARED, Prepared
from segline.data.sampler import TrainingTiles, ValidationTiles
from segline.model.predict import Description, Inference, Predictor
from segline.params import Tuned
from segline.score.overlay import gallery, overlay
from segline.track import lineage
from segline.track.runs import Dataset, Run, StartedRun, flat
from segline.track.store import open_store
from segline.train import checkpoint, collapse, device, keep, loop

OUT = Path("data/model")
PICTURES = 5  # pictures of validation images in the run, spread over the epochs
PICTURE_SIDE = 512  # px; of a larger validation image the upper left corner is shown
SHOWN = 4  # validation images in a picture
NOT_LOGGED = ("epoch", "collapsed")  # as figures of an epoch
NOT_IN_HISTORY = ("tiles_per_second", "collapsed")


def main() -> None:
    """Train on data/prepared and data/weights as data/tune/best.yaml says; write data/model and an MLflow run."""
    tuned, runtime = params.read_tuned(), params.read(params.Runtime)
    where = device.choose(runtime)
    for line in (*_searched(tuned), *device.warnings(tuned, where)):
        progress.note(line)
    prepared = Prepared.open()
    dataset = prepared.dataset
    description = Description(tuned.model.model_dump(), dataset.classes, dataset.labels, prepared.statistics)
    torch.manual_seed(tuned.train.seed)
    state = loop.start(description.build(), tuned.train, where)
    tiles, validation = _tiles(prepared, tuned, state.network.geometry.output(tuned.train.tile))
    epochs = loop.fit(state, tiles, validation, tuned.train, runtime.workers)
    with tempfile.TemporaryDirectory() as scratch, _run(prepared, tuned) as run:
        kept, history = keep.Kept(Path(scratch), tuned.train), []
        watch = collapse.Watch(dataset.classes, tuned.train)
        for epoch in progress.track(epochs, "epoch", runtime.progress, tuned.train.epochs, _figures):
            kept.offer(epoch, state)
            run.log(epoch.epoch, {name: value for name, value in asdict(epoch).items() if name not in NOT_LOGGED})
            history.append({name: value for name, value in asdict(epoch).items() if name not in NOT_IN_HISTORY})
            if said := watch.see(epoch.epoch, epoch.collapsed):
                progress.note(f"train: {said}")
            if epoch.epoch % -(-tuned.train.epochs // PICTURES) == 0:
                _picture(run, Predictor(state.network, description, Inference(), where), prepared, epoch.epoch)
        if verdict := watch.verdict(kept.best[0].epoch):
            progress.note(f"train: {verdict}")
            run.tag({"collapsed": verdict})
        _write(kept, description, history, verdict)
        if tuned.train.save_checkpoint:
            run.artifact(kept.folder, "checkpoints")
        run.tag({"model.md5": lineage.model_md5(OUT), "best.epoch": kept.best[0].epoch})


def _searched(tuned: Tuned) -> list[str]:
    """Which settings came from the search, with their values."""
    values = flat(tuned.model_dump())
    return [f"train: {name} = {values[name]} comes from the search" for name in tuned.searched]


def _tiles(prepared: Prepared, tuned: Tuned, output: int) -> tuple[TrainingTiles, DataLoader[loop.Batch]]:
    """Training tiles, and the fixed validation tiles in batches."""
    settings = tuned.train
    tiles = TrainingTiles(
        *prepared.tile_sources("train"),
        statistics=prepared.statistics,
        settings=tuned.augment,
        tile=settings.tile,
        output=output,
        tiles_per_epoch=settings.tiles_per_epoch,
        seed=settings.seed,
        ignore=IGNORE,
        density=prepared.density(),
    )
    judged = ValidationTiles(
        *prepared.tile_sources("validation"),
        statistics=prepared.statistics,
        tile=settings.tile,
        output=output,
        most=settings.validation_tiles,
        ignore=IGNORE,
    )
    return tiles, DataLoader(judged, batch_size=settings.batch_size)  # type: ignore[arg-type]  # it makes tensors


def _run(prepared: Prepared, tuned: Tuned) -> StartedRun:
    """A new run, with what it is made from."""
    digest = lineage.digest(PREPARED)
    inputs = [Dataset(split, prepared.dataset.name, digest, str(PREPARED)) for split in ("train", "validation")]
    content = tuned.model_dump(exclude={"searched"})
    run = open_store().start_run("train", flat(content), lineage.tags(torch.get_num_threads()), inputs)
    run.watch_system()
    return run


def _figures(epoch: loop.Epoch) -> str:
    return (
        f"loss {epoch.loss:.4f} validation {epoch.validation_loss:.4f} mean IoU {epoch.validation_mean_iou:.3f} "
        f"pixel error {epoch.validation_pixel_error:.3f} {epoch.tiles_per_second:.1f} tiles/s"
    )


def _picture(run: Run, predictor: Predictor, prepared: Prepared, epoch: int) -> None:
    """Log what the network makes of some validation images, always the same ones."""
    corner = (slice(0, PICTURE_SIDE), slice(0, PICTURE_SIDE))
    panels = []
    for name in prepared.names("validation")[:SHOWN]:
        raw = prepared.image(name)[corner]
        panels.append((name, overlay(raw, predictor.labels(raw), prepared.classes(name)[corner], IGNORE)))
    run.picture(gallery(panels), "validation", step=epoch)


def _write(kept: keep.Kept, description: Description, history: list[dict[str, float]], collapsed: str | None) -> None:
    """Write data/model; nothing in it depends on when or where it was made."""
    files.make_folder(OUT)
    files.copy(kept.weights, OUT / checkpoint.WEIGHTS)
    description.write(OUT / "model.json")
    files.write_table(OUT / "history.csv", pd.DataFrame(history))
    best = asdict(kept.best[0])
    figures = {name: _or_none(value) for name, value in best.items() if name.startswith("validation")}
    files.write_json(
        OUT / "metrics.json",
        {"best_epoch": best["epoch"], "epochs": len(history), **figures, "collapsed": collapsed},
    )


def _or_none(figure: float) -> float | None:
    """JSON knows no nan."""
    return None if math.isnan(figure) else figure
