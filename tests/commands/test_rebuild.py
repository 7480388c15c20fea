"""Check the output of rebuild about the new model; tests/soak/test_clone.py runs the whole command."""

import json
from pathlib import Path

import pytest

from segline.commands import rebuild
from segline.commands.rebuild import DIFFERENT, SAME, UNDECIDED
from segline.track import lineage


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Write the outputs of a pipeline."""
    for folder in ("model", "prepared", "reports"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data/model/weights.safetensors").write_bytes(b"weights")
    (tmp_path / "data/prepared/image").write_bytes(b"image")
    (tmp_path / "data/reports/test.json").write_text(
        json.dumps({"images": 3, "iou": {}, "dice": {}, "mean_iou": 0.75, "pixel_error": 0.1})
    )
    return tmp_path


@pytest.fixture
def tags(project: Path) -> dict[str, str]:
    """Return the tags of a version whose rebuilt model is the same."""
    made = {"model.md5": lineage.model_md5(project / "data/model")}
    return {**made, "data.md5": lineage.content_md5(project / "data/prepared"), **lineage.environment()}


METRICS = {"test_mean_iou": 0.8, "loss": 1.0}


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({}, SAME, "the rebuilt model is the same"),
        ({"env.cpu": "another"}, SAME, "the rebuilt model is the same"),
        ({"model.md5": "m"}, DIFFERENT, "mean_iou: 0.7500, registered 0.8000"),
        ({"model.md5": "m", "data.md5": "d"}, DIFFERENT, "the prepared data of the rebuilt model differ"),
        (
            {"model.md5": "m", "env.cpu": "another"},
            UNDECIDED,
            "but was another in the original training, so a bit-identical model is not expected",
        ),
        ({"model.md5": "m", "env.torch": ""}, UNDECIDED, "env.torch is "),
    ],
)
def test_rebuild_compares_model_data_and_environment(
    project: Path, tags: dict[str, str], changes: dict[str, str], code: int, message: str
) -> None:
    lines: list[str] = []
    assert rebuild._compare(project, {**tags, **changes}, METRICS, lines.append) == code
    assert message in "\n".join(lines)
    assert "pixel_error" not in "\n".join(lines)  # the run has no such metric


@pytest.mark.parametrize(
    ("content", "limits"),
    [
        ({"train": {"minutes": "auto"}, "tune": {"minutes": 2.5}}, ["train.minutes", "tune.minutes"]),
        ({"train": {"minutes": 0}, "tune": {"minutes": "auto"}}, ["tune.minutes"]),
        ({"train": {"epochs": 3}}, []),  # written by a release without limits
        ([], []),
    ],
)
def test_limits_of_time_are_found_in_any_settings(content: object, limits: list[str]) -> None:
    assert rebuild._limits(content) == limits
