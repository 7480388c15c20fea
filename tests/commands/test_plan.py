"""`segline plan` on a drawn dataset: it shows every choice, never looks at test images, and writes all or nothing."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from segline import params
from segline.commands import plan
from segline.data import splits
from segline.data.checks import per_dataset
from segline.data.dataset import Dataset, DatasetError
from segline.planning import speed
from segline.stages import sample

SETTINGS = """
# A comment that stays.
sample: {images: 8, min_size: 64, max_size: 80, seed: 3}
augment: {rotation: 10}  # ours
tune: {trials: 2}
runtime: {progress: "off"}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with drawn cells, on a machine that trains ten steps per second."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(SETTINGS)
    sample.main()
    monkeypatch.setattr(speed, "measure", lambda *_: speed.Speed({"off": 0.1, "bf16": 0.2}))
    return tmp_path


@pytest.fixture
def run() -> Callable[..., str]:
    """Return a function that runs the command and returns all that it prints."""

    def run(minutes: float = 2, write: bool = False) -> str:
        shown = io.StringIO()
        console = Console(file=shown, width=200)
        plan.main(minutes, write, console, lambda text: print(text, file=shown))
        return shown.getvalue()

    return run


def test_the_plan_shows_each_setting_with_its_reason_and_changes_nothing(
    project: Path, run: Callable[..., str]
) -> None:
    shown = run()
    for name in ("model", "input_norm", "tile", "rotation", "10 -> 180", "schedule.kind", "tiles_per_epoch"):
        assert name in shown
    assert "the common direction of edges has a strength of" in shown
    assert "7 images measured: uint8, 1 channel" in shown
    assert "segline plan --write" in shown
    assert (project / "params.yaml").read_text() == SETTINGS


def test_the_written_plan_is_valid_keeps_comments_and_is_stable(project: Path, run: Callable[..., str]) -> None:
    assert "settings changed" in run(write=True)
    text = (project / "params.yaml").read_text()
    assert "# A comment that stays." in text and "# ours" in text
    settings = params.load(params.Params, project / "params.yaml")
    assert settings.augment.rotation == 180
    assert settings.train.schedule.kind == "one_cycle"
    assert settings.tune.trials == 2
    steps = settings.train.tiles_per_epoch // settings.train.batch_size
    total = steps * (settings.train.epochs + 2 * settings.tune.epochs) * 0.1
    assert 0.5 * 120 < total <= 120
    assert "already has these settings" in run(write=True)
    assert (project / "params.yaml").read_text() == text


@pytest.mark.usefixtures("project")
def test_images_of_the_test_split_are_not_looked_at(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.open(Path("data/raw/cells"))
    split = splits.assign(dataset.groups, **params.Prepare().model_dump())
    opened: list[str] = []
    read = Dataset.image
    monkeypatch.setattr(Dataset, "image", lambda self, stem: (opened.append(stem), read(self, stem))[1])
    monkeypatch.setattr(per_dataset, "inspect", lambda *_: [])  # the check reads all images, also those of the test
    monkeypatch.setattr(per_dataset, "judge", lambda *_: [])
    run()
    assert sorted(opened) == [stem for stem in dataset.stems if split[stem] != "test"]


@pytest.mark.usefixtures("project")
def test_at_most_a_few_images_of_a_large_dataset_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MOST", 3)
    assert plan.measure(Path("data/raw/cells"), params.Prepare(), "off").images == 3


def test_a_dataset_with_errors_is_refused(project: Path, run: Callable[..., str]) -> None:
    for file in (project / "data/raw/cells/classes").iterdir():
        file.write_bytes(b"")
        break
    with pytest.raises(per_dataset.UnfitError, match="cells-"):
        run(write=True)
    assert (project / "params.yaml").read_text() == SETTINGS


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("train.schedule.patience: {low: 1, high: 5}", "tune.space.train.schedule.patience has no effect with"),
        ("model.reduction: {choices: [4, 8]}", "model.reduction = 8"),
    ],
)
def test_a_search_space_that_does_not_fit_the_plan_is_refused(
    space: str, message: str, project: Path, run: Callable[..., str]
) -> None:
    text = SETTINGS.replace("tune: {trials: 2}", "tune: {trials: 2, space: {" + space + "}}")
    (project / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        run(write=True)
    assert (project / "params.yaml").read_text() == text


def test_without_a_dataset_the_message_says_what_to_do(project: Path, run: Callable[..., str]) -> None:
    (project / "params.yaml").write_text("data: {source: data/raw/none}\n")
    with pytest.raises(DatasetError, match=r"data/raw/none is not a folder; `segline import"):
        run(write=True)
