"""DVC stage `plan`: choose a value for each setting that may be `auto`, with the reason."""

from collections.abc import Sequence

import numpy as np

from segline import files, params, progress
from segline.data.prepared import Prepared
from segline.model.geometry import Geometry
from segline.planning import picture, recipe, speed
from segline.planning.fingerprint import Fingerprint, Measurement, measure_image, summarise
from segline.planning.recipe import Choice
from segline.train import device

MOST = 64  # largest number of measured images


def main() -> None:
    """Write data/plan from data/prepared; time training steps if a setting that depends on the speed is `auto`.

    Values in params.yaml take precedence over the plan, and the choices that depend on them follow from them. Images of
    the test split are not measured.
    """
    fixed, minutes = params.read_fixed(recipe.INPUTS), params.read(params.Plan).minutes
    runtime, prepared = params.read(params.Runtime), Prepared.open()
    names = _names(prepared)

    def measure(name: str) -> Measurement:
        truth = prepared.classes(name), prepared.instances(name)
        return measure_image(prepared.image(name), truth, len(prepared.dataset.classes))

    measured = list(progress.each(measure, names, "plan", runtime.progress))
    data, rates = summarise(prepared.dataset.labels, measured), dict[str, float]()
    choices = recipe.choose(data, fixed)
    if any(name not in fixed for name in recipe.TIMED):
        choices += _timed(data, choices, fixed, minutes, rates)
    else:
        choices += recipe.limits(0, 0, fixed)
    values = {choice.setting: choice.value for choice in choices}
    with files.whole_folder(params.PLAN_FILE.parent) as folder:
        reasons = {choice.setting: choice.reason for choice in choices}
        content = params.nested(values) | {"measured": data.sentence(), "reasons": reasons}
        files.write_yaml(folder / params.PLAN_FILE.name, content)
        shown = names[int(np.argmax([image.diameters.size for image in measured]))]
        example = prepared.image(shown), prepared.classes(shown), prepared.instances(shown)
        side = (values | fixed)["train.tile"]
        assert isinstance(side, int)
        files.write_bytes(folder / "plan.png", picture.draw(data, measured, rates, side, example))
    progress.note(f"plan: {data.sentence()}")


def _names(prepared: Prepared) -> list[str]:
    """Return the images to measure: at most `MOST`, evenly spaced through training and validation split."""
    names = sorted(prepared.names("train") + prepared.names("validation"))
    places = np.linspace(0, len(names) - 1, min(MOST, len(names))).round().astype(int)
    return [names[place] for place in places]


def _timed(
    data: Fingerprint, choices: Sequence[Choice], fixed: recipe.Fixed, minutes: float, rates: dict[str, float]
) -> list[Choice]:
    """Choose the settings that depend on the speed of this machine; add the measured speeds to `rates`, tiles/s."""
    where = device.choose(params.read(params.Runtime))
    sections = params.nested({choice.setting: choice.value for choice in choices} | dict(fixed))
    model, train = params.Model.model_validate(sections["model"]), params.Train.model_validate(sections["train"])
    geometry = Geometry(model.depth, model.padding, model.upsampling, model.reduction)
    geometry.check(train.tile, "params.yaml: train.tile =")
    precisions = speed.precisions(where)
    if "train.amp" in fixed:
        device.precision_warning(train.amp, where)  # raises DeviceError if the device does not support it
        precisions = [train.amp]

    def speed_of(width: int) -> speed.Speed:
        progress.note(f"plan: timing training steps of a network of width {width}")
        network = model.model_copy(update={"width": width})
        measured = speed.measure(network, train, data.channels, data.classes, where, precisions=precisions)
        rates.update(
            {
                f"width {width}, {recipe.in_words(amp)}": train.batch_size / step
                for amp, step in measured.seconds.items()
            }
        )
        return measured

    return recipe.timed(speed_of, minutes, train.batch_size, fixed)
