"""`segline predict` on a large image: its memory, and what it writes after it was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import save_file

from segline.commands.prediction_records import LOCK
from segline.gate import champion
from segline.model.images import encode_png
from segline.model.inference import Description, Inference, load
from segline.model.normalisation import Statistics
from segline.model.objects import Separation, encode
from segline.track.packaging import Parts
from segline.track.registry import Registry
from segline.track.store import open_store
from segline.track.verdict import Verdict

pytestmark = pytest.mark.soak

SIDE = 4125
NETWORK = {"width": 2, "depth": 1, "padding": "same", "norm": "none", "upsampling": "transposed", "dropout": 0.0}
RUN = """
from segline import cli
try:
    cli.main()
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a registered model that has windows of 1,000 px, and an image."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    torch.manual_seed(1)
    description = Description(
        NETWORK, {0: "background", 1: "cell"}, "instances", Statistics("uint8", 1, (0.4,), (0.2,))
    )
    save_file(description.build().state_dict(), tmp_path / "weights.safetensors")
    description.write(tmp_path / "model.json")
    Inference(separation=Separation(None, 3), tile=1000).write(tmp_path / "inference.json")
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 200, (SIDE // 25, SIDE // 25), np.uint8), np.ones((25, 25), np.uint8))
    pixels += rng.integers(0, 4, pixels.shape, np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", pixels, tile=(512, 512), compression="zlib")
    example = pixels[:200, :200]
    # So much is foreground that it hangs together all over the image.
    threshold = float(np.quantile(1 - load(tmp_path).probabilities(example[..., np.newaxis])[0], 0.2))
    Inference(threshold, separation=Separation(1, 3), tile=1000).write(tmp_path / "inference.json")
    labels, objects = load(tmp_path).predict(example[..., np.newaxis])
    parts = Parts(tmp_path, tmp_path / "inference.json", encode_png(example), encode_png(labels), encode(objects))
    store = open_store()
    with store.start_run("test") as run:
        champion.register(Registry(store, "cells"), parts, run, Verdict(()), {})
    return tmp_path


def start(out: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, "predict", "image.tif", "--model", "models:/cells@champion", "--instances"]
    return subprocess.Popen([*command, "--out", out], stdout=subprocess.PIPE, text=True)


def test_killed_it_goes_on_and_writes_the_same_in_bounded_memory(project: Path) -> None:
    undisturbed = start("undisturbed")
    output, _ = undisturbed.communicate(timeout=600)
    assert undisturbed.returncode == 0
    assert int(output.split()[1]) * 1024 < 3 * 2**29
    journal = project / "killed" / ".image.windows" / "journal.json"
    for rows in (1, 4):
        process = start("killed")
        deadline = time.monotonic() + 300
        while not (journal.exists() and json.loads(journal.read_text())[1] >= rows):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not list((project / "killed").glob("*.tif"))
    process = start("killed")
    process.communicate(timeout=600)
    assert process.returncode == 0
    for name in ("image.tif", "image_instances.tif"):
        assert (project / "killed" / name).read_bytes() == (project / "undisturbed" / name).read_bytes()
    assert tifffile.imread(project / "killed" / "image_instances.tif").max() > 1000
    _, _, boxes, _ = cv2.connectedComponentsWithStats(tifffile.imread(project / "killed" / "image.tif"))
    assert boxes[1:, cv2.CC_STAT_AREA].max() > SIDE**2 / 2
    assert [path.name for path in (project / "killed").glob(".*")] == [LOCK]
