"""`segline compare-nets`: train several networks for equal times on the prepared dataset, and compare them.

Each network is planned and trained by the stages of segline in a scratch project, and judged on the validation split.
"""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline import files, params
from segline.data import truth
from segline.data.prepared import PREPARED, Prepared
from segline.model.inference import interpret, load_with
from segline.score import bootstrap
from segline.score.bootstrap import Interval, Metric
from segline.score.judge import Score
from segline.track.store import open_store
from segline.train import device, inference_settings, space
from segline.train.pretrained import FOLDER

if TYPE_CHECKING:
    import pandas as pd

NETS = ("unet", "unet:resnet18", "unet:resnet34", "unet:vgg11", "fcn8s:resnet34")
STAGES = ("plan", "weights", "tune", "train")
DECIDED = ("padding", "reduction", "norm", "depth", "width", "upsampling")  # `auto` for a network with an encoder
LENGTH = ("epochs", "tiles_per_epoch", "tile", "minutes")  # `auto`, so that every network trains for the same time
SIDE = 256  # side of the image for which operations are counted, px
MAPPED = ("dvc.yaml", "segline.yaml")  # files of the project that the stages look for


class NetsError(ValueError):
    """The networks cannot be compared; the message says what to change."""


@dataclass(frozen=True)
class Net:
    """A network of the comparison."""

    name: str
    encoder: str

    @classmethod
    def of(cls, word: str) -> "Net":
        """Return the network that `word` names: a value of model.name, or two values NAME:ENCODER."""
        name, _, encoder = word.partition(":")
        net = cls(name, encoder or "none")
        try:
            params.check(params.Params, {"model": vars(net)}, f"network {word}")
        except params.ParamsError as error:
            raise NetsError(f"{error}; write a network as unet, unet:resnet34 or fcn8s:vgg16") from None
        return net

    @property
    def word(self) -> str:
        """Name of the network in tables and on the command line."""
        return self.name if self.encoder == "none" else f"{self.name}:{self.encoder}"


@dataclass(frozen=True)
class Trained:
    """A trained network, its scores on the validation images, and what it costs, by column of the table."""

    net: Net
    scores: list[Score]
    costs: dict[str, float]


def main(
    words: Sequence[str], *, minutes: float, seed: int, out: Path, console: Console, say: Callable[[str], None]
) -> None:
    """Train the networks `words` for `minutes` each; write a table and a plot to OUT/nets, and record runs in MLflow.

    Raises
    ------
    NetsError
        A network is unknown or is named twice, or its training fails.
    """
    nets = [Net.of(word) for word in words]
    if len(set(nets)) < len(nets):
        raise NetsError("a network is named twice; name each network once")
    if not PREPARED.is_dir():
        raise NetsError(f"{PREPARED} is missing; run `dvc repro prepare` first")
    prepared, gate, store = Prepared.open(), params.read(params.Gate), open_store()
    settings = {"minutes": minutes, "seed": seed, "networks": " ".join(words)}
    with store.start_run("compare-nets", settings, {"data": prepared.dataset.name}) as parent:
        trained = []
        for number, net in enumerate(nets, 1):
            say(f"compare-nets: {net.word} ({number} of {len(nets)}), {minutes:g} minutes")
            with TemporaryDirectory(prefix="segline-nets-") as scratch:
                result = _train(net, Path(scratch), minutes, seed, prepared)
            trained.append(result)
            metric = _metric(gate, trained[0].scores)
            with store.start_run(net.word, vars(net), parent=parent.id) as run:
                run.log(0, result.costs | {metric: bootstrap.value(result.scores, metric)})
        table, results = tabulate(trained, metric, gate), out / "nets"
        with files.whole_folder(results) as folder:
            files.write_table(folder / "nets.csv", table)
            files.write_bytes(folder / "nets.png", draw(table, metric))
        parent.artifact(results, "nets")
    images = len(prepared.names("validation"))
    console.print(shown(table, f"{metric} on {images} validation images, {gate.confidence:.0%} intervals"))
    say(f"the folder {results} contains this table (nets.csv) and a plot (nets.png)")


def _metric(gate: params.Gate, scores: list[Score]) -> Metric:
    """Return the metric to compare: that of the gate, if the labels have it."""
    return gate.metric if bootstrap.known(scores, gate.metric) else "mean_iou"


def _train(net: Net, scratch: Path, minutes: float, seed: int, prepared: Prepared) -> Trained:
    """Train `net` in the new project `scratch`, and judge it there on the validation split."""
    _lay_out(net, scratch, minutes, seed)
    used = {stage: _run(stage, net, scratch) for stage in STAGES}
    content = files.read_yaml(scratch / params.PARAMS_FILE)
    tuned = params.read_tuned(scratch / params.TUNED_FILE)
    inference = params.check(params.Evaluate, _evaluate(content, scratch), "params.yaml: evaluate")
    runtime = params.read(params.Runtime)
    predictor = load_with(scratch / "data/model", inference_settings.given(inference), device.choose(runtime))
    predictor.inference = inference_settings.chosen(predictor, prepared, inference, runtime.progress)
    scores, seconds = [], []
    for name in prepared.names("validation"):
        began = perf_counter()
        outputs = predictor.outputs(prepared.image(name))
        labels, objects = interpret(outputs, predictor.inference)
        seconds.append(perf_counter() - began)
        scores.append(truth.score(prepared, name, labels, objects, 1 - outputs.probabilities[0]))
    history = files.read_json(scratch / "data/model/metrics.json")
    channels, classes = prepared.statistics.channels, len(prepared.dataset.classes)
    costs = {
        "parameters": sum(parameter.numel() for parameter in predictor.network.parameters()),
        "gflop": space.operations(tuned.model, predictor.network.geometry.at_least(SIDE), channels, classes) / 1e9,
        "tiles": history["epochs"] * tuned.train.tiles_per_epoch,
        "cpu_minutes": (used["tune"].cpu_seconds + used["train"].cpu_seconds) / 60,
        "seconds_per_image": sorted(seconds)[len(seconds) // 2],
        "training_mb": used["train"].memory / 1e6,
    }
    return Trained(net, scores, {name: float(value) for name, value in costs.items()})


def _lay_out(net: Net, scratch: Path, minutes: float, seed: int) -> None:
    """Write a project for one training into `scratch`; it uses the prepared data of this project."""
    content = files.read_yaml(params.PARAMS_FILE)
    changes: dict[str, Any] = {f"model.{name}": value for name, value in vars(net).items()}
    changes |= {"model.encoder_weights": "", "plan.minutes": minutes, "tune.trials": 0, "train.seed": seed}
    changes |= {f"train.{name}": params.AUTO for name in LENGTH}
    if net.encoder != "none":
        changes |= {f"model.{name}": params.AUTO for name in DECIDED}
    files.write_yaml(scratch / params.PARAMS_FILE, params.merged(content, params.nested(changes)))
    (scratch / "data").mkdir()
    (scratch / PREPARED).symlink_to(PREPARED.resolve())
    (scratch / FOLDER).mkdir()
    for name in MAPPED:
        if Path(name).is_file():
            shutil.copy(name, scratch)


def _evaluate(content: Any, scratch: Path) -> dict[str, Any]:
    """Return the section `evaluate` with the values of the plan."""
    plan = files.read_yaml(scratch / params.PLAN_FILE)
    left_open = [name for name in params.automatic(content) if name.startswith("evaluate.")]
    planned = params.nested({name: params.value_at(plan, name) for name in left_open})
    section: dict[str, Any] = params.merged(content, planned)["evaluate"]
    return section


@dataclass(frozen=True)
class Used:
    """What a process used: CPU time, s, and the largest memory, bytes."""

    cpu_seconds: float
    memory: float


def _run(stage: str, net: Net, scratch: Path) -> Used:
    """Run a stage in `scratch`; its progress appears in the terminal."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))}
    paths = [str(Path(files.__file__).parents[1]), *filter(None, [own.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "segline", stage], cwd=scratch, env=own | {"PYTHONPATH": os.pathsep.join(paths)}
    )
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        with suppress(ProcessLookupError):
            process.terminate()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise NetsError(f"{net.word}: stage {stage} failed with exit code {process.returncode}; see its message above")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes
    return Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def tabulate(trained: Sequence[Trained], metric: Metric, gate: params.Gate) -> "pd.DataFrame":
    """Return a row for each network: the metric with its interval, the gain over the first network, and what it costs.

    ``low`` and ``high`` are the ends of the confidence interval over the images; ``gain`` is positive if the network is
    better than the first one.
    """
    import pandas as pd

    rows = []
    for entrant in trained:
        paired = bootstrap.compare(
            trained[0].scores,
            entrant.scores,
            metric,
            resamples=gate.resamples,
            confidence=gate.confidence,
            seed=gate.seed,
        )
        ends = {"": paired.second, "gain_": paired.gain}
        intervals = {f"{start}{name}": value for start, ends_of in ends.items() for name, value in _named(ends_of)}
        rows.append({"network": entrant.net.word, **intervals, **entrant.costs})
    return pd.DataFrame(rows).rename(columns={"value": metric, "gain_value": "gain"})


def _named(interval: Interval) -> list[tuple[str, float]]:
    return list(interval._asdict().items())


def shown(table: "pd.DataFrame", title: str) -> Table:
    """Return the table for the terminal; MB is the memory of the training."""
    metric = str(table.columns[1])
    printed = Table(title=Text(title, style="table.title"), title_justify="left")
    for heading in ("network", metric):
        printed.add_column(heading, no_wrap=True)
    for heading in ("M params", "GFLOP", "s/image", "MB"):
        printed.add_column(heading, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        printed.add_row(
            str(row["network"]),
            f"{row[metric]:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            f"{row['parameters'] / 1e6:.1f}",
            f"{row['gflop']:.1f}",
            f"{row['seconds_per_image']:.2f}",
            f"{row['training_mb']:.0f}",
        )
    return printed


def draw(table: "pd.DataFrame", metric: str) -> bytes:
    """Return a plot as PNG: the metric with its interval against the time to predict an image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for row in table.to_dict("records"):
        ends = [[max(0.0, row[metric] - row["low"])], [max(0.0, row["high"] - row[metric])]]
        axes.errorbar(row["seconds_per_image"], row[metric], yerr=ends, fmt="o", capsize=4, label=row["network"])
    axes.set(xlabel="time to predict an image, s", ylabel=f"{metric} on validation", xscale="log")
    for formatted in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatted("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    return stream.getvalue()
