"""Stage evaluate: predict the test split and compare it with the truth."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from segline import params, progress
from segline.data import files, labels
from segline.data.dataset import IGNORE
from segline.data.prepared import SPLITS, Prepared
from segline.model.predict import Inference, Predictor, load_with, to_labels
from segline.score import boundaries, card, curves, judge
from segline.score.overlay import gallery, legend, overlay
from segline.track.runs import flat
from segline.track.store import open_store
from segline.train import device

MODEL = Path("data/model")
OUT = Path("data/reports")
SHOWN = 9  # test images in the run's gallery


def main() -> None:
    """Write predictions, figures and pictures of the test split to data/reports, and add them to the run of train."""
    settings, runtime = params.read(params.Evaluate), params.read(params.Runtime)
    prepared = Prepared.open()
    predictor = load_with(MODEL, Inference(None, settings.views, settings.tile), device.choose(runtime))
    threshold, segment_threshold = _thresholds(predictor, prepared, settings.threshold)
    predictor.inference = Inference(threshold, settings.views, settings.tile)
    names, classes = prepared.names("test"), prepared.dataset.classes
    for folder in ("predictions", "overlays"):
        files.make_folder(OUT / folder)
    shown = progress.track(names, "evaluate", runtime.progress)
    scores = [_judge(predictor, prepared, name, segment_threshold) for name in shown]
    result = judge.total(scores, classes) | {"threshold": threshold, "views": settings.views}
    if prepared.dataset.labels == "boundaries":
        result["segment_threshold"] = segment_threshold
    rows = [{"image": name} | judge.row(score, classes) for name, score in zip(names, scores, strict=True)]
    predictor.inference.write(OUT / "inference.json")
    files.write_json(OUT / "test.json", result)
    files.write_table(OUT / "per_image.csv", pd.DataFrame(rows))
    best_epoch = files.read_json(MODEL / "metrics.json")["best_epoch"]
    curves.draw(files.read_table(MODEL / "history.csv").astype(float), best_epoch, OUT / "curves.png")
    files.write_bytes(OUT / "model_card.md", _card(predictor, prepared, result, best_epoch).encode())
    _log(prepared, result, names)


def _thresholds(predictor: Predictor, prepared: Prepared, setting: str | float) -> tuple[float | None, float]:
    """The thresholds for foreground (None: the likeliest class) and, where labels are boundaries, for segments.

    auto, where labels are boundaries: on the validation split, the one with the least pixel error, and the one with the
    best V^Rand.
    """
    if setting not in ("auto", "argmax"):
        return float(setting), float(setting)
    if setting == "argmax" or prepared.dataset.labels != "boundaries":
        return None, 0.5
    names = prepared.names("validation")
    scored = boundaries.sweep(
        [1 - predictor.probabilities(prepared.image(name))[0] for name in names],
        [boundaries.segments(prepared.classes(name) == 1) for name in names],
        boundaries.THRESHOLDS,
        [prepared.classes(name) == IGNORE for name in names],
    )
    return boundaries.best_thresholds(scored)


def _judge(predictor: Predictor, prepared: Prepared, name: str, segment_threshold: float) -> judge.Score:
    """Predict one image, write its labels and its overlay, and score it."""
    raw, truth, kind = prepared.image(name), prepared.classes(name), prepared.dataset.labels
    probabilities = predictor.probabilities(raw)
    predicted = to_labels(probabilities, predictor.inference.threshold)
    files.write_png(OUT / "predictions" / f"{name}.png", predicted)
    files.write_png(OUT / "overlays" / f"{name}.png", overlay(raw, predicted, truth, IGNORE))
    return judge.score(
        truth,
        predicted,
        len(prepared.dataset.classes),
        IGNORE,
        objects=(prepared.instances(name), labels.components(predicted)) if kind == "instances" else None,
        borders=(1 - probabilities[0], segment_threshold) if kind == "boundaries" else None,
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
    figures = {name: value for name, value in flat(result).items() if isinstance(value, int | float)}
    # A class may have any name, a metric of MLflow may not.
    run.log(0, {"test_" + re.sub(r"[^\w\-]", "_", name): float(value) for name, value in figures.items()})
    panels = [(name, files.read_image(OUT / "overlays" / f"{name}.png")) for name in names[:SHOWN]]
    run.picture(gallery(panels, legend=legend(prepared.dataset.classes)), "test")
    for file in ("test.json", "per_image.csv", "inference.json", "curves.png", "model_card.md"):
        run.artifact(OUT / file, "reports")
