"""`segline plan`: choose settings for a dataset and this machine, give reasons, and on request write params.yaml."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline import params, progress
from segline.commands import preset
from segline.data import splits
from segline.data.dataset import Dataset
from segline.planning import recipe, speed
from segline.planning.fingerprint import Fingerprint, Measurement, measure_image, summarise
from segline.planning.recipe import Choice
from segline.train import device

MOST = 64  # number of images that are measured


def main(minutes: float, write: bool, mode: progress.Mode, console: Console, say: Callable[[str], None]) -> None:
    """Show the plan for the dataset in params.yaml beside the present settings; if `write`, enter it there.

    Images of the test split are not looked at.

    Parameters
    ----------
    minutes : time for search and training together, on this machine.
    say : function that prints text.

    Raises
    ------
    DatasetError, SplitError, ParamsError
        There is no dataset, it cannot be split, or params.yaml is wrong.
    """
    settings = params.load(params.Params, params.PARAMS_FILE)
    dataset = Dataset.open(Path(settings.data.source))
    measured = measure(dataset, settings.prepare, mode)
    choices = recipe.choose(measured)
    planned = with_choices(settings, choices)
    where = device.choose(settings.runtime)
    progress.note("timing training steps on this machine")
    timed = speed.measure(planned.model, planned.train, measured.channels, measured.classes, where)
    choices += recipe.length(timed, minutes, planned.train, settings.tune)
    console.print(table(settings, choices))
    if not write:
        say("segline plan --write enters these settings in params.yaml")
        return
    changes = preset.change(sections(choices), "segline plan")
    say(f"params.yaml: {len(changes)} settings changed" if changes else "params.yaml already has these settings")


def measure(dataset: Dataset, prepare: params.Prepare, mode: progress.Mode) -> Fingerprint:
    """Measure images of the training and validation splits, evenly chosen, at most `MOST`."""
    split = splits.assign(dataset.groups, **prepare.model_dump())
    stems = [stem for stem in dataset.stems if split[stem] != "test"]
    places = np.linspace(0, len(stems) - 1, min(MOST, len(stems))).round().astype(int)
    chosen = [stems[place] for place in places]

    def see(stem: str) -> Measurement:
        return measure_image(dataset.image(stem), dataset.truth(stem), len(dataset.spec.classes))

    measured = list(progress.each(see, chosen, "plan", mode, dataset.memory))
    return summarise(dataset.spec.labels, len(stems), measured)


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
    """Return a table of the planned settings: name, present value, planned value, reason."""
    present = params.flat(settings.model_dump(mode="json"))
    content = Table("setting", "now", "plan", "reason", title_justify="left")
    for choice in choices:
        now = present[choice.setting]
        content.add_row(
            Text(choice.setting),
            Text(_text(now)),
            Text(_text(choice.value), style="" if choice.value == now else "bold"),
            Text(choice.reason),
        )
    return content


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
