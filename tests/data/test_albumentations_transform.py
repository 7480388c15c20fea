"""RandomDeformation, judged by the pure functions that it wraps and by the documented rules of albumentations."""

import albumentations
import numpy as np
import pytest

from segline.data.albumentations_transform import RandomDeformation
from segline.data.augment import draw, grid, warp
from segline.params import Augment

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (60, 50, 3), dtype=np.uint8)
MASK = RNG.integers(0, 4, (60, 50), dtype=np.uint8)
WEIGHTS = RNG.random((60, 50), dtype=np.float32)


def composition(**arguments):
    transform = RandomDeformation(tile=32, **arguments)
    return albumentations.Compose([transform], additional_targets={"weights": "mask"}, strict=True, seed=3)


def test_transform_equals_the_pure_functions_with_the_generator_of_albumentations():
    out = composition(elastic_sigma=4)(image=IMAGE, mask=MASK, weights=WEIGHTS)
    twin = composition(elastic_sigma=4).transforms[0].random_generator
    centre = int(twin.integers(60)), int(twin.integers(50))
    place = grid(draw(twin, Augment(elastic_sigma=4), 32, centre), 60, 50)
    np.testing.assert_array_equal(out["image"], warp(place, IMAGE, "linear"), strict=True)
    np.testing.assert_array_equal(out["mask"], warp(place, MASK, "nearest"), strict=True)
    np.testing.assert_array_equal(out["weights"], warp(place, WEIGHTS, "linear"), strict=True)


def test_a_seed_before_each_sample_determines_the_sample():
    one, other = composition(), composition()
    other(image=IMAGE)
    for compose in (one, other):
        compose.set_random_seed(12)
    np.testing.assert_array_equal(one(image=IMAGE)["image"], other(image=IMAGE)["image"])
    assert not np.array_equal(one(image=IMAGE)["image"], other(image=IMAGE[::-1])["image"])


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_transform_accepts_any_number_of_channels(channels):
    image = np.dstack([WEIGHTS] * channels)
    out = composition()(image=image, weights=WEIGHTS)
    assert out["image"].shape == (32, 32, channels)
    for channel in range(channels):
        np.testing.assert_allclose(out["image"][..., channel], out["weights"], atol=1e-6)


def test_unknown_arguments_and_targets_are_refused():
    with pytest.warns(UserWarning, match="sigma"):
        loose = RandomDeformation(tile=32, sigma=10)
    with pytest.raises(ValueError, match="sigma"):
        albumentations.Compose([loose], strict=True)
    with pytest.raises(ValueError, match="weight is not in available keys"):
        composition()(image=IMAGE, weight=WEIGHTS)
    with pytest.raises(ValueError, match="not masks; declare further targets"):
        composition()(image=IMAGE, masks=[MASK])
    with pytest.raises(ValueError, match="not weights; declare further targets"):
        albumentations.Compose([RandomDeformation(tile=32)])(image=IMAGE, weights=WEIGHTS)


@pytest.mark.parametrize("wrong", [{"min_scale": 2}, {"elastic_grid": 1}, {"rotation": 200}, {"tile": 0}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RandomDeformation(**wrong)


def test_transform_survives_serialisation():
    compose = composition(elastic_grid=5, elastic_sigma=3, rotation=20, mirror=False, min_scale=0.8, p=0.7)
    again = albumentations.from_dict(albumentations.to_dict(compose))
    for one in (compose, again):
        one.set_random_seed(1)
    assert again.transforms[0].settings == compose.transforms[0].settings
    assert (again.transforms[0].tile, again.transforms[0].p) == (32, 0.7)
    np.testing.assert_array_equal(compose(image=IMAGE)["image"], again(image=IMAGE)["image"])
