"""Test the inference settings that are chosen on the validation split; test_pipeline tests the rest of evaluate."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segline import files
from segline.data.prepared import Prepared
from segline.model.inference import Inference
from segline.model.objects import Outputs, Separation
from segline.params import Evaluate
from segline.train import inference_settings

SIDE = 24


class Network:
    """A predictor of two squares with a line between them; `line` is the probability of foreground on the line."""

    def __init__(self, line: float) -> None:
        self.line = line
        self.network = SimpleNamespace(object_map=False)
        self.inference = Inference()
        self.calls = 0

    def outputs(self, raw: np.ndarray) -> Outputs:
        self.calls += 1
        foreground = np.where(raw[..., 0] > 0, np.float32(0.95), np.float32(0.05))
        middle = foreground[:, SIDE // 2]
        middle[middle > 0.5] = self.line
        return Outputs(np.stack([1 - foreground, foreground]))


def prepared(folder: Path, labels: str, images: int = 1) -> Prepared:
    truth = np.zeros((SIDE, SIDE), np.int32)
    truth[3:-3, 3 : SIDE // 2], truth[3:-3, SIDE // 2 + 1 : -3] = 1, 2
    if labels == "boundaries":
        truth[:] = np.arange(SIDE) // (SIDE // 2 + 1) + 1
        truth[:, SIDE // 2] = 0
    filled = np.where(np.arange(SIDE)[None] == SIDE // 2, np.roll(truth, 1, axis=1), truth) > 0
    names = [f"image{number}" for number in range(images)]
    for kind, array in (("images", filled[..., None] * np.uint8(255)), ("classes", truth > 0), ("instances", truth)):
        (folder / kind).mkdir()
        for name in names:
            files.save_array(
                folder / kind / f"{name}.npy", array.astype(np.uint8 if kind == "classes" else array.dtype)
            )
    lines = ["image,split", *(f"{name},validation" for name in names)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    spec = {"name": "tiny", "classes": {0: "background", 1: "cell"}, "labels": labels}
    files.write_yaml(folder / "dataset.yaml", spec)
    files.write_json(folder / "statistics.json", {"dtype": "uint8", "channels": 1, "mean": [0.5], "std": [0.25]})
    return Prepared.open(folder)


@pytest.mark.parametrize(
    ("labels", "settings", "expected"),
    [
        (
            "instances",
            {"watershed_depth": "off", "min_area": 7, "min_probability": 0},
            Inference(separation=Separation(None, 7)),
        ),
        (
            "instances",
            {"watershed_depth": 2, "watershed_neck": 0.1, "min_area": 0, "min_probability": 0.6},
            Inference(separation=Separation(2.0, 0, 0.6, neck=0.1)),
        ),
        ("boundaries", {"segment_threshold": "off"}, Inference()),
        ("boundaries", {"segment_threshold": "off", "segment_neck": 0.3}, Inference()),
        ("boundaries", {"segment_threshold": 0.8, "segment_neck": "off"}, Inference(segment_threshold=0.8)),
        (
            "boundaries",
            {"segment_threshold": 0.8, "segment_neck": 0.3},
            Inference(segment_threshold=0.8, segment_neck=0.3),
        ),
        (
            "instances",
            {"segment_threshold": 0.8, "watershed_depth": "off", "min_area": 0, "min_probability": 0},
            Inference(None, 0.8, Separation()),
        ),
        ("classes", {"segment_threshold": 0.8}, Inference()),
        ("classes", {"threshold": "auto"}, Inference()),
    ],
)
def test_settings_with_a_value_are_not_searched(
    labels: str, settings: dict[str, object], expected: Inference, tmp_path: Path
) -> None:
    network = Network(0.7)
    settings = {"threshold": "argmax"} | settings
    assert inference_settings.chosen(network, prepared(tmp_path, labels), Evaluate(**settings), "off") == expected
    assert network.calls == 0


@pytest.mark.parametrize(("line", "parted"), [(0.7, True), (0.1, False)])
def test_a_watershed_is_chosen_if_objects_touch(line: float, parted: bool, tmp_path: Path) -> None:
    chosen = inference_settings.chosen(
        Network(line), prepared(tmp_path, "instances"), Evaluate(threshold="argmax"), "off"
    )
    assert chosen.separation is not None
    assert (chosen.separation.depth is not None) == parted
    assert chosen.segment_threshold is None


def test_a_threshold_that_follows_the_outlines_is_chosen(tmp_path: Path) -> None:
    """The line between the squares belongs to them, but the network gives it a probability of 0.3 only."""
    network, data = Network(0.3), prepared(tmp_path, "instances")
    truth = data.classes("image0").copy()
    truth[:, SIDE // 2] |= truth[:, SIDE // 2 - 1]
    files.save_array(tmp_path / "classes/image0.npy", truth)
    chosen = inference_settings.chosen(network, data, Evaluate(), "off")
    assert chosen.threshold is not None
    assert 0.05 <= chosen.threshold < 0.3
    assert network.calls == 1  # for the threshold and for all that depends on it
    assert inference_settings.chosen(network, data, Evaluate(watershed_depth="off"), "off").threshold is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Inference(segment_threshold=0.7, segment_neck=0.4)),
        ({"segment_neck": "off"}, Inference(segment_threshold=0.7)),
        ({"segment_neck": 0.2}, Inference(segment_threshold=0.7, segment_neck=0.2)),
        ({"segment_threshold": 0.8}, Inference(segment_threshold=0.8, segment_neck=0.4)),
    ],
)
def test_a_segment_threshold_is_chosen_if_borders_are_faint(
    settings: dict[str, object], expected: Inference, tmp_path: Path
) -> None:
    chosen = inference_settings.chosen(Network(0.7), prepared(tmp_path, "boundaries"), Evaluate(**settings), "off")
    assert chosen == expected


def test_other_inference_settings_are_kept() -> None:
    assert inference_settings.given(Evaluate(threshold=0.4, views=8, tile=96)) == Inference(0.4, views=8, tile=96)


def test_only_evenly_spread_validation_images_are_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_settings, "CHOSEN_ON", 3 * SIDE * SIDE)
    network = SimpleNamespace(outputs=lambda raw: raw)
    predicted = inference_settings._validation(network, prepared(tmp_path, "instances", images=7), "off")
    assert list(predicted) == ["image0", "image3", "image6"]
