"""The setting augment.extra, judged by OpenCV, by tiles without it, and by the law of (seed, epoch, index)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from segline import params
from segline.data.tile_sampler import TrainingTiles, training_loader
from segline.model.images import RANGES
from segline.model.normalisation import Statistics
from segline.params import Augment, Params, ParamsError
from segline.transforms import Entry, TransformError, probe

STILL: dict[str, Any] = {
    "elastic_sigma": 0, "rotation": 0, "mirror": False, "min_scale": 1, "max_scale": 1,
    "brightness": 0, "contrast": 0, "noise": 0,
}  # fmt: skip
BLUR: Entry = {"GaussianBlur": {"blur_limit": [5, 5], "sigma_limit": [1.0, 1.0], "p": 1}}
SOME: tuple[Entry, ...] = (
    {"RandomGamma": {"p": 0.5}},
    {"ImageCompression": {"quality_range": [30, 60], "p": 0.5}},
    {"CoarseDropout": {"p": 0.5}},
)


def tiles(extra: tuple[Entry, ...], dtype: str = "uint8", channels: int = 1, **augment: Any) -> TrainingTiles:
    """Return tiles of 32 px, with an output of 24 px, from an image of random values."""
    rng = np.random.default_rng(5)
    image = (rng.random((60, 70, channels)) * RANGES[dtype]).astype(dtype)
    target = rng.integers(0, 3, (60, 70)).astype(np.uint8)
    return TrainingTiles(
        [image],
        [target],
        [rng.random((60, 70), np.float32)],
        statistics=[Statistics(dtype, channels, (0.0,) * channels, (1.0,) * channels)],
        settings=Augment(extra=extra, **augment),
        tile=32,
        output=24,
        tiles_per_epoch=6,
        seed=2,
    )


def equal(one: tuple[npt.NDArray[Any], ...], other: tuple[npt.NDArray[Any], ...]) -> list[bool]:
    return [np.array_equal(mine, yours) for mine, yours in zip(one, other, strict=True)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("uint8", 1 / 255), ("uint16", 1e-6)])
def test_a_blur_is_that_of_opencv(dtype: str, tolerance: float) -> None:
    plain, blurred = tiles((), dtype, 3, **STILL), tiles((BLUR,), dtype, 3, **STILL)
    for number in range(6):
        expected = cv2.GaussianBlur(np.moveaxis(plain[number][0], 0, -1), (5, 5), 1.0)
        np.testing.assert_allclose(np.moveaxis(blurred[number][0], 0, -1), expected, atol=tolerance)


def test_only_pixel_values_of_the_image_change() -> None:
    plain, changed = tiles(()), tiles(SOME)
    same = [equal(plain[number], changed[number]) for number in range(60)]
    assert all(target and weights for _, target, weights in same)
    images = [image for image, _, _ in same]
    assert 1 <= sum(images) <= 20  # no transform is applied to one tile in eight


def test_transforms_of_equal_probability_are_applied_independently() -> None:
    extra = ({"InvertImg": {"p": 0.5}}, {"CoarseDropout": {"fill": 128, "p": 0.5}})
    plain, changed = tiles((), **STILL), tiles(extra, **STILL)
    seen = set()
    for number in range(60):
        before, after = plain[number][0], changed[number][0]
        share_inverted, share_same = np.isclose(after, 1 - before).mean(), np.isclose(after, before).mean()
        inverted, dropped = share_inverted > 0.3, max(share_inverted, share_same) < 1
        seen.add((bool(inverted), bool(dropped)))
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


@pytest.mark.parametrize(("probability", "fewest", "most"), [(0, 0, 0), (0.5, 40, 80), (1, 120, 120)])
def test_the_share_of_changed_tiles(probability: float, fewest: int, most: int) -> None:
    plain, changed = tiles(()), tiles(({"InvertImg": {"p": 1}},), extra_probability=probability)
    count = sum(not np.array_equal(plain[number][0], changed[number][0]) for number in range(120))
    assert fewest <= count <= most


def test_batches_do_not_depend_on_the_number_of_workers() -> None:
    def batches(workers: int) -> list[Any]:
        return list(training_loader(tiles(SOME), batch_size=2, epochs=range(2), workers=workers))

    for ours, theirs in zip(batches(0), batches(2), strict=True):
        assert all((mine == yours).all() for mine, yours in zip(ours, theirs, strict=True))


def test_a_tile_depends_on_its_number_only() -> None:
    forward, backward = tiles(SOME), tiles(SOME)
    expected = {number: backward[number] for number in reversed(range(12))}
    assert all(all(equal(forward[number], expected[number])) for number in range(12))
    assert len({forward[number][0].tobytes() for number in range(12)}) == 12


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([{"GausBlur": {}}], "'GausBlur' is not a transform of albumentations"),
        ([{"Compose": {}}], "'Compose' is not a transform of albumentations"),
        ([{"Rotate": {}}], "Rotate may move pixels, so that labels would not fit the image"),
        ([{"GaussianBlur": {"blurr": 3}}], r"GaussianBlur: Argument\(s\) 'blurr' are not valid"),
        ([{"MedianBlur": {"size": 3}}], "MedianBlur: .*unexpected keyword argument 'size'"),
        ([{"GaussianBlur": {"p": 2}}], "GaussianBlur: p: Input should be less than or equal to 1"),
        ([{"PlanckianJitter": {"temperature_limit": [3, 5]}}], "PlanckianJitter: Temperature limits"),
        ([{"Normalize": {"mean": None}}], "Normalize: "),
        ([{"ImageOnlyTransform": {}}], "'ImageOnlyTransform' is not a transform of albumentations"),
        ([{"HistogramMatching": {}}], "HistogramMatching needs hm_metadata"),
        ([{"CLAHE": {}, "Blur": {}}], "write each transform as NAME: {ARGUMENT: VALUE}"),
        ([{"CLAHE": 3}], "write each transform as NAME: {ARGUMENT: VALUE}"),
        (["CLAHE"], "write each transform as NAME: {ARGUMENT: VALUE}"),
        ({"CLAHE": {}}, "write a list of transforms"),
    ],
)
def test_an_invalid_list_is_refused_when_params_yaml_is_read(extra: Any, message: str) -> None:
    with pytest.raises(ParamsError, match=message) as failure:
        params.check(Params, {"augment": {"extra": extra}}, "params.yaml")
    assert "params.yaml: augment.extra" in str(failure.value)


def test_arguments_may_be_left_out() -> None:
    assert Augment(extra=[{"CLAHE": None}]).extra == Augment(extra=[{"CLAHE": {}}]).extra == ({"CLAHE": {}},)
    assert Augment(extra=None).extra == ()


@pytest.mark.parametrize(
    ("dtype", "channels", "extra", "message"),
    [
        ("uint8", 1, SOME, None),
        ("uint8", 3, [{"PixelDropout": {}}, {"HEStain": {"method": "preset"}}], None),
        ("uint16", 2, SOME[::2], None),
        ("uint8", 1, [{"HEStain": {}}], r"augment\.extra: HEStain cannot be used for uint8 images with 1 channel"),
        ("uint8", 3, [{"HEStain": {"method": "macenko"}}], "No tissue pixels found"),
        ("uint16", 5, [{"CLAHE": {}}], r"augment\.extra: CLAHE cannot be used for uint16 images with 5 channel"),
        ("uint8", 3, [{"Normalize": {}}], "it changes the type or the shape"),
        ("uint16", 3, [{"Normalize": {}}], "its results are outside the range of the images"),
        ("uint16", 1, [{"ImageCompression": {}}], "it reduces 16 bits to 8 bits"),
        ("uint8", 1, [{"HueSaturationValue": {}}], "not applicable to grayscale"),
        ("uint8", 1, [{"ChannelShuffle": {}}], "it has no effect"),
        ("uint8", 1, [{"GridDropout": {"unit_size_range": [40, 50]}}], "GridDropout cannot be used"),
        ("float32", 1, [BLUR], "cannot be used for float32 images"),
    ],
)
def test_a_transform_that_the_images_do_not_support_is_named(
    dtype: str, channels: int, extra: list[Entry], message: str | None
) -> None:
    if message is None:
        probe(extra, dtype, channels, 32)
        return
    with pytest.raises(TransformError, match=message):
        probe(extra, dtype, channels, 32)
    with pytest.raises(TransformError, match=message):
        tiles(tuple(extra), dtype, channels)


def test_the_size_of_a_tile_counts() -> None:
    probe([{"GridDropout": {"unit_size_range": [80, 100]}}], "uint8", 1, 192)


def test_a_transform_that_does_not_follow_the_seed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    invert = albumentations.InvertImg.apply
    monkeypatch.setattr(albumentations.InvertImg, "apply", lambda *a, **k: invert(*a, **k) // (1 + next(numbers)))
    with pytest.raises(TransformError, match=r"InvertImg .*equal seeds give different results"):
        probe([{"InvertImg": {}}], "uint8", 1, 32)


def test_the_list_itself_cannot_be_searched() -> None:
    space = {"augment.extra": {"choices": ["CLAHE"]}}
    with pytest.raises(ParamsError, match=r"is a list; search augment\.extra_probability instead"):
        params.check(Params, {"tune": {"space": space}}, "params.yaml")
    params.check(Params, {"tune": {"space": {"augment.extra_probability": {"low": 0, "high": 1}}}}, "params.yaml")


def test_albumentations_is_imported_only_for_a_list_with_transforms(repository: Path) -> None:
    code = (
        "import sys; from segline.params import Augment; Augment(); print('albumentations' in sys.modules); "
        "Augment(extra=[{'CLAHE': {}}]); print('albumentations' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(repository / "src")}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.split() == ["False", "True"]
