"""Ways to train, each compared with the plan's at equal CPU time, on validation images. Nobody looks at a test split.

Run in the checkout: PYTHONPATH=src python benchmarks/bench_training.py DATA --work FOLDER [--jobs N] [--table]

DATA holds the datasets of bench_datasets.py as they came. A cell is one training of a dataset, an arm and a seed, in a
process with one thread. Before it trains, it times eight steps; the number of steps then fills the time. The arms are
listed below: changed settings, or a changed loss, which segline itself does not have. A quarter of the images that are
not test images is for validation. Threshold and separation of objects are chosen on these images, and the metrics are
of the same images, for all arms alike. Started again, the benchmark goes on with the cells that are missing.
docs/ablation.md explains.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import baselines
from dataset_cells import SETS, Cell, Set
from harness import (
    ROOT,
    Line,
    ProcessError,
    Processes,
    add_line,
    code_md5,
    lay_out,
    machine,
    mean,
    read_lines,
    run_all,
    shown_as,
)
from segline import files, params
from segline.data import truth
from segline.data.dataset import IGNORE
from segline.data.prepared import Prepared
from segline.data.tile_sampler import training_loader
from segline.model.inference import Inference, Predictor, interpret
from segline.params import merged, nested
from segline.train import inference_settings, loop, setup
from segline.train.loss import LossSums

SCRATCH = Path(tempfile.gettempdir()) / "segline-training"
SEEDS = (0, 1, 2)
EPOCHS = 20  # into which the steps are divided, as the tiles of a training are numbered by epoch
TIMED, BEFORE = 8, 3  # steps that are timed, and steps before them
KEEP = 0.99  # share of the moving average that stays at a step
HARDEST = 0.25  # share of the pixels that count in arm `hard pixels`
FOCUS = 2.0  # exponent of the focal loss (Lin 2017)
EROSIONS = 5  # of the soft skeleton; vessels are up to 10 px wide
CLDICE = 0.5  # weight of clDice (Shit 2021)
DEEP = 0.5  # weight of the loss one level below the output; it halves at each further level (nnU-Net)

Batch = Sequence[Tensor]
Changes = dict[str, Any]
Loss = Callable[[setup.State, Tensor, Batch, params.Train], Tensor]  # arguments: state, logits, batch, settings


@dataclass(frozen=True)
class Arm:
    """A way to train: settings other than the plan's, or another loss."""

    name: str
    changes: Changes = field(default_factory=dict)
    loss: Loss | None = None
    deep: bool = False
    sets: tuple[str, ...] = ()  # datasets to try it on; empty: all


def plain(logits: Tensor, batch: Batch, settings: params.Train) -> Tensor:
    """Return segline's own loss."""
    return LossSums.of(logits, *batch[1:]).loss(settings.dice_weight)


def pixelwise(state: setup.State, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the weighted cross entropy of each pixel that counts, and its probability of the true class."""
    target, counts = batch[1].long(), batch[1] != IGNORE
    log_p = functional.log_softmax(logits[:, : state.network.classes].float(), 1)
    of_true = log_p.gather(1, torch.where(counts, target, 0)[:, None])[:, 0]
    return -(batch[2] * of_true)[counts], of_true.exp()[counts]


def hard_pixels(state: setup.State, logits: Tensor, batch: Batch, settings: params.Train) -> Tensor:
    """Average the cross entropy over the pixels where it is largest."""
    entropy, _ = pixelwise(state, logits, batch)
    hardest = entropy.topk(max(1, int(HARDEST * entropy.numel()))).values
    return plain(logits, batch, settings) - entropy.mean() + hardest.mean()


def focal(state: setup.State, logits: Tensor, batch: Batch, settings: params.Train) -> Tensor:
    """Weight the cross entropy of a pixel by (1 - p) ** FOCUS."""
    entropy, probability = pixelwise(state, logits, batch)
    return plain(logits, batch, settings) + (entropy * ((1 - probability) ** FOCUS - 1)).mean()


def skeleton(x: Tensor) -> Tensor:
    """Return the soft skeleton (b, 1, h, w) of a soft mask."""

    def eroded(x: Tensor) -> Tensor:
        return -torch.maximum(
            functional.max_pool2d(-x, (3, 1), 1, (1, 0)), functional.max_pool2d(-x, (1, 3), 1, (0, 1))
        )

    def rest(x: Tensor) -> Tensor:
        return functional.relu(x - functional.max_pool2d(eroded(x), 3, 1, 1))

    thin = rest(x)
    for _ in range(EROSIONS):
        x = eroded(x)
        thin = thin + functional.relu(rest(x) * (1 - thin))
    return thin


def centre_lines(state: setup.State, logits: Tensor, batch: Batch, settings: params.Train) -> Tensor:
    """Add clDice of the whole foreground."""
    found = 1 - logits[:, : state.network.classes].float().softmax(1)[:, :1]
    true = ((batch[1] > 0) & (batch[1] != IGNORE)).float()[:, None]
    precision = ((skeleton(found) * true).sum() + 1) / (skeleton(found).sum() + 1)
    recall = ((skeleton(true) * found).sum() + 1) / (skeleton(true).sum() + 1)
    return plain(logits, batch, settings) + CLDICE * (1 - 2 * precision * recall / (precision + recall))


ARMS = (
    Arm("plan"),
    Arm("no norm", {"model.norm": "none"}),
    Arm("batch norm", {"model.norm": "batch"}),
    Arm("no albumentations", {"augment.extra": []}),
    Arm("zoom 0.7 to 1.4", {"augment.min_scale": 0.7, "augment.max_scale": 1.4}),
    Arm("poly decay", {"train.schedule.kind": "poly"}),
    Arm("hard pixels", loss=hard_pixels),
    Arm("focal loss", loss=focal),
    Arm("clDice", loss=centre_lines, sets=("chase_db1",)),
    Arm("deep supervision", deep=True),
)


@dataclass(frozen=True)
class Training:
    """A cell."""

    set: Set
    arm: Arm
    seed: int
    minutes: float

    @property
    def name(self) -> str:
        """Name of the cell."""
        return f"{self.set.name}, {self.arm.name}, seed {self.seed}"

    def settings(self) -> dict[str, Any]:
        """Return the content of params.yaml."""
        own = {"plan.minutes": self.minutes, "train.seed": self.seed, "tune.trials": 0, **self.arm.changes}
        return merged(Cell(validated(self.set), self.seed).settings(), nested(own))


def validated(wanted: Set) -> Set:
    """Return the set with a quarter of the images that are not test images for validation."""
    return replace(wanted, changes={**wanted.changes, "prepare.validation": [], "prepare.val_percent": 25.0})


class Heads:
    """Class heads at the inner levels of a network, for deep supervision."""

    def __init__(self, state: setup.State, settings: params.Train) -> None:
        network, self.values = state.network, dict[int, Tensor]()
        self.convolutions = torch.nn.ModuleList()
        for level, block in enumerate(network.merge[:-1]):
            block.register_forward_hook(lambda _module, _input, output, level=level: self._keep(level, output))
            channels = [module.out_channels for module in block if isinstance(module, torch.nn.Conv2d)][-1]
            self.convolutions.append(torch.nn.Conv2d(channels, network.classes, 1))
        state.optimizer.add_param_group({"params": list(self.convolutions.parameters())})
        self.settings = settings

    def _keep(self, level: int, output: Tensor) -> None:
        self.values[level] = output

    def loss(self, batch: Batch) -> Tensor:
        """Return the weighted sum of the losses at the inner levels; each counts every nth pixel of the target."""
        total, count = torch.zeros(()), len(self.convolutions)
        for level, convolution in enumerate(self.convolutions):
            logits = convolution(self.values[level])
            factor = batch[1].shape[-1] // logits.shape[-1]
            thinned = [part[:, factor // 2 :: factor, factor // 2 :: factor] for part in batch[1:3]]
            total = total + DEEP ** (count - level) * LossSums.of(logits, *thinned).loss(self.settings.dice_weight)
        return total


def train(prepared: Prepared, tuned: params.Tuned, arm: Arm, seconds: float) -> tuple[setup.Training, Line]:
    """Train for about `seconds` of CPU time; also return the number of steps, and the average of the weights."""

    def begun(per_epoch: int) -> tuple[setup.Training, params.Train, Heads | None]:
        length = {"epochs": EPOCHS, "tiles_per_epoch": per_epoch * tuned.train.batch_size}
        settings = tuned.train.model_copy(update=length)
        started = setup.build(prepared, tuned.model_copy(update={"train": settings}), "cpu")
        started.state.network.train()
        return started, settings, Heads(started.state, settings) if arm.deep else None

    def stepped(state: setup.State, batch: Batch, settings: params.Train, heads: Heads | None) -> None:
        state.optimizer.zero_grad(set_to_none=True)
        with loop.autocast(torch.device("cpu"), settings):
            logits = state.network(batch[0].to(memory_format=torch.channels_last))
        loss = arm.loss(state, logits, batch, settings) if arm.loss else plain(logits, batch, settings)
        if heads:
            with loop.autocast(torch.device("cpu"), settings):
                loss = loss + heads.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), settings.gradient_clipping)
        state.optimizer.step()

    def batches(started: setup.Training, settings: params.Train) -> Any:
        return iter(training_loader(started.tiles, batch_size=settings.batch_size, epochs=range(EPOCHS), workers=0))

    started, settings, heads = begun(1)
    source = batches(started, settings)
    for number in range(BEFORE + TIMED):
        if number == BEFORE:
            began = time.process_time()
        stepped(started.state, next(source), settings, heads)
    per_epoch = max(1, int(seconds * TIMED / (time.process_time() - began)) // EPOCHS)

    started, settings, heads = begun(per_epoch)
    began, average = time.process_time(), dict[str, Tensor]()
    for number, batch in enumerate(batches(started, settings)):
        loop.set_rates(started.state, settings, number, per_epoch)
        stepped(started.state, batch, settings, heads)
        keep = min(KEEP, (1 + number) / (10 + number))
        for name, value in started.state.network.state_dict().items():
            old = average.setdefault(name, value.clone())
            if value.is_floating_point():
                old.mul_(keep).add_(value, alpha=1 - keep)
            else:
                old.copy_(value)
    spent = time.process_time() - began
    return started, {"steps": per_epoch * EPOCHS, "cpu_seconds": round(spent, 1), "average": average}


def judged(prepared: Prepared, started: setup.Training) -> Line:
    """Return the metrics on the validation split."""
    settings = params.read(params.Evaluate)
    predictor = Predictor(started.state.network, started.description, Inference(views=settings.views))
    predictor.inference = inference_settings.chosen(predictor, prepared, settings, "off")
    scores = []
    for name in prepared.names("validation"):
        outputs = predictor.outputs(prepared.image(name))
        labels, objects = interpret(outputs, predictor.inference)
        scores.append(truth.score(prepared, name, labels, objects, 1 - outputs.probabilities[0]))
    return baselines.totals(scores, prepared.dataset.classes)


def work_here(arm: Arm, seconds: float) -> None:
    """Train and judge in the project of the working directory; write result.json."""
    torch.set_num_threads(1)
    prepared = Prepared.open()
    model, augment = params.read(params.Model), params.read(params.Augment)
    tuned = params.Tuned(model=model, augment=augment, train=params.read(params.Train), searched=())
    started, result = train(prepared, tuned, arm, seconds)
    average = result.pop("average")
    result["figures"] = judged(prepared, started)
    started.state.network.load_state_dict(average)
    result["average"] = judged(prepared, started)
    Path("result.json").write_text(json.dumps(result))


class Bench:
    """Folders in which the cells run."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data, self.processes = folder, data, Processes()

    def share(self, wanted: Set) -> Path:
        """Return a project with the prepared dataset."""
        folder = self.folder / validated(wanted).key
        if not (folder / "data/prepared").exists():
            lay_out(folder, Cell(validated(wanted), 0).settings())
            if wanted.drawn:
                self.processes.segline(folder, "sample")
            else:
                source = str(self.data / wanted.name)
                self.processes.segline(folder, "import", source, "--name", wanted.name, *wanted.options)
            self.processes.segline(folder, "prepare")
        return folder

    def work(self, cell: Training) -> Line:
        """Run a cell."""
        folder = self.folder / cell.name.replace(",", "").replace(" ", "-")
        lay_out(folder, cell.settings())
        (folder / "data/prepared").symlink_to(self.share(cell.set) / "data/prepared")
        for stage in ("plan", "weights"):
            self.processes.segline(folder, stage)
        command = [sys.executable, __file__, "--cell", cell.arm.name, "--minutes", str(cell.minutes)]
        self.processes.run(command, folder, folder / "training.log", PYTHONPATH=str(ROOT / "src"))
        result: Line = files.read_json(folder / "result.json")
        shutil.rmtree(folder)
        return result


def key(cell: Training) -> list[Any]:
    """Return what names a cell in the results."""
    return [cell.set.name, cell.arm.name, cell.seed, cell.minutes]


def show(lines: Sequence[Line], sets: Sequence[Set], minutes: float) -> None:
    """Print a table per dataset: each arm's metrics, and their difference to the plan's, seed by seed."""
    for wanted in sets:
        of_set = [line for line in lines if (line["set"], line["minutes"]) == (wanted.name, minutes)]
        if not of_set:
            continue
        titles = " | ".join(metric.title for metric in wanted.metrics)
        print(f"\n### {wanted.name}, {minutes:g} CPU minutes\n\n| arm | seeds | steps | {titles} | difference |")
        print(f"|---|---|---|{'---|' * len(wanted.metrics)}---|")
        reference = {line["seed"]: line["figures"] for line in of_set if line["arm"] == ARMS[0].name}
        rows = [(arm.name, "figures", [line for line in of_set if line["arm"] == arm.name]) for arm in ARMS]
        rows.insert(1, ("plan, weights averaged", "average", rows[0][2]))
        for name, part, found in rows:
            if not found:
                continue
            values = [[metric.of(line[part]) for line in found] for metric in wanted.metrics]
            means = [shown_as(mean([value for value in column if value is not None])) for column in values]
            first = wanted.metrics[0]
            pairs = [(first.of(line[part]), first.of(reference.get(line["seed"], {}))) for line in found]
            apart = ", ".join(f"{a - b:+.4f}" for a, b in pairs if a is not None and b is not None)
            steps = mean([line["steps"] for line in found])
            print(f"| {name} | {len(found)} | {steps:.0f} | {' | '.join(means)} | {apart} |")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    default = os.environ.get("SEGLINE_TEST_DATA")
    parser = argparse.ArgumentParser(description="Ways to train at equal CPU time; see docs/ablation.md.")
    parser.add_argument("data", type=Path, nargs="?", default=default and Path(default), help="folder of the datasets")
    parser.add_argument("--work", type=Path, default=SCRATCH, help="folder for the projects")
    parser.add_argument("--sets", default=",".join(each.name for each in SETS), help="names, separated by commas")
    parser.add_argument("--arms", default=",".join(arm.name for arm in ARMS), help="names, separated by commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="seeds, separated by commas")
    parser.add_argument("--minutes", type=float, default=3, help="CPU time of a training")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run the missing cells, then print the tables."""
    asked = arguments()
    if asked.cell:
        work_here(next(arm for arm in ARMS if arm.name == asked.cell), 60 * asked.minutes)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out, code = asked.work / "training.jsonl", code_md5()
    lines = read_lines(out)
    sets = [each for each in SETS if each.name in asked.sets.split(",")]
    if asked.table:
        show([line for line in lines if line["code"] == lines[-1]["code"]], sets, asked.minutes)
        return
    if asked.data is None:
        sys.exit("DATA is missing: give the folder that holds the datasets, or set SEGLINE_TEST_DATA")
    arms = [arm for arm in ARMS if arm.name in asked.arms.split(",")]
    every = [
        Training(each, arm, seed, asked.minutes)
        for seed in map(int, asked.seeds.split(","))
        for each in sets
        for arm in arms
        if not arm.sets or each.name in arm.sets
    ]
    finished = [line["key"] for line in lines if line["code"] == code]
    missing = [cell for cell in every if key(cell) not in finished]
    print(f"{len(every) - len(missing)} of {len(every)} cells are in {out}", flush=True)
    bench = Bench((asked.work / code[:8]).resolve(), asked.data.resolve())
    for wanted in sets:
        bench.share(wanted)
    failed = []

    def done(number: int, cell: Training, result: Future[Line]) -> None:
        try:
            line = result.result()
        except ProcessError as error:
            failed.append(cell)
            print(f"{number}/{len(missing)} {cell.name}: failed, {error}", flush=True)
            return
        own = {"key": key(cell), "set": cell.set.name, "arm": cell.arm.name, "seed": cell.seed}
        add_line(out, {**own, "minutes": cell.minutes, "code": code, "machine": machine(), **line})
        words = ", ".join(f"{metric.title} {shown_as(metric.of(line['figures']))}" for metric in cell.set.metrics)
        print(f"{number}/{len(missing)} {cell.name}: {words}; {line['steps']} steps", flush=True)

    run_all(missing, bench.work, asked.jobs, bench.processes, done)
    show([line for line in read_lines(out) if line["code"] == code], sets, asked.minutes)
    if failed:
        sys.exit(f"{len(failed)} cells failed")


if __name__ == "__main__":
    main()
