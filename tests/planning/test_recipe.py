"""Plans for datasets of several kinds: each rule is tested on both sides of its limit."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from segline.model import geometry
from segline.params import PLANNED, Params, Tuned, nested
from segline.planning import recipe
from segline.planning.fingerprint import Fingerprint
from segline.planning.speed import NoMemoryError, Speed
from segline.train.space import SearchPlan
from segline.transforms import checked, probe

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


def planned(fixed: recipe.Fixed | None = None, **changes: Any) -> dict[str, Any]:
    return {choice.setting: choice.value for choice in recipe.choose(replace(CELLS, **changes), fixed or {})}


def length(speed: Speed, minutes: float, fixed: recipe.Fixed, batch_size: int = 4) -> dict[str, recipe.Choice]:
    choices = recipe.timed(lambda _: speed, minutes, batch_size, fixed)
    return {choice.setting: choice for choice in choices}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"model.input_norm": "dataset", "weights.kind": "paper", "augment.rotation": 180.0, "train.tile": 160}),
        ({"variety": 0.7}, {"model.input_norm": "dataset", "model.norm": "batch", "train.learning_rate": 0.003}),
        ({"variety": 0.7, "kind": "classes"}, {"model.input_norm": "dataset", "model.norm": "weight"}),
        ({"variety": 0.8}, {"model.input_norm": "image", "model.norm": "weight", "train.learning_rate": 0.003}),
        ({"direction": 0.5}, {"augment.rotation": 5.0}),
        ({"direction": 0.5, "images": 12}, {"augment.rotation": 180.0}),  # twelve images show 0.62 by chance
        ({"direction": 0.25, "images": 1000}, {"augment.rotation": 180.0}),
        ({"contact": 0.01}, {"weights.kind": "none", "model.object_map": False}),
        ({"contact": 0.5}, {"weights.kind": "paper", "weights.w0": 10.0, "model.object_map": False}),
        ({"contact": 0.7}, {"weights.kind": "falk2019", "weights.w0": 50.0, "model.object_map": True}),
        ({"kind": "classes"}, {"weights.kind": "none", "model.object_map": False}),
        ({"kind": "classes"}, {"weights.kind": "none", "weights.class_balance": 0.0, "evaluate.views": 4}),
        ({"kind": "boundaries"}, {"weights.kind": "none", "weights.class_balance": 0.0, "evaluate.views": 8}),
        ({"kind": "boundaries"} | WIDE, {"model.reduction": 1, "train.tile": 256}),
        ({"kind": "boundaries", "variety": 0.7}, {"model.norm": "batch", "train.monitor": "last"}),
        ({"kind": "boundaries", "variety": 0.8}, {"model.norm": "weight", "train.monitor": "last"}),
        (
            {"frequencies": (0.995, 0.005)},
            {"weights.density_balance": 0.4, "train.monitor": "loss", "tune.objective": "minimize loss"},
        ),
        ({"empty": 0.3}, {"weights.density_balance": 0.4, "train.monitor": "mean_iou"}),
        ({"diameters": (10.0, 20.0, 45.0)}, {"augment.min_scale": 0.7, "augment.max_scale": 1.4, "train.tile": 192}),
        (WIDE, {"model.reduction": 2, "train.tile": 512, "model.depth": 4}),
        (WIDE | {"width": 11.0}, {"model.reduction": 1, "train.tile": 256}),
        ({"diameters": (21.0, 30.0, 40.0)}, {"model.reduction": 2, "train.tile": 192, "model.depth": 3}),
        ({"diameters": (21.0, 30.0, 40.0), "width": 11.0}, {"model.reduction": 1, "train.tile": 160}),
        ({"diameters": (), "side": 90}, {"train.tile": 96, "model.depth": 3, "model.reduction": 1}),
        ({"diameters": (), "side": 900}, {"train.tile": 256}),
        ({"contrast": 0.004}, {"augment.noise": 0.0004, "augment.brightness": 0.0012}),
        ({}, {"augment.extra": [{"RandomGamma": {"gamma_limit": [80, 125]}}], "augment.extra_probability": 0.3}),
        ({"dtype": "float32"}, {"augment.extra": []}),
    ],
)
def test_a_setting_follows_from_the_data(changes: dict[str, Any], expected: dict[str, object]) -> None:
    plan = planned(**changes)
    assert {name: plan[name] for name in expected} == expected


def test_images_without_any_contrast_leave_brightness_and_noise_at_their_defaults() -> None:
    plan, default = planned(contrast=0.0), Params().augment
    assert (plan["augment.noise"], plan["augment.brightness"]) == (default.noise, default.brightness)


def test_the_plan_has_a_value_for_each_setting_that_may_be_auto() -> None:
    for trials in (0, 1, 6):
        names = {*planned(), *length(Speed({"off": 0.1}), 10, {"tune.trials": trials})}
        assert names == set(PLANNED)
    assert {*planned(), *recipe.TIMED, *recipe.LIMITS} == set(PLANNED)
    assert len(planned()) + len(recipe.TIMED) + len(recipe.LIMITS) == len(PLANNED)


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        ({"train.tile": 320}, {"train.tile": 320, "model.depth": 4, "augment.elastic_sigma": 6.7}),
        ({"model.reduction": 2}, {"train.tile": 192, "model.depth": 3}),
        ({"train.tile": 200}, {"train.tile": 200, "model.depth": 3}),  # 200 is no multiple of 16
        ({"train.tile": 100}, {"train.tile": 100, "model.depth": 2}),
        ({"model.reduction": 4}, {"train.tile": 384, "model.reduction": 4}),
        ({"model.depth": 5}, {"train.tile": 160}),
        ({"augment.extra": [{"Blur": {}}]}, {"augment.extra": [{"Blur": {}}], "augment.extra_probability": 1.0}),
        ({"model.depth": 6}, {"train.tile": 192}),
        ({"model.norm": "none"}, {"train.learning_rate": 0.0015}),
        (
            {"model.encoder": "resnet34"},
            {"model.depth": 5, "model.reduction": 1, "model.norm": "batch", "train.learning_rate": 0.003},
        ),
        ({"model.encoder": "vgg16", "model.norm": "none"}, {"model.depth": 4, "train.learning_rate": 0.0015}),
        ({"model.encoder": "resnet18", "train.tile": 168}, {"train.tile": 168, "model.depth": 3}),
        (
            {"model.encoder": "vgg11", "model.encoder_weights": "vgg11_bn.pth"},
            {"model.norm": "batch", "train.learning_rate": 0.001},
        ),
        ({"model.name": "fcn8s", "model.encoder": "resnet50", "model.width": 9}, {"train.tile": 160}),
        ({"weights.kind": "falk2019"}, {"weights.kind": "falk2019", "weights.w0": 50.0, "weights.sigma": 6.0}),
        # 160 px of output and 44 px of context on each side; legal sizes are 28 + 8k
        ({"model.padding": "valid", "model.depth": 3}, {"train.tile": 252}),
    ],
)
def test_choices_follow_from_the_values_of_the_user(fixed: dict[str, object], expected: dict[str, object]) -> None:
    plan = planned(fixed)
    assert {name: plan[name] for name in expected} == expected
    model = Params.model_validate(nested(plan | fixed)).model
    geometry.of(**model.network).check(plan["train.tile"])


@pytest.mark.parametrize("kind", ["instances", "classes", "boundaries"])
@pytest.mark.parametrize("side", [8, 40, 100, 3000])
@pytest.mark.parametrize("diameters", [(), (1.0, 1.0, 1.0), (3.0, 50.0, 900.0)])
def test_every_plan_is_valid_and_gives_a_reason(kind: str, side: int, diameters: tuple[float, ...]) -> None:
    choices = recipe.choose(replace(CELLS, kind=kind, side=side, diameters=diameters), {})  # type: ignore[arg-type]
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
        geometry.of(**model.network).check(settings.train.tile, "tile")
        SearchPlan(Tuned(model=model, augment=settings.augment, train=settings.train), settings.tune)
        assert settings.evaluate.tile == 0


@pytest.mark.parametrize("channels", range(1, 6))
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_planned_transforms_suit_every_kind_of_image(dtype: str, channels: int) -> None:
    entries = planned(dtype=dtype, channels=channels)["augment.extra"]
    assert bool(entries) == (dtype != "float32")
    if entries:
        probe(checked(entries), dtype, channels, 64)


@pytest.mark.parametrize(
    ("minutes", "expected", "tiles"),
    [(10, 16, 19_200), (20, 16, 38_400), (45, 32, 21_600), (60, 32, 28_800), (10_000, 64, 1_200_000)],
)
def test_the_network_is_as_wide_as_the_time_allows(minutes: float, expected: int, tiles: int) -> None:
    """A machine with 40, 10 and 2.5 tiles per second."""
    speeds = {16: Speed({"off": 0.1}), 32: Speed({"off": 0.4}), 64: Speed({"off": 1.6})}
    choice = recipe.timed(speeds.__getitem__, minutes, 4, {})[0]
    assert choice.value == expected
    assert f"{tiles:,} tiles" in choice.reason
    own = recipe.timed({5: Speed({"off": 1})}.__getitem__, minutes, 4, {"model.width": 5})[0]
    assert (own.value, own.reason) == (5, recipe.FIXED)


@pytest.mark.parametrize("trials", [0, 1, 3, 100])
@pytest.mark.parametrize("minutes", [0.01, 1, 10, 600])
@pytest.mark.parametrize("seconds", [0.01, 0.5, 20])
def test_search_and_training_fit_into_the_time(trials: int, minutes: float, seconds: float) -> None:
    speed = Speed({"off": seconds, "bf16": 2 * seconds})
    choices = length(speed, minutes, {} if trials == 3 else {"tune.trials": trials})
    plan: dict[str, Any] = {name: choice.value for name, choice in choices.items()}
    reasons = {name: choice.reason for name, choice in choices.items()}
    assert plan["train.amp"] == "off"
    assert plan["tune.trials"] in ((0, 3) if trials == 3 else (trials,))
    own, trials = trials != 3, plan["tune.trials"]
    per_epoch, in_trial = plan["train.tiles_per_epoch"] // 4, plan["tune.epochs"]
    steps = per_epoch * (plan["train.epochs"] + trials * in_trial)
    took = steps * seconds / 0.8 / 60
    assert f"about {took:.2g} minutes" in reasons["train.epochs"]
    assert plan["train.minutes"] + plan["tune.minutes"] == pytest.approx(max(minutes, took), rel=0.01)
    assert plan["tune.minutes"] == pytest.approx(took * trials * in_trial * per_epoch / steps, rel=0.01)
    if steps == 1 or (own and trials and seconds * trials > 0.25 * 0.8 * 60 * minutes):
        return  # a training of one step is the shortest there is; and each trial that the user wants has a step
    assert 0.6 * 0.8 * 60 * minutes <= steps * seconds <= 0.8 * 60 * minutes
    if plan["train.epochs"] > 1 and not (own and trials):
        assert per_epoch >= 7  # ten, of which the search may take a quarter
    if trials:
        assert trials * in_trial * per_epoch <= 0.25 * 0.8 * 60 * minutes / seconds
        assert own or in_trial * per_epoch >= 25


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_a_reduction_of_the_user_is_kept_also_without_objects(reduction: int) -> None:
    for kind in ("instances", "classes", "boundaries"):
        plan = planned({"model.reduction": reduction}, kind=kind, diameters=())
        assert plan["model.reduction"] == reduction
        assert plan["train.tile"] % (8 * reduction) == 0


def test_a_tile_that_does_not_fit_a_larger_reduction_is_kept() -> None:
    plan = planned({"train.tile": 200}, **WIDE)
    assert (plan["model.reduction"], plan["model.depth"]) == (2, 2)
    plan = planned({"train.tile": 202}, **WIDE)
    assert (plan["model.reduction"], plan["model.depth"]) == (1, 1)


@pytest.mark.parametrize(("rate", "expected"), [(20.0, 1), (8.4, 1), (8.3, 2), (2.1, 2), (2.0, 4), (0.1, 4)])
def test_the_resolution_falls_until_there_is_time_for_enough_tiles(rate: float, expected: int) -> None:
    """A machine with `rate` tiles per second at the full resolution, and four times as many at half of it."""

    def speed_of(choices: Sequence[recipe.Choice], width: int) -> Speed:
        (factor,) = (choice.value for choice in choices if choice.setting == "model.reduction")
        return Speed({"off": 4 / rate / factor**2 * (width / 16) ** 2})

    lines = replace(CELLS, kind="boundaries", diameters=(), side=900)
    plan = {choice.setting: choice for choice in recipe.complete(lines, {}, 10, speed_of)}
    assert plan["model.reduction"].value == expected
    assert plan["train.tile"].value == 256
    assert ("too short" in plan["model.reduction"].reason) == (expected > 1)
    own = ({"model.reduction": 1}, {"train.tile": 100}, {"train.epochs": 9, "train.tiles_per_epoch": 99})
    for fixed in own:
        kept = {choice.setting: choice.value for choice in recipe.complete(lines, fixed, 10, speed_of)}
        assert kept["model.reduction"] == 1


def test_a_wider_network_that_needs_too_much_memory_is_not_chosen() -> None:
    def speed_of(width: int) -> Speed:
        if width > 16:
            raise NoMemoryError("too large")
        return Speed({"off": 0.001})

    assert recipe.timed(speed_of, 100, 4, {})[0].value == 16
    with pytest.raises(NoMemoryError):
        recipe.timed(speed_of, 100, 4, {"model.width": 32})


@pytest.mark.parametrize("minutes", [3, 10, 600])
@pytest.mark.parametrize("trial_epochs", [None, 0, 1, 4])
@pytest.mark.parametrize("epochs", [None, 2, 20])
@pytest.mark.parametrize("tiles", [None, 40, 400])
@pytest.mark.parametrize("trials", [None, 2])
def test_the_time_is_kept_with_any_values_of_the_user(
    minutes: float, trial_epochs: int | None, epochs: int | None, tiles: int | None, trials: int | None
) -> None:
    names = ("tune.epochs", "train.epochs", "train.tiles_per_epoch", "tune.trials")
    own = {
        name: value
        for name, value in zip(names, (trial_epochs, epochs, tiles, trials), strict=True)
        if value is not None
    }
    plan = {name: choice.value for name, choice in length(Speed({"off": 0.1}), minutes, own).items()}
    assert {name: plan[name] for name in own} == own
    assert (plan["train.minutes"] == 0) == (epochs is not None)
    assert (plan["tune.minutes"] == 0) == (plan["tune.trials"] == 0 or None not in (trials, trial_epochs))
    numbers = [value for name in names if isinstance(value := plan[name], int)]
    in_trial, of_training, per_epoch, searched = numbers
    steps = (of_training + searched * (in_trial or of_training)) * per_epoch // 4
    if "train.tiles_per_epoch" in own and len(own) > 1:
        return  # too little is left to choose
    assert 0.5 * 0.8 * 60 * minutes / 0.1 <= steps <= 0.8 * 60 * minutes / 0.1 + 1e-6


def test_epochs_and_tiles_of_the_user_are_kept_and_the_rest_follows() -> None:
    """Ten minutes at 0.1 s a step are 4,800 steps for training and search, and 3,600 for training."""
    speed = Speed({"off": 0.1})
    plan = length(speed, 10, {"train.epochs": 9, "tune.trials": 0})
    assert (plan["train.epochs"].value, plan["train.tiles_per_epoch"].value) == (9, 4 * (4800 // 9))
    plan = length(speed, 10, {"train.tiles_per_epoch": 400})
    assert (plan["train.epochs"].value, plan["train.tiles_per_epoch"].value) == (36, 400)
    assert (plan["tune.trials"].value, plan["tune.epochs"].value) == (3, 4)
    plan = length(speed, 10, {"train.tiles_per_epoch": 400, "train.epochs": 3, "tune.epochs": 1, "tune.trials": 2})
    assert [plan[name].value for name in ("train.epochs", "train.tiles_per_epoch", "tune.trials")] == [3, 400, 2]
    assert "about 1 minutes" in plan["train.epochs"].reason  # 500 steps of 0.1 s, and a fifth for the rest
