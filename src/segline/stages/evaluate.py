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
from segline.score import card, curves, judge
from segline.score.overlay import gallery, legend, overlay
from segline.track import lineage
from segline.track.runs import Dataset, flat
from segline.track.store import open_store
from segline.train import device

MODEL = Path("data/model")
OUT = Path("data/reports")
# What says whether cells are told apart.
COUNTED_BY = {"boundaries": "v_rand", "instances": "ap_50"}
THRESHOLDS = [step / 20 for step in range(1, 20)]
SHOWN = 9  # test images in the run's gallery


def main() -> None:
    """Write predictions, figures and pictures of the test split to data/reports, and add them to the run of train."""
    settings, runtime = params.read(params.Evaluate), params.read(params.Runtime)
    prepared = Prepared.open()
    predictor = load_with(MODEL, _plain(settings), device.choose(runtime))
    _check_tile(predictor, settings.tile)
    if prepared.dataset.labels in COUNTED_BY:
        predictor.inference = _with_segments(predictor, prepared, settings.segment_threshold)
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


def _with_segments(predictor: Predictor, prepared: Prepared, setting: float | str) -> Inference:
    """The predictor's settings, and how borders are closed.

    auto: the segment threshold with the best V^Rand (boundary labels) or AP (instances) on the validation split, none
    where none is better.
    """
    plain = predictor.inference
    if setting == "off":
        return plain
    if setting != "auto":
        return replace(plain, segment_threshold=float(setting))
    names = prepared.names("validation")
    probabilities = [predictor.probabilities(prepared.image(name)) for name in names]

    def goodness(inference: Inference) -> float:
        scores = [_score(prepared, name, to_labels(p, inference)) for name, p in zip(names, probabilities, strict=True)]
        return judge.total(scores, prepared.dataset.classes)[COUNTED_BY[prepared.dataset.labels]] or 0.0

    choices = [plain, *(replace(plain, segment_threshold=threshold) for threshold in THRESHOLDS)]
    return max(choices, key=goodness)


def _judge(predictor: Predictor, prepared: Prepared, name: str) -> judge.Score:
    """Predict one image, write its labels and its overlay, and score it."""
    raw = prepared.image(name)
    predicted = predictor.labels(raw)
    files.write_png(OUT / "predictions" / f"{name}.png", predicted)
    files.write_png(OUT / "overlays" / f"{name}.png", overlay(raw, predicted, prepared.classes(name), IGNORE))
    return _score(prepared, name, predicted)


def _score(prepared: Prepared, name: str, predicted: npt.NDArray[np.uint8]) -> judge.Score:
    """What the labels allow to be counted, all of it from the label image: whoever has that can check the figures."""
    truth, kind = prepared.classes(name), prepared.dataset.labels
    objects = cells = None
    if kind == "instances":
        objects = (prepared.instances(name), labels.components(predicted))
    if kind == "boundaries":
        cells = (segments((truth > 0) & (truth != IGNORE)), thin(predicted, 0))
    return judge.score(truth, predicted, len(prepared.dataset.classes), IGNORE, objects=objects, segments=cells)


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
