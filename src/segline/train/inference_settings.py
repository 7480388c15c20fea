"""Choose the inference settings of a trained model: each `auto` setting gets a value on the validation split."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import product

from segline import params, progress
from segline.data.prepared import Prepared
from segline.model.inference import Inference, Outputs, Predictor, Probabilities
from segline.model.objects import Heights, Labels, Separation
from segline.train import choose

CHOSEN_ON = 2**24  # number of validation pixels that suffices to choose settings; their outputs are kept in memory


def given(settings: params.Evaluate) -> Inference:
    """Return the inference settings that apply to every model: threshold, if it is a number, views and tile."""
    threshold = None if isinstance(settings.threshold, str) else float(settings.threshold)
    return Inference(threshold, views=settings.views, tile=settings.tile)


def chosen(predictor: Predictor, prepared: Prepared, settings: params.Evaluate, mode: progress.Mode) -> Inference:
    """Return the inference settings for the model. Each `auto` setting gets a value chosen on validation images."""
    plain, kind = predictor.inference, prepared.dataset.labels
    outputs = cache(partial(_validation, predictor, prepared, mode))  # predicts when something must be chosen

    def pixels() -> Iterator[tuple[Probabilities, Labels]]:
        return ((output.probabilities, prepared.classes(name)) for name, output in outputs().items())

    # Without a watershed, objects would grow together across the lines between them.
    if settings.threshold == "auto" and kind == "instances" and settings.watershed_depth != "off":
        plain = replace(plain, threshold=choose.threshold(pixels()))
    if kind != "classes":
        plain = _segmentation(plain, settings, kind, pixels)
    if kind != "instances":
        return plain
    return replace(plain, separation=_separation(predictor, plain, prepared, settings, outputs))


def _segmentation(
    plain: Inference,
    settings: params.Evaluate,
    kind: str,
    pixels: Callable[[], Iterator[tuple[Probabilities, Labels]]],
) -> Inference:
    """Return `plain` with the settings that close gaps in borders; `auto` has an effect for boundaries only."""
    threshold, neck = settings.segment_threshold, settings.segment_neck
    own_neck = None if isinstance(neck, str) else neck
    if threshold == "off" or (threshold == "auto" and kind != "boundaries"):
        return plain
    if not isinstance(threshold, str) and (neck != "auto" or kind != "boundaries"):
        return replace(plain, segment_threshold=threshold, segment_neck=own_neck)
    thresholds = choose.SEGMENT_THRESHOLDS if isinstance(threshold, str) else (threshold,)
    return choose.segmentation(pixels(), plain, thresholds, choose.SEGMENT_NECK if neck == "auto" else own_neck)


def _separation(
    predictor: Predictor,
    plain: Inference,
    prepared: Prepared,
    settings: params.Evaluate,
    outputs: Callable[[], dict[str, Outputs]],
) -> Separation:
    """Return the settings that separate touching objects. Each `auto` setting gets its value from validation images."""
    depth, neck = settings.watershed_depth, settings.watershed_neck
    area, probability = settings.min_area, settings.min_probability
    classes = len(prepared.dataset.classes)
    depths = choose.depths(plain.threshold, classes) if depth == "auto" else (None if depth == "off" else float(depth),)
    cuts = choose.cuts(depths, choose.NECKS if neck == "auto" else (float(neck),))
    areas = choose.MIN_AREAS if area == "auto" else (int(area),)
    probabilities = choose.MIN_PROBABILITIES if probability == "auto" else (float(probability),)
    heights: tuple[Heights, ...] = ("distance", "object_map") if predictor.network.object_map else ("distance",)
    choices = [
        Separation(depth, area, probability, kind, neck)
        for (depth, neck), area, probability, kind in product(cuts, areas, probabilities, heights)
    ]
    if len(choices) == 1:
        return choices[0]
    images = ((output, prepared.classes(name), prepared.instances(name)) for name, output in outputs().items())
    return choose.separation(images, plain, choices)


def _validation(predictor: Predictor, prepared: Prepared, mode: progress.Mode) -> dict[str, Outputs]:
    """Predict all validation images. If they have over `CHOSEN_ON` pixels in total, predict only every nth image."""
    names = prepared.names("validation")
    pixels = sum(prepared.image(name)[..., 0].size for name in names)
    chosen = progress.track(names[:: max(1, -(-pixels // CHOSEN_ON))], "choose", mode)
    return {name: predictor.outputs(prepared.image(name)) for name in chosen}
