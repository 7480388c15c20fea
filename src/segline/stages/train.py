"""DVC stage `train`: fit the network, log each epoch and keep the best epoch; resume an interrupted training run."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from segline import files, params, process, progress
from segline.data.dataset import IGNORE
from segline.data.prepared import PREPARED, WEIGHTS, Prepared
from segline.model.inference import Description, Inference, Predictor, interpret
from segline.model.tiling import Source
from segline.params import Train, Tuned, flat
from segline.score.overlay import gallery, overlay
from segline.track import lineage
from segline.track.recording import LoggedDataset, Run, StartedRun
from segline.track.store import Store, open_store
from segline.train import checkpoint, collapse, device, keep, loop, pretrained, resume, setup

OUT = Path("data/model")
PICTURES = 5  # number of pictures of validation images, spread over all epochs
PICTURE_SIDE = 512  # px; a larger image is cropped to its upper left corner
SHOWN = 4  # number of validation images in a picture
NOT_IN_HISTORY = ("tiles_per_second", "collapsed")


def main() -> None:
    """Train on data/prepared and data/weights with the settings in data/tune/best.yaml; write data/model.

    Settings and metrics are logged to an MLflow run. An interrupted training run with the same settings, data and code
    is resumed.
    """
    tuned, runtime = params.read_tuned(), params.read(params.Runtime)
    where = device.choose(runtime)
    for line in (*_searched(tuned), *device.warnings(tuned, where)):
        progress.note(line)
    prepared, store = Prepared.open(), open_store()
    started = setup.build(prepared, tuned, where)
    state, description = started.state, started.description
    with resume.claim(store.place.resume, _parts(tuned), progress.note) as claim, process.Deferred() as stop:
        kept = _kept(claim, state, tuned.train)
        watch = collapse.Watch(prepared.dataset.classes, tuned.train)
        with _run(store, claim, prepared, tuned) as run, stop.errors_as_stop():
            stop.check()
            show = partial(_picture, run, lambda: Predictor(state.network, description, Inference(), where), prepared)
            moments = loop.moments(state, started.tiles, started.validation, tuned.train, runtime.workers)
            saved = kept.keep(moments, state, stop, progress.note)
            _learn(run, kept, watch, state, epochs=_shown(saved, state, tuned.train, runtime.progress), show=show)
            stop.check()
            _finish(run, kept, description, watch.verdict(kept.best[0].epoch))
            stop.check()
        # Under DVC, keep the checkpoint. The next run needs it if DVC is killed before the outputs are stored.
        claim.finish(lineage.model_md5(OUT), keep="DVC_STAGE" in os.environ or bool(stop.requested))
        stop.check()


def _searched(tuned: Tuned) -> list[str]:
    """Return a message for each setting whose value comes from the search."""
    values = flat(tuned.model_dump())
    return [f"train: {name} = {values[name]} comes from the search" for name in tuned.searched]


def _parts(tuned: Tuned) -> dict[str, str]:
    """Return the values that must be unchanged to resume training: settings, torch version, data and code digests."""
    settings = {name: str(value) for name, value in flat(tuned.model_dump(mode="json", exclude={"searched"})).items()}
    data = {path.as_posix(): lineage.digest(path) for path in (PREPARED, WEIGHTS)}
    data |= pretrained.digests(tuned.model.encoder_weights)
    return {**settings, **data, **lineage.code("train"), "torch": torch.__version__}


def _kept(claim: resume.Claim, state: setup.State, settings: Train) -> keep.Kept:
    """If this training run has a checkpoint, load it into `state`; print whether an interrupted training is resumed."""
    recorded = lineage.locked(OUT / checkpoint.WEIGHTS)
    if recorded and claim.finished == recorded["md5"]:
        claim.clear()  # DVC has stored the outputs of the former training run, so the user wants a new run
    claim.prune()
    kept = keep.Kept(claim.folder, settings)
    if kept.load(state):
        step = f", step {state.step} of the next epoch" if state.step else ""
        progress.note(f"train: training resumes after epoch {state.epoch} of {state.last_epoch}{step}")
    elif others := claim.differences():
        progress.note(
            f"train: training starts from the beginning, because the interrupted training had other values: {others}"
        )
    return kept


@contextmanager
def _run(store: Store, claim: resume.Claim, prepared: Prepared, tuned: Tuned) -> Iterator[StartedRun]:
    """Start an MLflow run with settings, tags and data; if training is resumed, reopen its MLflow run."""
    digest = lineage.digest(PREPARED)
    inputs = [LoggedDataset(split, prepared.dataset.name, digest, str(PREPARED)) for split in ("train", "validation")]
    content, tags = flat(tuned.model_dump(mode="json", exclude={"searched"})), lineage.tags(torch.get_num_threads())
    with store.start_run("train", content, tags, inputs, key=store.here(claim.key), former=claim.run) as run:
        claim.run = run.id
        store.end_stale()
        run.watch_system()
        yield run


def _shown(
    moments: Iterable[loop.Step | loop.Epoch], state: setup.State, settings: Train, mode: progress.Mode
) -> Iterator[loop.Epoch]:
    """Iterate over the steps and epochs in `moments`, and show the progress after each; yield only the epochs."""
    steps, monitored, last = loop.steps_per_epoch(settings), "", state.last_epoch

    def words() -> str:
        loss = float(state.sums.loss(settings.dice_weight)) if state.sums else math.nan
        speed = state.step * settings.batch_size / state.seconds if state.seconds else math.nan
        so_far = f"{state.epoch + 1}/{last} step {state.step}/{steps} loss {loss:.4f}"
        return " ".join(filter(None, [so_far, monitored, f"{speed:.1f} tiles/s"]))

    with progress.meter("epoch", mode, last * steps, state.epoch * steps + state.step) as meter:
        for moment in moments:
            if isinstance(moment, loop.Epoch):
                line = f"epoch {moment.epoch}/{last} {moment.summary()}"
                meter.total = state.last_epoch * steps
                meter.note(moment.epoch * steps, line)
                if state.last_epoch != last:
                    progress.note(
                        f"train: the last epoch is number {state.last_epoch} instead of {last}, to keep to "
                        f"train.minutes = {settings.minutes:g}"
                    )
                last, monitored = state.last_epoch, f"mean IoU {moment.validation_mean_iou:.3f}"
                yield moment
            else:
                if moment.step < steps and loop.is_overtime(state, settings):
                    progress.note(
                        f"train: epoch {moment.epoch} ends after step {moment.step} of {steps}, because "
                        f"train.minutes = {settings.minutes:g} is used up"
                    )
                meter.update(state.epoch * steps + moment.step, words)


def _learn(
    run: StartedRun,
    kept: keep.Kept,
    watch: collapse.Watch,
    state: setup.State,
    *,
    epochs: Iterable[loop.Epoch],
    show: Callable[[int], None],
) -> None:
    """Train and log each epoch. If the training is resumed, first log the epochs stored in the checkpoint."""
    for epoch in kept.epochs:
        run.log(epoch.epoch, epoch.metrics())
        watch.update(epoch.epoch, epoch.collapsed)
    if state.epoch and not state.step and _has_picture(state):
        show(state.epoch)
    for epoch in epochs:
        run.log(epoch.epoch, epoch.metrics())
        if said := watch.update(epoch.epoch, epoch.collapsed):
            progress.note(f"train: {said}")
        if _has_picture(state):
            show(epoch.epoch)


def _has_picture(state: setup.State) -> bool:
    """Return whether the latest epoch is one of `PICTURES` epochs, spread over the training."""
    return state.epoch % -(-state.last_epoch // PICTURES) == 0


def _picture(run: Run, predictor: Callable[[], Predictor], prepared: Prepared, epoch: int) -> None:
    """Log a picture of the predictions for the first few validation images."""
    corner = (slice(0, PICTURE_SIDE), slice(0, PICTURE_SIDE))
    panels, now = [], predictor()
    for name in prepared.names("validation")[:SHOWN]:
        image = prepared.image(name)
        outputs = now.outputs(image[corner], now.statistics(Source.of(image)))
        labels = interpret(outputs, now.inference).labels
        panels.append((name, overlay(image[corner], labels, prepared.classes(name)[corner], IGNORE)))
    run.picture(gallery(panels), "validation", step=epoch)


def _finish(run: Run, kept: keep.Kept, description: Description, collapsed: str | None) -> None:
    """Write data/model; add tags and, if requested, checkpoints to the MLflow run."""
    if collapsed:
        progress.note(f"train: {collapsed}")
        run.tag({"collapsed": collapsed})
    _write(kept, description, collapsed)
    if kept.settings.save_checkpoint:
        for name, folder in kept.named().items():
            run.artifact(folder, f"checkpoints/{name}")
    run.tag({"model.md5": lineage.model_md5(OUT), "best.epoch": kept.best[0].epoch})


def _write(kept: keep.Kept, description: Description, collapsed: str | None) -> None:
    """Write data/model. Equal inputs give byte-identical files on every machine."""
    files.make_empty_folder(OUT)
    files.copy(kept.weights, OUT / checkpoint.WEIGHTS)
    files.write_bytes(OUT / "model.json", description.encoded())
    history = [asdict(epoch) for epoch in kept.epochs]
    files.write_table(OUT / "history.csv", pd.DataFrame(history).drop(columns=[*NOT_IN_HISTORY]))
    best = asdict(kept.best[0])
    metrics = {name: _or_none(value) for name, value in best.items() if name.startswith("validation")}
    files.write_json(
        OUT / "metrics.json",
        {"best_epoch": best["epoch"], "epochs": len(history), **metrics, "collapsed": collapsed},
    )


def _or_none(metric: float) -> float | None:
    """Return None for nan, because JSON has no nan; return any other metric unchanged."""
    return None if math.isnan(metric) else metric
