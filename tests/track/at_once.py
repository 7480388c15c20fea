"""Run many processes that log, register and promote in one store at the same time.

python at_once.py MODEL PROCESSES PROMOTIONS, in the folder of a project; MODEL is the folder of a small model. Each
process registers two versions and makes each champion in turn.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from segline.gate import champion
from segline.gate.rules import floors
from segline.params import Gate
from segline.track.packaging import Parts
from segline.track.recording import StartedRun
from segline.track.registry import Registry
from segline.track.store import open_store

STEPS = 20
GOOD = floors({"mean_iou": 0.9, "pixel_error": 0.05}, Gate())


def work(number: int, model: Path, processes: int, promotions: int) -> None:
    """Do the work of one process."""
    champion.judge = lambda *_, **__: GOOD  # type: ignore[assignment]  # this process is a fork of its own
    meet("started", number, processes)
    store = open_store()
    registry = Registry(store, "cells")
    with store.start_run(f"train {number}", {"number": number}) as run:
        log(run, number)
        versions = [champion.register(registry, parts, run, GOOD, {"model.md5": "m"}) for parts in own(number, model)]
        meet("registered", number, processes)
        for turn in range(promotions):
            version = versions[(turn + 1) % 2].version
            champion.promote(registry, version, reason=f"process {number}, turn {turn}", force=True)


def meet(where: str, number: int, processes: int) -> None:
    """Wait for all processes, so that they work at the same time."""
    Path(f"{where} {number}").touch()
    limit = time.monotonic() + 300
    while len(list(Path().glob(f"{where} *"))) < processes:
        assert time.monotonic() < limit, "a process is missing"
        time.sleep(0.01)


def log(run: StartedRun, number: int) -> None:
    """Log metrics for each step, and a picture."""
    for step in range(1, STEPS + 1):
        run.log(step, {"loss": number + 1 / step, "mean_iou": 1 - 1 / step})
        run.tag({f"step {step}": "logged"})
    run.picture(np.zeros((4, 4, 3), np.uint8), "tile")


def own(number: int, model: Path) -> list[Parts]:
    """Make two versions that no other process has: white space changes the bytes of a file, not its meaning."""
    example, answer, instances = ((model / name).read_bytes() for name in ("example", "answer", "instances"))
    parts = Parts(model, model / "inference.json", example, answer, instances)
    versions = []
    for which in range(2):
        file = Path(f"inference {number} {which}.json")
        file.write_text(parts.inference.read_text() + " " * (1 + 2 * number + which))
        versions.append(replace(parts, inference=file))
    return versions


def main() -> None:
    """Fork the processes after the slow imports."""
    model, processes, promotions = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    children = []
    for number in range(processes):
        if child := os.fork():
            children.append(child)
            continue
        work(number, model, processes, promotions)
        sys.stdout.flush()
        os._exit(0)  # after an exception the interpreter exits with 1
    states = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(any(states))


if __name__ == "__main__":
    main()
