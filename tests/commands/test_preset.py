"""Presets: every one fits, all or nothing, comments kept."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from segline.commands import preset
from segline.params import Params, ParamsError, load


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
def test_a_preset_is_written_with_comments_kept(file: Path, name: str) -> None:
    before = comments(file)
    preset.write(name, file)
    assert comments(file) == before
    written = load(Params, file).model_dump(mode="json")
    wanted = preset.settings(name)
    for section, values in wanted.items():
        assert written[section] | values == written[section]
    untouched = set(written) - set(wanted)
    assert {section: written[section] for section in untouched} == Params().model_dump(mode="json", include=untouched)
    assert preset.write(name, file) == []


def test_default_undoes_a_preset_but_leaves_the_machine_alone(file: Path) -> None:
    file.write_text(file.read_text().replace("workers: 0", "workers: 3"))
    assert preset.write("isbi2012", file)
    assert "data.source: data/raw/isbi2012 -> data/raw/cells" in preset.write("default", file)
    written = load(Params, file)
    assert written.runtime.workers == 3
    assert written.model_dump(exclude={"runtime"}) == Params().model_dump(exclude={"runtime"})


def test_a_section_that_was_left_out_is_added(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("# mine\nruntime:\n  threads: 1  # two cores\n")
    preset.write("isbi2012", file)
    assert YAML(typ="safe").load(file.read_text())["data"]["source"] == "data/raw/isbi2012"
    assert file.read_text().startswith("# mine\nruntime:\n  threads: 1  # two cores\n")


def test_a_preset_that_does_not_fit_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()
    monkeypatch.setattr(preset, "settings", lambda _: {"train": {"epochs": 3, "epoch": 4}})
    with pytest.raises(ParamsError, match=r"preset odd: train\.epoch is no setting"):
        preset.write("odd", file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(preset.PresetError, match="isbi2012"):
        preset.settings("isbi")
