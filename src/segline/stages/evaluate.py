"""Stage evaluate: predict the test split and compare it with the truth."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from segline import params, progress
from segline.data import files, labels
from segline.data.dataset import IGNORE
from segline.data.prepared import PREPARED, SPLITS, Prepared
from segline.model import tiles
from segline.model.geometry import SizeError
from segline.model.predict import Inference, Predictor, load_with, to_labels
from segline.model.segments import segments, thin
from segline.score import boundaries, card, curves, judge
from segline.score.overlay import gallery, legend, overlay
from segline.track import lineage
from segline.track.runs import Dataset, flat
from segline.track.store import open_store
from segline.train import device

MODEL = Path("data/model")
OUT = Path("data/reports")
THRESHOLDS = [step / 20 for step in range(1, 20)]
SHOWN = 9  # test images in the run's gallery


def main() -> None:
    """Write predictions, figures and pictures of the test split to data/reports, and add them to the run of train."""
    settings, runtime = params.read(params.Evaluate), params.read(params.Runtime)
    prepared = Prepared.open()
    predictor = load_with(MODEL, _plain(settings), device.choose(runtime))
    _check_tile(predictor, settings.tile)
    if prepared.dataset.labels == "boundaries":
        predictor.inference = _with_segments(predictor, prepared, settings)
    names, classes = prepared.names("test"), prepared.dataset.classes
    for folder in ("predictions", "overlays"):
        files.make_folder(OUT / folder)
    scores = [_judge(predictor, prepared, name) for name in progress.track(names, "evaluate", runtime.progress)]
    result = judge.total(scores, classes)
    rows = [{"image": name} | judge.row(score, classes) for name, score in zip(names, scores, strict=True)]
    predictor.inference.write(OUT / "inference.json")
    files.write_json(OUT / "test.json", result)
    files.write_table(OUT / "per_image.csv", pd.DataFrame(rows))
    best_epoch = files.read_json(MODEL / "metrics.json")["best_epoch"]
    curves.draw(files.read_table(MODEL / "history.csv").apply(pd.to_numeric), best_epoch, OUT / "curves.png")
    files.write_bytes(OUT / "model_card.md", _card(predictor, prepared, result, best_epoch).encode())
    _log(prepared, result, names)


def _check_tile(predictor: Predictor, tile: int) -> None:
    """Refuse, by its full name, a tile that the network cannot take; say so where it has no use."""
    geometry = predictor.network.geometry
    if not tile:
        return
    geometry.check(tile, "params.yaml: evaluate.tile =")
    if tile < tiles.smallest(geometry):
        raise SizeError(
            f"params.yaml: evaluate.tile = {tile}: all margin; set it to {tiles.smallest(geometry)} or more"
        )
    if predictor.network.whole_image_norm:
        progress.note(f"evaluate.tile = {tile} is not used: instance and group norm need the whole image at once")


def _plain(settings: params.Evaluate) -> Inference:
    """How labels come from probabilities, but for the closing of borders."""
    threshold = None if settings.threshold == "argmax" else float(settings.threshold)
    return Inference(threshold, views=settings.views, tile=settings.tile)


def _with_segments(predictor: Predictor, prepared: Prepared, settings: params.Evaluate) -> Inference:
    """The same, and borders closed: auto is the segment threshold with the best V^Rand on the validation split."""
    if settings.segment_threshold != "auto":
        return replace(predictor.inference, segment_threshold=float(settings.segment_threshold))
    names = prepared.names("validation")
    probabilities = [predictor.probabilities(prepared.image(name)) for name in names]
    truth = [_true_segments(prepared, name) for name in names]
    at = {}
    for threshold in THRESHOLDS:
        inference = replace(predictor.inference, segment_threshold=threshold)
        at[threshold], _ = boundaries.agreement(truth, [thin(to_labels(p, inference), 0) for p in probabilities])
    return replace(predictor.inference, segment_threshold=boundaries.best_threshold(at))


def _true_segments(prepared: Prepared, name: str) -> npt.NDArray[np.int32]:
    classes = prepared.classes(name)
    return segments((classes > 0) & (classes != IGNORE))


def _judge(predictor: Predictor, prepared: Prepared, name: str) -> judge.Score:
    """Predict one image, write its labels and its overlay, and score it."""
    raw, truth, kind = prepared.image(name), prepared.classes(name), prepared.dataset.labels
    predicted = predictor.labels(raw)
    files.write_png(OUT / "predictions" / f"{name}.png", predicted)
    files.write_png(OUT / "overlays" / f"{name}.png", overlay(raw, predicted, truth, IGNORE))
    return judge.score(
        truth,
        predicted,
        len(prepared.dataset.classes),
        IGNORE,
        objects=(prepared.instances(name), labels.components(predicted)) if kind == "instances" else None,
        # Thinned from the label image alone: whoever has the picture can check the figure.
        segments=(_true_segments(prepared, name), thin(predicted, 0)) if kind == "boundaries" else None,
    )


def _card(predictor: Predictor, prepared: Prepared, result: dict[str, Any], best_epoch: int) -> str:
    tuned = params.read_tuned()
    return card.render(
        dataset=prepared.dataset.model_dump(),
        splits={split: len(prepared.names(split)) for split in SPLITS},
        result=result,
        statistics=vars(prepared.statistics),
        inference=vars(predictor.inference),
        settings=flat({"model": tuned.model.model_dump(), "train": tuned.train.model_dump()}),
        best_epoch=best_epoch,
    )


def _log(prepared: Prepared, result: dict[str, Any], names: list[str]) -> None:
    """Append figures and pictures to the run that trained the model."""
    run = open_store().train_run(MODEL, params.TUNED_FILE)
    run.datasets([Dataset("test", prepared.dataset.name, lineage.digest(PREPARED), str(PREPARED))])
    figures = {name: value for name, value in flat(result).items() if isinstance(value, int | float)}
    # A class may have any name, a metric of MLflow may not.
    run.log(0, {"test_" + re.sub(r"[^\w\-]", "_", name): float(value) for name, value in figures.items()})
    panels = [(name, files.read_image(OUT / "overlays" / f"{name}.png")) for name in names[:SHOWN]]
    run.picture(gallery(panels, legend=legend(prepared.dataset.classes)), "test")
    for file in ("test.json", "per_image.csv", "inference.json", "curves.png", "model_card.md"):
        run.artifact(OUT / file, "reports")
