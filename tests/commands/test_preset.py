"""Presets: each is valid, is written completely or not at all, and keeps comments."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from segline.commands import import_, preset
from segline.data import splits
from segline.data.dataset import Dataset
from segline.files import FileError, read_yaml
from segline.params import PLANNED, Params, ParamsError, automatic, load, merged, nested, value_at

SHIPPED = [name for name in preset.names() if name not in ("default", "auto")]
PAPER = "isbi2012_paper"
# Defaults that the preset relies on: its result was measured with these values. For labels `boundaries` the threshold
# `auto` is the same as argmax, which was the default then.
RELIED_ON = {
    "prepare": {"seed": 0},
    "model": {"upsampling": "transposed"},
    "augment": {
        "elastic_grid": 3,
        "rotation": 180,
        "mirror": True,
        "min_scale": 0.9,
        "max_scale": 1.1,
        "contrast": 0.2,
        "noise": 0.02,
    },
    "train": {
        "seed": 0,
        "momentum_start": 0.9,
        "momentum_warmup_percent": 20,
        "weight_decay": 0.0001,
        "monitor": "mean_iou",
        "schedule": {"power": 0.9},
    },
    "evaluate": {"threshold": "auto", "segment_threshold": "auto", "tile": 0},
}


@pytest.fixture
def file(repository: Path, tmp_path: Path) -> Path:
    """A copy of params.yaml."""
    copy = tmp_path / "params.yaml"
    copy.write_text((repository / "params.yaml").read_text())
    preset.write("default", copy)
    return copy


def comments(file: Path) -> list[str]:
    return [line.partition("# ")[2] for line in file.read_text().splitlines()]


@pytest.mark.parametrize("name", preset.names())
def test_a_preset_is_written_and_comments_stay(file: Path, name: str) -> None:
    before = comments(file)
    preset.write(name, file)
    assert comments(file) == before
    written = merged(
        load(Params, file).model_dump(mode="json"), nested(dict.fromkeys(automatic(read_yaml(file)), "auto"))
    )
    settings = preset.settings(name)
    for section, values in settings.items():
        assert merged(written[section], values) == written[section]
    untouched = set(written) - set(settings)
    assert {section: written[section] for section in untouched} == Params().model_dump(mode="json", include=untouched)
    assert preset.write(name, file) == []


def test_auto_leaves_to_the_plan_what_it_can_choose_and_keeps_the_rest(file: Path) -> None:
    own = file.read_text().replace("step_epochs: 10 ", "step_epochs: 12 ")
    file.write_text(own)
    assert len(preset.write("auto", file)) == len(PLANNED)
    assert automatic(read_yaml(file)) == [*PLANNED]
    assert load(Params, file).train.schedule.step_epochs == 12
    preset.write("default", file)
    assert automatic(read_yaml(file)) == []


def test_only_the_recipe_of_the_paper_is_shipped() -> None:
    assert preset.names() == ["default", "auto", PAPER]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_preset_leaves_nothing_to_the_plan(file: Path, name: str) -> None:
    preset.write(name, file)
    expected = load(Params, file)
    preset.write("auto", file)
    preset.write(name, file)
    assert automatic(read_yaml(file)) == []
    assert load(Params, file) == expected


def test_a_file_leaves_to_the_plan_what_it_omits_in_its_sections(file: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("train: {tile: auto, epochs: 3, schedule: {kind: poly}}\n")
    preset.write(str(mine), file)
    left_out = {name for name in PLANNED if name.startswith("train.")} - {"train.epochs", "train.schedule.kind"}
    assert {*automatic(read_yaml(file))} == left_out
    assert value_at(read_yaml(file), "train.epochs") == 3
    assert value_at(read_yaml(file), "train.schedule.power") == Params().train.schedule.power
    for wrong in ("train.tile: auto\n", "train: {seed: auto}\n"):
        mine.write_text(wrong)
        with pytest.raises(ParamsError, match=r"train\.(tile is not a setting|seed = 'auto')"):
            preset.write(str(mine), file)


def test_auto_is_refused_where_no_stage_plans(file: Path) -> None:
    before = file.read_bytes()
    file.with_name("dvc.yaml").write_text("stages: {train: {cmd: segline train}}\n")
    with pytest.raises(
        preset.PresetError, match=r"auto needs the stage plan, which .*dvc\.yaml lacks; `segline upgrade`"
    ):
        preset.write("auto", file)
    assert file.read_bytes() == before
    preset.write(PAPER, file)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_preset_sets_its_values_over_the_defaults(repository: Path, name: str) -> None:
    preset_file = YAML(typ="safe").load((repository / f"src/segline/presets/{name}.yaml").read_text())
    expected = Params().model_dump(mode="json", include=set(preset_file))
    schedule = expected["train"]["schedule"] | preset_file["train"]["schedule"]
    for section, values in preset_file.items():
        expected[section] |= values
    expected["train"]["schedule"] = schedule
    assert preset.settings(name) == expected


def test_a_changed_default_that_a_preset_relies_on_must_go_into_the_preset() -> None:
    settings = preset.settings(PAPER)
    assert merged(settings, RELIED_ON) == settings


@pytest.mark.parametrize("name", SHIPPED)
def test_a_preset_does_not_depend_on_the_present_settings(file: Path, name: str) -> None:
    preset.write(name, file)
    once = load(Params, file)
    edits = {"monitor: mean_iou": "monitor: loss", "rotation: 180": "rotation: 5", "gamma: 0.5": "gamma: 0.1"}
    edits |= {"  threshold: auto": "  threshold: 0.3", "val_percent: 10": "val_percent: 40", "power: 0.9": "power: 2"}
    for old, new in edits.items():
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    preset.write(name, file)
    assert load(Params, file) == once


def test_isbi2012_is_split_as_published(
    file: Path, shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shared_data("isbi2012")
    monkeypatch.chdir(file.parent)
    import_.run(source, "isbi2012", mode="off")
    preset.write(PAPER)
    settings = load(Params, file)
    split = splits.assign(Dataset.open(Path(settings.data.source)).groups, **settings.prepare.model_dump())
    assert Counter(split.values()) == {"train": 10, "validation": 2, "test": 6}


def test_default_resets_every_section_except_runtime(file: Path) -> None:
    file.write_text(file.read_text().replace("workers: 0", "workers: 3"))
    assert preset.write(PAPER, file)
    assert "data.source: data/raw/isbi2012 -> data/raw/cells" in preset.write("default", file)
    written = load(Params, file)
    assert written.runtime.workers == 3
    assert written.model_dump(exclude={"runtime"}) == Params().model_dump(exclude={"runtime"})


def test_a_missing_section_is_added(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("# mine\nruntime:\n  threads: 1  # two cores\n")
    preset.write(PAPER, file)
    assert YAML(typ="safe").load(file.read_text())["data"]["source"] == "data/raw/isbi2012"
    assert file.read_text().startswith("# mine\nruntime:\n  threads: 1  # two cores\n")


def test_an_invalid_preset_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()
    monkeypatch.setattr(preset, "settings", lambda _: {"train": {"epochs": 3, "epoch": 4}})
    with pytest.raises(ParamsError, match=r"preset odd: train\.epoch is not a setting"):
        preset.write("odd", file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_file_of_settings_is_a_preset(file: Path) -> None:
    own = file.parent / "own.yaml"
    own.write_text("data: {source: data/raw/own}\ntrain: {epochs: 3, schedule: {kind: cosine}}\n")
    file.write_text(file.read_text().replace("batch_size: 4", "batch_size: 2").replace("keep_best: 1", "keep_best: 2"))
    changes = {*preset.write(str(own), file)}
    expected = {"data.source: data/raw/cells -> data/raw/own", "train.keep_best: 2 -> 1", "train.batch_size: 2 -> auto"}
    assert expected <= changes
    written = load(Params, file)
    assert (written.train.epochs, written.train.schedule.kind, written.train.keep_best) == (3, "cosine", 1)


def test_files_with_line_ends_of_windows_are_read(file: Path) -> None:
    """The settings and comments are those of the same files with LF, and params.yaml has LF afterwards."""
    own, windows = file.parent / "own.yaml", file.parent / "windows.yaml"
    own.write_bytes(b"data:\r\n  source: data/raw/own\r\ntrain:\r\n  schedule: {kind: cosine}\r\n")
    windows.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert load(Params, windows) == load(Params, file)
    assert preset.write(str(own), windows) == preset.write(str(own), file)
    assert windows.read_bytes() == file.read_bytes()
    assert load(Params, windows).data.source == "data/raw/own"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("train: {epoch: 3}", "own.yaml: train.epoch is not a setting"),
        ("training: {epochs: 3}", "own.yaml: training is not a"),
        ("train: 3", "own.yaml: train"),
        ("- 3", "own.yaml must hold a mapping of sections"),
        ("train: {epochs: [", "own.yaml"),
    ],
)
def test_a_file_with_errors_changes_nothing(file: Path, content: str, complaint: str) -> None:
    before, own = file.read_bytes(), file.parent / "own.yaml"
    own.write_text(content)
    with pytest.raises((ParamsError, FileError), match=re.escape(complaint)):
        preset.write(str(own), file)
    with pytest.raises(preset.PresetError, match=r"there is no file .*other\.yaml"):
        preset.write(str(file.parent / "other.yaml"), file)
    assert file.read_bytes() == before


def test_an_unknown_preset_is_refused_with_the_list_of_presets() -> None:
    with pytest.raises(preset.PresetError, match=PAPER):
        preset.settings("isbi")


def test_a_search_space_is_replaced_as_a_whole_in_flow_style(file: Path) -> None:
    text = file.read_text()
    start, end = text.index("    train.learning_rate: {"), text.index("\n\n# Prediction and evaluation")
    file.write_text(f"{text[:start]}    model.width: {{choices: [8, 16]}}{text[end:]}")
    assert any(line.startswith("tune.space: ") for line in preset.write("default", file))
    assert load(Params, file) == Params()
    assert "    train.learning_rate: {low: 0.0005, high: 0.005, log: true}\n" in file.read_text()


def test_the_file_keeps_its_mode_and_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    file.chmod(0o600)
    link = tmp_path / "link.yaml"
    link.symlink_to(file.name)
    preset.write(PAPER, link)
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    assert load(Params, file).data.source == "data/raw/isbi2012"


def test_a_write_protected_file_is_refused(file: Path) -> None:
    file.chmod(0o444)
    before = file.read_bytes()
    with pytest.raises(preset.PresetError, match=r"params\.yaml is write-protected; allow writing with `chmod"):
        preset.write(PAPER, file)
    assert file.read_bytes() == before


def test_off_stays_in_quotes(file: Path) -> None:
    """A parser of YAML 1.1 reads the plain word as False."""
    preset.write("auto", file)
    preset.write("default", file)
    assert 'amp: "off"' in file.read_text()
