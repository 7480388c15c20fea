"""`segline plan`: choose settings for a dataset and this machine, give reasons, and on request write params.yaml."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline import params, progress
from segline.commands import preset
from segline.data import splits
from segline.data.checks import per_dataset
from segline.data.dataset import Dataset
from segline.planning import recipe, speed
from segline.planning.fingerprint import Fingerprint, Measurement, measure_image, summarise
from segline.planning.recipe import Choice
from segline.train import device
from segline.train.space import SearchPlan

MOST = 64  # largest number of measured images


def main(minutes: float, write: bool, console: Console, say: Callable[[str], None]) -> None:
    """Show the plan for the dataset in params.yaml beside the present settings; if `write`, write it to params.yaml.

    Images of the test split are not measured.

    Parameters
    ----------
    minutes : time for search and training together, on this machine.
    say : function that prints text.

    Raises
    ------
    DatasetError, UnfitError, SplitError, ParamsError, DeviceError
        The dataset is missing, has errors or cannot be split; or params.yaml is wrong.
    SpaceError, SizeError
        The search space in params.yaml does not fit the planned settings.
    """
    settings = params.load(params.Params, params.PARAMS_FILE)
    where = device.choose(settings.runtime)
    data = measure(Path(settings.data.source), settings.prepare, settings.runtime.progress)
    choices = recipe.choose(data)
    planned = with_choices(settings, choices)

    def speed_of(width: int) -> speed.Speed:
        progress.note(f"timing training steps of a network of width {width}")
        model = planned.model.model_copy(update={"width": width})
        return speed.measure(model, planned.train, data.channels, data.classes, where)

    chosen, timed = recipe.width(speed_of, minutes, planned.train.batch_size)
    choices += [chosen, *recipe.length(timed, minutes, planned.train, settings.tune)]
    planned = with_choices(settings, choices)
    if planned.tune.trials:
        SearchPlan(params.Tuned(model=planned.model, augment=planned.augment, train=planned.train), planned.tune)
    say(described(data))
    console.print(table(settings, choices))
    if not write:
        say("segline plan --write enters these settings in params.yaml")
        return
    changes = preset.change(sections(choices), "segline plan")
    say(f"params.yaml: {len(changes)} settings changed" if changes else "params.yaml already has these settings")


def measure(folder: Path, prepare: params.Prepare, mode: progress.Mode) -> Fingerprint:
    """Check the dataset in `folder`, and measure at most `MOST` images of its training and validation splits."""
    dataset = Dataset.open(folder)
    checked = per_dataset.inspect(
        dataset, lambda look, stems: progress.each(look, stems, "check", mode, dataset.memory)
    )
    per_dataset.refuse_errors(per_dataset.judge(dataset, checked))
    split = splits.assign(dataset.groups, **prepare.model_dump())
    stems = [stem for stem in dataset.stems if split[stem] != "test"]
    places = np.linspace(0, len(stems) - 1, min(MOST, len(stems))).round().astype(int)

    def measure_one(stem: str) -> Measurement:
        return measure_image(dataset.image(stem), dataset.truth(stem), len(dataset.spec.classes))

    measured = progress.each(measure_one, [stems[place] for place in places], "measure", mode, dataset.memory)
    return summarise(dataset.spec.labels, list(measured))


def described(data: Fingerprint) -> str:
    """Return a one-line sentence that describes the measured images."""
    objects = "without objects"
    if data.diameters:
        low, middle, high = data.diameters
        objects = f"{data.objects:.0f} objects an image, {low:.0f} to {high:.0f} px wide (median {middle:.0f})"
    channels = f"{data.channels} channel{'s' if data.channels > 1 else ''}"
    return f"{data.images} images measured: {data.dtype}, {channels}, {data.side} px; {data.kind}; {objects}"


def sections(choices: Sequence[Choice]) -> dict[str, Any]:
    """Return the planned settings by section, as in params.yaml."""
    content: dict[str, Any] = {}
    for choice in choices:
        *path, last = choice.setting.split(".")
        inner = content
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = choice.value
    return content


def with_choices(settings: params.Params, choices: Sequence[Choice]) -> params.Params:
    """Return `settings` with the planned values."""
    return params.check(params.Params, _merged(settings.model_dump(mode="json"), sections(choices)), "segline plan")


def _merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return content | {
        key: _merged(content[key], value) if isinstance(value, dict) else value for key, value in changes.items()
    }


def table(settings: params.Params, choices: Sequence[Choice]) -> Table:
    """Return a table of the planned settings by section: name, present and planned value, reason."""
    present = params.flat(settings.model_dump(mode="json"))
    content = Table(box=SIMPLE_HEAD, padding=(0, 1))
    content.add_column("setting", no_wrap=True)
    content.add_column("value", no_wrap=True)
    content.add_column("reason")
    for section in params.Params.model_fields:
        mine = [choice for choice in choices if choice.setting.startswith(f"{section}.")]
        if mine:
            content.add_section()
            content.add_row(Text(section, style="bold"))
        for choice in mine:
            now, value = present[choice.setting], _text(choice.value)
            changed = Text(f"{_text(now)} -> {value}", style="bold")
            name = choice.setting.removeprefix(f"{section}.")
            content.add_row(Text(f"  {name}"), Text(value) if now == choice.value else changed, Text(choice.reason))
    return content


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
