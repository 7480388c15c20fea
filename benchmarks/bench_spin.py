"""Training speed with three wait policies of OpenMP, on an idle machine and beside busy neighbour processes.

PYTHONPATH=src python benchmarks/bench_spin.py > benchmarks/results/spin_MACHINE_202611.md    # three minutes
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

THREADS = 2
NEIGHBOURS = (0, 1, 3)  # busy processes beside the training
POLICIES = {
    "default of the library": {},
    "short spin (segline's default)": {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
}
VARIABLES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")


def main() -> None:
    """Measure all policies in turns within one run, so that a change of the machine's speed affects all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3, help="length of one measurement")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)  # be one of the measured processes
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.seconds)
    else:
        print(table(measure(arguments.rounds, arguments.seconds), arguments))


def measure(rounds: int, seconds: float) -> dict[tuple[str, int], list[float]]:
    """Return the tiles per second of each round by policy and number of neighbours."""
    use_two_cores()
    speeds: dict[tuple[str, int], list[float]] = {(name, count): [] for name in POLICIES for count in NEIGHBOURS}
    with ExitStack() as stack:
        trainings = {name: stack.enter_context(training(name, seconds)) for name in POLICIES}
        for number in range(rounds):
            names = list(POLICIES)
            for count in NEIGHBOURS:
                with busy_neighbours(count):
                    for name in names[number % len(names) :] + names[: number % len(names)]:
                        speeds[name, count].append(ask(trainings[name]))
    return speeds


def use_two_cores() -> None:
    """Bind this process and its children to as many cores as the training has threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


@contextmanager
def training(policy: str, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    """Start a process that measures itself under a policy whenever it is asked to, and sleeps in between."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {"OMP_NUM_THREADS": str(THREADS), **POLICIES[policy]}
    command = [sys.executable, __file__, "--train", "--seconds", str(seconds)]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("a training process did not start; its message stands above")
        yield process
    finally:
        process.kill()
        process.wait()


def ask(process: "subprocess.Popen[str]") -> float:
    """Let a process measure once; return tiles per second."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """Run `count` processes that compute without a pause."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.3 if count else 0)  # until all of them are busy
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def train(seconds: float) -> None:
    """For each line on stdin, train the default network for `seconds` and print the tiles per second."""
    import torch  # before segline, which sets the short spin: OpenMP reads the variables when it is loaded

    from segline import params
    from segline.model.unet import UNet
    from segline.train import loop
    from segline.train.setup import initial_state

    torch.set_num_threads(THREADS)
    model, settings = params.read(params.Model), params.read(params.Train)
    torch.manual_seed(0)
    network = UNet(1, 3, **model.network)
    state = initial_state(network, settings, "cpu")
    state.network.train()
    size, output = settings.tile, state.network.geometry.output(settings.tile)
    image = torch.randn(settings.batch_size, 1, size, size)
    target = torch.randint(0, 3, (settings.batch_size, output, output), dtype=torch.uint8)
    batch = (image, target, torch.ones(target.shape))
    loop.train_step(state, batch, settings)
    print("ready", flush=True)
    for _ in sys.stdin:
        loop.train_step(state, batch, settings)
        steps, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            loop.train_step(state, batch, settings)
            steps += 1
        print(steps * settings.batch_size / elapsed, flush=True)


def table(speeds: dict[tuple[str, int], list[float]], arguments: argparse.Namespace) -> str:
    """Return the result as Markdown: medians, with the smallest and largest value."""
    command = f"benchmarks/bench_spin.py --rounds {arguments.rounds} --seconds {arguments.seconds:g}"
    explanation = (
        f"Tiles per second of the default network on {THREADS} threads and {THREADS} cores: median of the rounds "
        "(smallest to largest). All values are from one run, in turns."
    )
    rows = [f"| {name} | " + " | ".join(cell(speeds[name, count]) for count in NEIGHBOURS) + " |" for name in POLICIES]
    lines = [
        "# Training speed by wait policy of OpenMP",
        "",
        f"`PYTHONPATH=src python {command}`, {processor()}.",
        explanation,
        "",
        "| policy | " + " | ".join(heading(count) for count in NEIGHBOURS) + " |",
        "|---|" + "---|" * len(NEIGHBOURS),
        *rows,
    ]
    return "\n".join(lines)


def heading(count: int) -> str:
    """Name a column."""
    return "idle" if count == 0 else f"{count} busy neighbour{'s' if count > 1 else ''}"


def cell(values: Sequence[float]) -> str:
    """Format the speeds of all rounds."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def processor() -> str:
    """Return the name of the CPU."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
