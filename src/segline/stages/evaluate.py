"""DVC stage `evaluate`: predict the test split and compare the predictions with the ground truth."""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, Field

from segline import files, params, progress
from segline.data import imagefiles, truth, writers
from segline.data.dataset import IGNORE
from segline.data.prepared import PREPARED, SPLITS, Prepared
from segline.model import tiling
from segline.model.geometry import SizeError
from segline.model.images import encode_png
from segline.model.inference import Predictor, interpret, load_with
from segline.model.objects import encode
from segline.score import card, judge
from segline.score.overlay import gallery, legend, overlay
from segline.text import MESSAGE, cut
from segline.track import lineage
from segline.track.recording import LoggedDataset, metrics_of_test
from segline.track.store import open_store
from segline.train import charts, device, inference_settings

MODEL = Path("data/model")
OUT = Path("data/reports")
AGAIN = "remove the file, then run `dvc repro` to write it again"
SHOWN = 9  # number of test images in the gallery of the MLflow run


class Metrics(BaseModel):
    """The fields that the stage `evaluate` reads from metrics.json."""

    best_epoch: Annotated[int, Field(ge=1)]


def main() -> None:
    """Write predictions, metrics and pictures of the test split to data/reports; add results to the MLflow run."""
    settings, runtime = params.read(params.Evaluate), params.read(params.Runtime)
    prepared = Prepared.open()
    predictor = load_with(MODEL, inference_settings.given(settings), device.choose(runtime))
    _check_tile(predictor, settings.tile)
    predictor.inference = inference_settings.chosen(predictor, prepared, settings, runtime.progress)
    names, classes = prepared.names("test"), prepared.dataset.classes
    for folder in ("predictions", "instances", "overlays"):
        files.make_empty_folder(OUT / folder)
    scores = [_judge(predictor, prepared, name) for name in progress.track(names, "evaluate", runtime.progress)]
    result = judge.total(scores, classes)
    rows = [{"image": name} | judge.row(score, classes) for name, score in zip(names, scores, strict=True)]
    files.write_bytes(OUT / "inference.json", predictor.inference.encoded())
    files.write_json(OUT / "test.json", result)
    files.write_table(OUT / "per_image.csv", pd.DataFrame(rows))
    best_epoch = files.read_record(MODEL / "metrics.json", Metrics, AGAIN).best_epoch
    charts.draw_course(_history(MODEL / "history.csv"), best_epoch, OUT / "curves.png")
    files.write_bytes(OUT / "model_card.md", _card(predictor, prepared, result, best_epoch).encode())
    _log(prepared, result, names)


def _history(file: Path) -> pd.DataFrame:
    """Read the metrics of each epoch from `file`."""
    try:
        history: pd.DataFrame = files.read_table(file).apply(pd.to_numeric)
    except ValueError as error:
        if isinstance(error, files.FileError):
            raise
        raise files.FileError(f"{file}: {cut(str(error), MESSAGE)}; {AGAIN}") from error
    return history


def _check_tile(predictor: Predictor, tile: int) -> None:
    """Refuse a tile size that the network cannot use; print a note if the tile size has no effect."""
    geometry = predictor.network.geometry
    if not tile:
        return
    geometry.check(tile, "params.yaml: evaluate.tile =")
    if tile < tiling.smallest(geometry):
        raise SizeError(
            f"params.yaml: evaluate.tile = {tile}: the tile is too small for the context that the network needs; "
            f"set evaluate.tile to {tiling.smallest(geometry)} or more"
        )
    if predictor.network.whole_image_norm:
        progress.note(
            f"evaluate.tile = {tile} has no effect, because instance norm and group norm need the whole image at once"
        )


def _judge(predictor: Predictor, prepared: Prepared, name: str) -> judge.Score:
    """Predict one image, write its labels, instances and overlay, and score the prediction."""
    raw = prepared.image(name)
    outputs = predictor.outputs(raw)
    labels, objects = interpret(outputs, predictor.inference)
    writers.write_encoded(OUT / "predictions" / name, encode_png(labels))
    writers.write_encoded(OUT / "instances" / name, encode(objects))
    outlined = objects if prepared.dataset.labels == "instances" else None
    picture = overlay(raw, labels, prepared.classes(name), IGNORE, objects=outlined)
    imagefiles.write_png(OUT / "overlays" / f"{name}.png", picture)
    return truth.score(prepared, name, labels, objects, 1 - outputs.probabilities[0])


def _card(predictor: Predictor, prepared: Prepared, result: dict[str, Any], best_epoch: int) -> str:
    tuned = params.read_tuned()
    return card.render(
        dataset=prepared.dataset.model_dump(),
        splits={split: len(prepared.names(split)) for split in SPLITS},
        result=result,
        statistics=vars(prepared.statistics),
        inference=vars(predictor.inference),
        settings=params.flat({"model": tuned.model.model_dump(), "train": tuned.train.model_dump()}),
        best_epoch=best_epoch,
    )


def _log(prepared: Prepared, result: dict[str, Any], names: list[str]) -> None:
    """Add the test metrics, a picture and the reports to the MLflow run that trained the model."""
    run = open_store().train_run(MODEL, params.TUNED_FILE)
    run.datasets([LoggedDataset("test", prepared.dataset.name, lineage.digest(PREPARED), str(PREPARED))])
    run.log(0, metrics_of_test(result))
    panels = [(name, imagefiles.read_image(OUT / "overlays" / f"{name}.png")) for name in names[:SHOWN]]
    run.picture(gallery(panels, legend=legend(prepared.dataset.classes)), "test")
    for file in ("test.json", "per_image.csv", "inference.json", "curves.png", "model_card.md"):
        run.artifact(OUT / file, "reports")
