"""DVC stage `plan`: choose a value for each setting that may be `auto`, with the reason."""

from collections.abc import Sequence

import numpy as np

from segline import files, params, progress
from segline.data.prepared import Prepared
from segline.model import geometry
from segline.planning import picture, recipe, speed
from segline.planning.fingerprint import Measurement, measure_image, summarise
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
    data, stopwatch = summarise(prepared.dataset.labels, measured), Stopwatch(prepared, fixed)
    if any(name not in fixed for name in recipe.TIMED):
        choices = recipe.complete(data, fixed, minutes, stopwatch.speed)
    else:
        choices = [*recipe.choose(data, fixed), *recipe.limits(0, 0, fixed)]
    values = {choice.setting: choice.value for choice in choices}
    with files.whole_folder(params.PLAN_FILE.parent) as folder:
        reasons = {choice.setting: choice.reason for choice in choices}
        content = params.nested(values) | {"measured": data.sentence(), "reasons": reasons}
        files.write_yaml(folder / params.PLAN_FILE.name, content)
        shown = names[int(np.argmax([image.diameters.size for image in measured]))]
        example = prepared.image(shown), prepared.classes(shown), prepared.instances(shown)
        side = (values | fixed)["train.tile"]
        assert isinstance(side, int)
        files.write_bytes(folder / "plan.png", picture.draw(data, measured, stopwatch.rates, side, example))
    progress.note(f"plan: {data.sentence()}")


def _names(prepared: Prepared) -> list[str]:
    """Return the images to measure: at most `MOST`, evenly spaced through training and validation split."""
    names = sorted(prepared.names("train") + prepared.names("validation"))
    places = np.linspace(0, len(names) - 1, min(MOST, len(names))).round().astype(int)
    return [names[place] for place in places]


class Stopwatch:
    """Times training steps of planned networks. ``rates``: tiles per second, by a description of the network."""

    def __init__(self, prepared: Prepared, fixed: recipe.Fixed) -> None:
        self.rates: dict[str, float] = {}
        self._fixed, self._classes, self._channels = fixed, len(prepared.dataset.classes), prepared.statistics.channels
        self._known: dict[str, speed.Speed] = {}

    def speed(self, choices: Sequence[Choice], width: int) -> speed.Speed:
        """Return the speed of a network with the planned settings and `width`."""
        sections = params.nested({choice.setting: choice.value for choice in choices} | dict(self._fixed))
        model, train = params.Model.model_validate(sections["model"]), params.Train.model_validate(sections["train"])
        model = model.model_copy(update={"width": width})
        geometry.of(**model.network).check(train.tile, "params.yaml: train.tile =")
        name = f"width {width}" if model.encoder == "none" else f"{model.name} with encoder {model.encoder}"
        if model.reduction > 1:
            name += f", reduction {model.reduction}"
        if name not in self._known:
            progress.note(f"plan: timing training steps of the network: {name}")
            where = device.choose(params.read(params.Runtime))
            if "train.amp" in self._fixed:
                device.precision_warning(train.amp, where)  # raises DeviceError if the device does not support it
            precisions = [train.amp] if "train.amp" in self._fixed else speed.precisions(where)
            measured = speed.measure(model, train, self._channels, self._classes, where, precisions=precisions)
            for amp, seconds in measured.seconds.items():
                self.rates[f"{name}, {recipe.in_words(amp)}"] = train.batch_size / seconds
            self._known[name] = measured
        return self._known[name]
