"""Plans for datasets of several kinds: each rule is tested on both sides of its limit."""

from dataclasses import replace
from typing import Any

import pytest

from segline.model.geometry import Geometry
from segline.params import Params, Train, Tune
from segline.planning import recipe
from segline.planning.fingerprint import Fingerprint
from segline.planning.speed import Speed

CELLS = Fingerprint(
    kind="instances",
    classes=2,
    channels=1,
    dtype="uint8",
    images=24,
    looked_at=24,
    side=300,
    smallest=256,
    largest=400,
    contrast=0.1,
    variety=0.3,
    frequencies=(0.7, 0.3),
    empty=0.0,
    objects=40,
    diameters=(20.0, 30.0, 40.0),
    elongation=1.5,
    contact=0.5,
    width=20.0,
    direction=0.02,
)


def planned(**changes: Any) -> dict[str, object]:
    return {choice.setting: choice.value for choice in recipe.choose(replace(CELLS, **changes))}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"model.input_norm": "dataset", "weights.kind": "paper", "augment.rotation": 180.0, "train.tile": 160}),
        ({"variety": 0.7}, {"model.input_norm": "dataset"}),
        ({"variety": 0.8}, {"model.input_norm": "image"}),
        ({"direction": 0.5}, {"augment.rotation": 5.0}),
        ({"contact": 0.01}, {"weights.kind": "none"}),
        ({"kind": "classes"}, {"weights.kind": "none", "weights.class_balance": 0.0, "evaluate.views": 4}),
        ({"kind": "boundaries"}, {"weights.kind": "none", "weights.class_balance": 0.0, "evaluate.views": 8}),
        ({"frequencies": (0.995, 0.005)}, {"weights.density_balance": 0.4, "train.monitor": "loss"}),
        ({"empty": 0.3}, {"weights.density_balance": 0.4, "train.monitor": "mean_iou"}),
        ({"diameters": (10.0, 20.0, 45.0)}, {"augment.min_scale": 0.7, "augment.max_scale": 1.4, "train.tile": 192}),
        ({"diameters": (100.0, 150.0, 200.0), "side": 1000}, {"model.reduction": 2, "train.tile": 512}),
        ({"diameters": (100.0, 150.0, 200.0), "width": 2.0}, {"model.reduction": 1, "train.tile": 256}),
        ({"diameters": (), "side": 90}, {"train.tile": 96, "model.depth": 3}),
        ({"contrast": 0.004}, {"augment.noise": 0.0004, "augment.brightness": 0.0012}),
    ],
)
def test_a_setting_follows_from_the_data(changes: dict[str, Any], expected: dict[str, object]) -> None:
    assert {name: planned(**changes)[name] for name in expected} == expected


@pytest.mark.parametrize("kind", ["instances", "classes", "boundaries"])
@pytest.mark.parametrize("side", [8, 40, 100, 3000])
@pytest.mark.parametrize("diameters", [(), (1.0, 1.0, 1.0), (3.0, 50.0, 900.0)])
def test_every_plan_is_valid_and_gives_a_reason(kind: str, side: int, diameters: tuple[float, ...]) -> None:
    choices = recipe.choose(replace(CELLS, kind=kind, side=side, diameters=diameters))  # type: ignore[arg-type]
    names = [choice.setting for choice in choices]
    assert len(set(names)) == len(names)
    assert all(len(choice.reason) > 10 and "nan" not in choice.reason for choice in choices)
    content = Params().model_dump()
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


@pytest.mark.parametrize("trials", [0, 1, 6, 100])
@pytest.mark.parametrize("minutes", [0.1, 1, 10, 600])
@pytest.mark.parametrize("seconds", [0.01, 0.5, 20])
def test_search_and_training_fit_into_the_time(trials: int, minutes: float, seconds: float) -> None:
    speed = Speed({"off": seconds, "bf16": 2 * seconds})
    choices = recipe.length(speed, minutes, Train(batch_size=4), Tune(trials=trials))
    plan: dict[str, Any] = {choice.setting: choice.value for choice in choices}
    assert plan["train.amp"] == "off"
    steps = plan["train.tiles_per_epoch"] // 4 * (plan["train.epochs"] + trials * plan.get("tune.epochs", 0))
    least = plan["train.epochs"] + trials * plan.get("tune.epochs", 0)  # a step in each epoch
    assert steps * seconds <= max(60 * minutes, least * seconds)
    if steps > least:
        assert steps * seconds >= 0.4 * 60 * minutes
    assert ("tune.epochs" in plan) == (trials > 0)
