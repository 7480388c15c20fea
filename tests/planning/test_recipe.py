"""Plans for datasets of several kinds: each rule is tested on both sides of its limit."""

from dataclasses import replace
from typing import Any

import pytest

from segline.model.geometry import Geometry
from segline.params import Params, Train, Tune, Tuned
from segline.planning import recipe
from segline.planning.fingerprint import Fingerprint
from segline.planning.speed import Speed
from segline.train.space import SearchPlan

CELLS = Fingerprint(
    kind="instances",
    classes=2,
    channels=1,
    dtype="uint8",
    images=24,
    side=300,
    contrast=0.1,
    variety=0.3,
    frequencies=(0.7, 0.3),
    empty=0.0,
    objects=40,
    diameters=(20.0, 30.0, 40.0),
    contact=0.5,
    width=20.0,
    direction=0.02,
)
WIDE = {"diameters": (100.0, 150.0, 200.0), "side": 1000}


def planned(**changes: Any) -> dict[str, object]:
    return {choice.setting: choice.value for choice in recipe.choose(replace(CELLS, **changes))}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"model.input_norm": "dataset", "weights.kind": "paper", "augment.rotation": 180.0, "train.tile": 160}),
        ({"variety": 0.7}, {"model.input_norm": "dataset"}),
        ({"variety": 0.8}, {"model.input_norm": "image"}),
        ({"direction": 0.5}, {"augment.rotation": 5.0}),
        ({"direction": 0.5, "images": 12}, {"augment.rotation": 180.0}),  # twelve images show 0.62 by chance
        ({"direction": 0.25, "images": 1000}, {"augment.rotation": 180.0}),
        ({"contact": 0.01}, {"weights.kind": "none"}),
        ({"kind": "classes"}, {"weights.kind": "none", "weights.class_balance": 0.0, "evaluate.views": 4}),
        ({"kind": "boundaries"}, {"weights.kind": "none", "weights.class_balance": 0.0, "evaluate.views": 8}),
        ({"kind": "boundaries"} | WIDE, {"model.reduction": 1, "train.tile": 256}),
        (
            {"frequencies": (0.995, 0.005)},
            {"weights.density_balance": 0.4, "train.monitor": "loss", "tune.objective": "minimize loss"},
        ),
        ({"empty": 0.3}, {"weights.density_balance": 0.4, "train.monitor": "mean_iou"}),
        ({"diameters": (10.0, 20.0, 45.0)}, {"augment.min_scale": 0.7, "augment.max_scale": 1.4, "train.tile": 192}),
        (WIDE, {"model.reduction": 2, "train.tile": 512, "model.depth": 4}),
        (WIDE | {"width": 2.0}, {"model.reduction": 1, "train.tile": 256}),
        ({"diameters": (), "side": 90}, {"train.tile": 96, "model.depth": 3, "model.reduction": 1}),
        ({"diameters": (), "side": 900}, {"train.tile": 256}),
        ({"contrast": 0.004}, {"augment.noise": 0.0004, "augment.brightness": 0.0012}),
    ],
)
def test_a_setting_follows_from_the_data(changes: dict[str, Any], expected: dict[str, object]) -> None:
    plan = planned(**changes)
    assert {name: plan[name] for name in expected} == expected


def test_images_without_any_contrast_leave_brightness_and_noise_as_they_are() -> None:
    assert not {"augment.noise", "augment.brightness"} & set(planned(contrast=0.0))


@pytest.mark.parametrize("kind", ["instances", "classes", "boundaries"])
@pytest.mark.parametrize("side", [8, 40, 100, 3000])
@pytest.mark.parametrize("diameters", [(), (1.0, 1.0, 1.0), (3.0, 50.0, 900.0)])
def test_every_plan_is_valid_and_gives_a_reason(kind: str, side: int, diameters: tuple[float, ...]) -> None:
    choices = recipe.choose(replace(CELLS, kind=kind, side=side, diameters=diameters))  # type: ignore[arg-type]
    names = [choice.setting for choice in choices]
    assert len(set(names)) == len(names)
    assert all(choice.reason and "nan" not in choice.reason for choice in choices)
    # The plan is complete: it also suits a params.yaml whose other settings were made for another kind of training.
    other = Params().model_dump()
    other["weights"] |= {"kind": "paper", "density_border": 3}
    other["model"] |= {"padding": "valid", "reduction": 8}
    other["evaluate"]["tile"] = 188
    for content in (Params().model_dump(), other):
        for choice in choices:
            inner = content
            *path, last = choice.setting.split(".")
            for part in path:
                inner = inner[part]
            assert last in inner
            inner[last] = choice.value
        settings = Params(**content)
        model = settings.model
        Geometry(model.depth, model.padding, model.upsampling, model.reduction).check(settings.train.tile, "tile")
        SearchPlan(Tuned(model=model, augment=settings.augment, train=settings.train), settings.tune)
        assert settings.evaluate.tile == 0


@pytest.mark.parametrize(
    ("minutes", "expected", "tiles"),
    [(10, 16, 19_200), (20, 16, 38_400), (45, 32, 21_600), (60, 32, 28_800), (10_000, 64, 1_200_000)],
)
def test_the_network_is_as_wide_as_the_time_allows(minutes: float, expected: int, tiles: int) -> None:
    """A machine with 40, 10 and 2.5 tiles per second."""
    speeds = {16: Speed({"off": 0.1}), 32: Speed({"off": 0.4}), 64: Speed({"off": 1.6})}
    choice, speed = recipe.width(speeds.__getitem__, minutes, 4)
    assert (choice.value, speed) == (expected, speeds[expected])
    assert f"{tiles:,} tiles" in choice.reason


@pytest.mark.parametrize("trials", [0, 1, 6, 100])
@pytest.mark.parametrize("minutes", [0.01, 1, 10, 600])
@pytest.mark.parametrize("seconds", [0.01, 0.5, 20])
def test_search_and_training_fit_into_the_time(trials: int, minutes: float, seconds: float) -> None:
    speed = Speed({"off": seconds, "bf16": 2 * seconds})
    choices = list(recipe.length(speed, minutes, Train(batch_size=4), Tune(trials=trials)))
    plan: dict[str, Any] = {choice.setting: choice.value for choice in choices}
    reasons = {choice.setting: choice.reason for choice in choices}
    assert plan["train.amp"] == "off"
    assert plan["tune.trials"] in (0, trials or 6)
    trials = plan["tune.trials"]
    per_epoch, in_trial = plan["train.tiles_per_epoch"] // 4, plan.get("tune.epochs", 0)
    steps = per_epoch * (plan["train.epochs"] + trials * in_trial)
    assert f"about {steps * seconds / 0.8 / 60:.2g} minutes" in reasons["train.epochs"]
    assert ("tune.epochs" in plan) == (trials > 0)
    if steps == 1:
        return  # a training of one step is the shortest there is
    assert 0.6 * 0.8 * 60 * minutes <= steps * seconds <= 0.8 * 60 * minutes
    if plan["train.epochs"] > 1:
        assert per_epoch >= 7  # ten, of which the search may take a quarter
    if trials:
        assert trials * in_trial * per_epoch <= 0.25 * 0.8 * 60 * minutes / seconds
        assert in_trial * per_epoch >= 25
