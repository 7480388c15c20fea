"""Search spaces: an invalid one is refused with the full name of the setting and the way out."""

from typing import Any

import pytest

from segline.model.geometry import SizeError
from segline.params import Axis, Model, Params, ParamsError, Tuned, check
from segline.train.space import SearchPlan, SpaceError, bounds, holds, operations


def plan(**sections: Any) -> SearchPlan:
    settings = check(Params, sections, "params.yaml")
    return SearchPlan(Tuned(model=settings.model, augment=settings.augment, train=settings.train), settings.tune)


RANGE = {"low": 1, "high": 2}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"weights.w0": RANGE},
            "tune.space.weights.w0 = .*cannot be searched, because weights belongs to a stage before the search",
        ),
        ({"evaluate.views": {"choices": [1, 8]}}, "evaluate is used only after training"),
        ({"runtime.threads": RANGE}, "runtime never changes a result"),
        ({"train.seed": RANGE}, "train.seed would select a lucky seed"),
        ({"train.epochs": RANGE}, "set tune.epochs"),
        ({"nonsense.w0": RANGE}, "nonsense is not a searchable section; choose from model, augment, train"),
        ({"train.rate": RANGE}, "rate is not a setting; choose from seed, epochs"),
        ({"train.schedule": RANGE}, "is a section; name one of its settings"),
        ({"model": RANGE}, "is a section; name one of its settings"),
        ({"model.width.more": RANGE}, "more is not a setting"),
        (
            {"train.learning_rate": {"low": 0, "high": 1}},
            "0.0 is not a valid value of train.learning_rate: .*greater than 0",
        ),
        ({"train.momentum": {"low": 0, "high": 1}}, "1.0 is not a valid value of train.momentum: .*less than 1"),
        ({"model.width": {"low": 1.5, "high": 2}}, "1.5 is not a valid value of model.width: .*valid integer"),
        ({"model.width": {"low": 1, "high": 2, "step": 0.5}}, "1.5 is not a valid value of model.width"),
        ({"model.norm": RANGE}, "is not a number, so it needs choices"),
        ({"model.norm": {"choices": ["batch", "layer"]}}, "'layer' is not a valid value of model.norm"),
        ({"model.norm": {"choices": []}}, r"tune.space.model.norm.choices = \[\]: .*at least 1 item"),
        ({"model.width": {"low": 1}}, "needs both low and high"),
        ({"model.width": {}}, "needs either low and high, or choices"),
        ({"model.width": {**RANGE, "choices": [1]}}, "needs either low and high, or choices"),
        ({"model.width": {"low": 3, "high": 2}}, "low 3 is larger than high 2; swap them"),
        (
            {"model.width": {**RANGE, "log": True, "step": 1}},
            "`log` is allowed only if `low` is above 0 and `step` is not set",
        ),
        ({"model.width": {**RANGE, "hihg": 2}}, "hihg is not a setting; choose from low, high, log, step, choices"),
        ({"model.width": 3}, "tune.space.model.width = 3: "),
        ({}, "space is empty; add the settings that the search may vary, or set trials to 0"),
        (
            {"train.schedule.kind": {"choices": ["poly", "cosine"]}, "train.schedule.gamma": {"low": 0.1, "high": 0.5}},
            "gamma is not used by any schedule kind in tune.space \\(poly, cosine\\); remove train.schedule.gamma",
        ),
    ],
)
def test_an_invalid_axis_is_refused_with_the_reason(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        plan(tune={"space": space})


def test_an_object_map_is_refused_with_the_objective_loss() -> None:
    space = {"model.object_map": {"choices": [False, True]}}
    plan(tune={"space": space})
    with pytest.raises(ParamsError, match=r"model\.object_map changes the loss itself"):
        plan(tune={"space": space, "objective": "minimize loss"})


def test_a_parameter_without_effect_on_the_schedule_is_refused() -> None:
    space = {"train.schedule.gamma": {"low": 0.1, "high": 0.5}}
    plan(tune={"space": space}, train={"schedule": {"kind": "step"}})
    with pytest.raises(
        SpaceError, match=r"gamma has no effect with train\.schedule\.kind = poly; remove it from the space, or add"
    ):
        plan(tune={"space": space})


def test_a_network_that_does_not_accept_the_tile_is_refused() -> None:
    plan(tune={"space": {"model.depth": {"low": 1, "high": 6}}})
    with pytest.raises(SizeError, match=r"with model\.depth = 7 train\.tile = 192 px does not fit"):
        plan(tune={"space": {"model.depth": {"low": 1, "high": 7}}})
    with pytest.raises(SizeError, match=r"with model\.padding = valid train\.tile = 192 px"):
        plan(tune={"space": {"model.padding": {"choices": ["same", "valid"]}}})


def test_an_encoder_that_does_not_go_with_the_other_settings_is_refused() -> None:
    space = {"model.encoder": {"choices": ["none", "resnet18"]}}
    plan(tune={"space": space})
    with pytest.raises(ParamsError, match=r"encoder resnet18 does not go with norm weight; set model.norm to batch"):
        plan(tune={"space": space}, model={"norm": "weight"})


@pytest.mark.parametrize(
    ("model", "left"),
    [
        ({}, ["model.norm", "model.width", "train.learning_rate"]),
        ({"encoder": "resnet18"}, ["model.width", "train.learning_rate"]),
        ({"name": "fcn8s", "encoder": "resnet18"}, ["train.learning_rate"]),
    ],
)
def test_a_trial_skips_what_the_encoder_decides(model: dict[str, Any], left: list[str]) -> None:
    space = {
        "train.learning_rate": {"low": 0.001, "high": 0.1},
        "model.norm": {"choices": ["batch", "weight"]},
        "model.width": {"choices": [8, 16]},
    }
    of = plan(tune={"space": space}, model=model)
    assert [axis.name for axis in of.axes("poly")] == left
    assert sorted(of.base_values()) == left


def test_settings_are_those_of_params_yaml_except_for_drawn_values() -> None:
    of = plan()
    drawn = of.settings({"train.schedule.gamma": 0.25, "model.width": 8})
    assert (drawn.train.schedule.gamma, drawn.model.width) == (0.25, 8)
    assert drawn.searched == ("model.width", "train.schedule.gamma", "train.tiles_per_epoch")
    assert of.settings({}) == of.base
    assert of.shortened(drawn).train.epochs == of.tune.epochs
    assert plan(tune={"epochs": 0}).epochs == of.base.train.epochs


@pytest.mark.parametrize(
    ("drawn", "tile", "tiles"),
    [
        ({"train.tile": 96}, 96, 400),
        ({"train.tile": 224}, 224, 72),
        ({"train.learning_rate": 0.01, "model.input_norm": "image"}, 192, 100),
        ({"train.tile": 96, "train.tiles_per_epoch": 10}, 96, 10),
        ({"train.tile": 5000}, 5000, 4),
    ],
)
def test_trials_with_other_tiles_compute_as_much(drawn: dict[str, Any], tile: int, tiles: int) -> None:
    """The work of a padded network is proportional to the area of a tile. Epochs have whole batches of four."""
    settings = plan(train={"tiles_per_epoch": 100}).settings(drawn).train
    assert (settings.tile, settings.tiles_per_epoch) == (tile, tiles)


@pytest.mark.parametrize(("drawn", "tile"), [(189, 204), (204, 204), (20, 188)])
def test_a_drawn_tile_becomes_one_that_the_network_takes(drawn: int, tile: int) -> None:
    """The legal sizes of the paper's network are 188 px and every 16 px more."""
    of = plan(model={"depth": 4, "padding": "valid"}, train={"tile": 572})
    assert of.settings({"train.tile": drawn}).train.tile == tile


def test_operations_are_those_of_the_paper() -> None:
    """One tile of 572 px needs 300.86 GFLOP, where a multiplication with its addition counts as two."""
    paper = Model(width=64, depth=4, padding="valid", norm="none")
    assert operations(paper, 572) / 1e9 == pytest.approx(300.86, abs=0.01)


def test_content_changes_with_every_setting_but_the_number_of_trials() -> None:
    assert plan(tune={"trials": 7}).content() == plan().content()
    assert plan(tune={"seed": 7}).content() != plan().content()
    assert plan(augment={"noise": 0}).content() != plan().content()


@pytest.mark.parametrize(
    ("axis", "inside", "outside"),
    [
        (Axis(name="model.width", low=4, high=13, step=4), (4, 8, 12), (3, 6, 13)),
        (Axis(name="augment.noise", low=0.1, high=0.4, step=0.1), (0.1, 0.2, 0.30000000000000004), (0.15, 0.5)),
        (Axis(name="train.momentum", low=0.1, high=0.4), (0.1, 0.25, 0.4), (0.05, 0.41)),
        (Axis(name="model.norm", choices=("none", "batch")), ("none", "batch"), ("group",)),
    ],
)
def test_an_axis_holds_its_values_only(axis: Axis, inside: tuple[Any, ...], outside: tuple[Any, ...]) -> None:
    assert [holds(axis, value) for value in inside] == [True] * len(inside)
    assert [holds(axis, value) for value in outside] == [False] * len(outside)


def test_the_upper_bound_is_a_whole_number_of_steps() -> None:
    assert bounds(Axis(name="model.width", low=4, high=13, step=4)) == (4, 12)
