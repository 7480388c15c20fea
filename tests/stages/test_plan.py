"""Stage `plan` on drawn cells: values take precedence, test images are not measured, the picture is whole."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from segline import params
from segline.data.prepared import Prepared
from segline.model.geometry import SizeError
from segline.params import PLANNED, ParamsError
from segline.planning import recipe, speed
from segline.stages import plan, prepare, sample, tune, weights

PLAN = Path("data/plan/plan.yaml")


def write(**changes: object) -> None:
    """Write params.yaml in which every setting that may be `auto` is, except `changes` by full name."""
    values = dict.fromkeys(PLANNED, "auto") | {"tune.trials": 2} | changes
    content: dict[str, Any] = YAML().load(Path("params.yaml"))
    YAML().dump(params.merged(content, params.nested(values)), Path("params.yaml"))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let each step take a tenth of a second; return the list of the widths that are timed."""
    widths: list[int] = []

    def measure(model: params.Model, *_: object, **__: object) -> speed.Speed:
        widths.append(model.width)
        return speed.Speed({"off": 0.1, "bf16": 0.2})

    monkeypatch.setattr(speed, "measure", measure)
    return widths


@pytest.fixture
def prepared(project: Path, timed: list[int]) -> list[int]:
    """Prepare data in a project whose settings are `auto`; return the list of `timed`."""
    assert Path.cwd() == project
    write()
    sample.main()
    prepare.main()
    return timed


def planned() -> dict[str, Any]:
    content = YAML(typ="safe").load(PLAN)
    return {name: value for name, value in params.flat(content).items() if name in PLANNED}


@pytest.mark.usefixtures("prepared")
def test_later_stages_read_the_plan_where_settings_are_auto() -> None:
    plan.main()
    assert set(planned()) == set(PLANNED)
    assert params.read(params.Train).schedule.kind == planned()["train.schedule.kind"] == "one_cycle"
    write(**{"train.schedule.kind": "cosine", "train.learning_rate": 0.5})
    assert params.read(params.Train).schedule.kind == "cosine"
    assert params.read(params.Train).learning_rate == 0.5
    assert params.read(params.Train).tile == planned()["train.tile"]
    assert params.read(params.Tune).trials == 2
    write(**{"tune.trials": 0})
    weights.main()
    tune.main()
    assert params.read_tuned().train.tile == planned()["train.tile"]


def test_choices_follow_from_values_in_params_yaml(prepared: list[int]) -> None:
    plan.main()
    own, before = {"train.tile": 128, "train.epochs": 7, "model.width": 6}, planned()
    write(**own)
    prepared.clear()
    plan.main()
    assert {name: planned()[name] for name in own} == own
    assert prepared == [6]
    assert planned()["augment.elastic_sigma"] > before["augment.elastic_sigma"]
    write(**{"train.tile": 65})
    with pytest.raises(SizeError, match=r"params\.yaml: train\.tile = 65 px"):
        plan.main()
    assert planned()["train.tile"] == 128


def test_the_machine_is_timed_only_for_settings_that_depend_on_its_speed(prepared: list[int]) -> None:
    plan.main()
    assert prepared
    write(**{name: value for name, value in planned().items() if name in recipe.TIMED})
    prepared.clear()
    plan.main()
    first = PLAN.read_bytes()
    plan.main()
    assert prepared == []
    assert PLAN.read_bytes() == first
    assert set(planned()) == set(PLANNED) - set(recipe.TIMED)
    assert [planned()[name] for name in recipe.LIMITS] == [0, 0]


@pytest.mark.usefixtures("prepared")
def test_images_of_the_test_split_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: set[str] = set()
    read = Prepared.image
    monkeypatch.setattr(Prepared, "image", lambda self, name: (opened.add(name), read(self, name))[1])
    plan.main()
    dataset = Prepared.open()
    assert opened == {*dataset.names("train"), *dataset.names("validation")}
    opened.clear()
    monkeypatch.setattr(plan, "MOST", 2)
    plan.main()
    assert len(opened) == 2


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_the_picture_shows_the_tile_even_if_it_is_larger_than_the_image(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "classes":
        read = Prepared.instances
        monkeypatch.setattr(Prepared, "instances", lambda self, name: np.zeros_like(read(self, name)))
    write(**{"train.tile": 128})
    plan.main()
    picture = np.array(Image.open(io.BytesIO(Path("data/plan/plan.png").read_bytes())).convert("RGB")).astype(int)
    red = (picture[..., 0] > 200) & (picture[..., 1:].max(axis=2) < 60)
    rows, columns = np.nonzero(red)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=4)
    assert np.ptp(rows) > 100


@pytest.mark.usefixtures("project")
def test_auto_without_a_plan_is_refused_with_the_way_out() -> None:
    write()
    assert params.read(params.Prepare) == params.Prepare()
    with pytest.raises(ParamsError, match=r"params\.yaml: weights\.kind is `auto`, but there is no plan yet; run `dvc"):
        params.read(params.Weights)
    PLAN.parent.mkdir(parents=True)
    for content in ("weights: {kind: none}", "[1]", "null"):
        PLAN.write_text(content)
        with pytest.raises(
            ParamsError, match=r"data/plan/plan\.yaml has no value for weights\.(class_balance|kind|w0)"
        ):
            params.read(params.Weights)
    PLAN.write_text("evaluate: {views: 3, tile: 0}")
    with pytest.raises(ParamsError, match=r"params\.yaml with the values of data/plan/plan\.yaml: evaluate\.views = 3"):
        params.read(params.Evaluate)
    PLAN.write_text("evaluate: {views: auto, tile: 0}")
    with pytest.raises(
        ParamsError, match=r"plan\.yaml has no value for evaluate\.views; run `dvc repro`, which restores"
    ):
        params.read(params.Evaluate)
    for value in ("{}", "{a: 1}", "[1]", "!!omap [a: 1]", "2020-01-01"):
        said = "is a mapping, not a value" if ":" in value or value == "{}" else "Input should be 1, 4 or 8"
        PLAN.write_text(f"evaluate: {{views: {value}, tile: 0}}")
        with pytest.raises(ParamsError, match=rf"plan\.yaml: evaluate\.views = .*{said}.*run `dvc repro`"):
            params.read(params.Evaluate)
    PLAN.write_text("evaluate: {")
    with pytest.raises(ParamsError, match=r"(?s)plan\.yaml.*run `dvc repro`, which restores"):
        params.read(params.Evaluate)


@pytest.mark.parametrize(
    "text",
    ["train.tile: auto", "train: {schedule.kind: auto}", "{train: null, train.tile: auto}", "train: {tile: [auto]}"],
)
@pytest.mark.usefixtures("project")
def test_only_a_setting_in_its_section_can_be_auto(text: str) -> None:
    Path("params.yaml").write_text(f"{text}\n")
    with pytest.raises(ParamsError, match=r"params\.yaml: train"):
        params.read(params.Train)


@pytest.mark.parametrize(
    "text",
    [
        "augment: {min_scale: 1.12, max_scale: auto}",
        "augment: {min_scale: auto, max_scale: 0.88}",
        "tune: {trials: auto, space: {}}",
        "weights: {kind: auto, density_border: 3}",
    ],
)
@pytest.mark.usefixtures("project")
def test_a_value_is_not_compared_with_the_default_of_a_setting_that_is_auto(text: str) -> None:
    Path("params.yaml").write_text(f"{text}\n")
    assert params.read(params.Gate) == params.Gate()
    PLAN.parent.mkdir(parents=True)
    PLAN.write_text("{augment: {min_scale: 0.9, max_scale: 0.95}, tune: {trials: 3}, weights: {kind: none}}")
    section = text.split(":", maxsplit=1)[0]
    with pytest.raises(ParamsError, match=f"params.yaml with the values of data/plan/plan.yaml: {section}"):
        params.read({"augment": params.Augment, "tune": params.Tune, "weights": params.Weights}[section])


@pytest.mark.parametrize("setting", ["train.seed", "train.keep_best", "model", "gate.margin", "tune.seed"])
@pytest.mark.usefixtures("project")
def test_only_settings_that_can_be_planned_may_be_auto(setting: str) -> None:
    write(**{setting: "auto"})
    with pytest.raises(ParamsError, match=setting.replace(".", r"\.") + " = 'auto'"):
        params.read(params.Gate)
