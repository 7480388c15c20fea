import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from segline.model import inference, normalisation, tiling
from segline.model.images import ImageError
from segline.model.inference import Description, Inference, Predictor
from segline.model.normalisation import Statistics
from segline.model.objects import Outputs, Separation
from segline.model.tiling import Source, make_view, undo_view
from segline.model.unet import UNet

STATISTICS = Statistics("uint8", 1, (0.5,), (0.25,))
CLASSES = {0: "background", 1: "a", 2: "b"}


def description(**network: object) -> Description:
    options = {"width": 16, "depth": 2, "padding": "valid", "norm": "batch", "upsampling": "transposed", "dropout": 0.5}
    return Description(options | network, CLASSES, "classes", STATISTICS)


def predictor(inference: Inference, **network: object) -> Predictor:
    torch.manual_seed(0)
    what = description(**network)
    net = what.build()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return Predictor(net, what, inference)


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 1), dtype=np.uint8)


def normalised_by_image(subject: Predictor, trained: Statistics) -> Predictor:
    what = replace(subject.description, statistics=trained, input_norm="image")
    return Predictor(subject.network, what, subject.inference)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("tile", [0, 64])
def test_an_image_is_normalised_by_its_own_mean_and_deviation(
    dtype: str, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge is a model whose training statistics are those that numpy computes on the image."""
    monkeypatch.setattr(normalisation, "SIDE", 40)
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    raw = (np.random.default_rng(3).random((90, 103, 1)) * top / 3).astype(dtype)
    exact = raw.astype(np.float64) / top
    subject = predictor(Inference(tile=tile), padding="same")
    own = replace(subject.description, statistics=Statistics(dtype, 1, (exact.mean(),), (exact.std(),)))
    expected = Predictor(subject.network, own, subject.inference).probabilities(raw)
    actual = normalised_by_image(subject, Statistics(dtype, 1, (0.9,), (0.1,))).probabilities(raw)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_exposure_and_offset_do_not_change_the_prediction_of_an_image_normalised_by_itself() -> None:
    raw = np.random.default_rng(3).integers(0, 100, (70, 81, 1), dtype=np.uint8)
    subject = normalised_by_image(predictor(Inference(tile=64)), STATISTICS)
    np.testing.assert_allclose(subject.probabilities(raw), subject.probabilities(2 * raw + 40), atol=1e-5)
    np.testing.assert_array_equal(
        subject.probabilities(np.full_like(raw, 7)), subject.probabilities(np.zeros_like(raw))
    )


def test_the_noise_of_an_empty_image_is_not_stretched_to_the_contrast_of_the_training_images() -> None:
    raw = np.random.default_rng(3).integers(0, 2, (40, 50, 1), dtype=np.uint8)  # a deviation of 0.5 / 255
    subject = normalised_by_image(predictor(Inference(), padding="same"), STATISTICS)
    own = subject.statistics(Source.of(raw))
    assert own.std == (0.02 * 0.25,)
    assert own.mean == pytest.approx((raw.mean() / 255,))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_with_values_that_are_not_finite_is_refused(value: float) -> None:
    raw = np.zeros((40, 50, 1), np.float32)
    raw[3, 4] = value
    trained = Statistics("float32", 1, (0.5,), (0.2,))
    with pytest.raises(ImageError, match="values that are not finite"):
        normalised_by_image(predictor(Inference(), padding="same"), trained).probabilities(raw)


def test_a_part_of_an_image_is_normalised_like_the_image() -> None:
    raw = image(64, 64)
    subject = normalised_by_image(predictor(Inference(), padding="same", norm="none"), STATISTICS)
    part = subject.probabilities(raw[:32], subject.statistics(Source.of(raw)))
    own = replace(subject.description, statistics=subject.statistics(Source.of(raw)), input_norm="dataset")
    expected = Predictor(subject.network, own, subject.inference).probabilities(raw[:32])
    np.testing.assert_array_equal(part, expected)


def test_a_grey_image_for_an_rgb_model_is_normalised_as_three_equal_channels() -> None:
    raw = image(40, 52)
    network = description(padding="same", depth=1).network
    what = Description(network, CLASSES, "classes", Statistics("uint8", 3, (0.5,) * 3, (0.2,) * 3), "image")
    subject = Predictor(what.build(), what, Inference())
    np.testing.assert_array_equal(subject.probabilities(raw), subject.probabilities(np.repeat(raw, 3, axis=2)))
    with pytest.raises(ImageError, match="the model was trained on uint8 with 3 channels"):
        subject.probabilities(raw.astype(np.uint16))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("norm", ["none", "weight", "batch"])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("shape", [(150, 203), (1, 1), (7, 160), (33, 5)])
def test_tiled_equals_whole(padding: str, norm: str, upsampling: str, shape: tuple[int, int]) -> None:
    options = {"padding": padding, "norm": norm, "upsampling": upsampling}
    raw = image(*shape)
    whole = predictor(Inference(), **options)
    tiled = predictor(Inference(tile=64), **options)
    a, b = whole.probabilities(raw), tiled.probabilities(raw)
    assert a.shape == (3, *shape)
    assert np.abs(a - b).max() <= 1e-5
    best = np.sort(a, axis=0)
    clear = best[-1] - best[-2] > 2e-5
    assert np.array_equal(whole.labels(raw)[clear], tiled.labels(raw)[clear])


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("shape", [(250, 203), (1, 7)])
def test_tiled_equals_whole_with_a_reduction(padding: str, shape: tuple[int, int]) -> None:
    raw = image(*shape)
    whole, tiled = (predictor(Inference(tile=tile), padding=padding, reduction=2) for tile in (0, 128))
    assert np.abs(whole.probabilities(raw) - tiled.probabilities(raw)).max() <= 1e-5


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("views", [1, 8])
def test_the_object_map_of_a_tiled_image_equals_that_of_the_whole(padding: str, views: int) -> None:
    raw = image(150, 203)
    whole, tiled = (
        predictor(Inference(tile=tile, views=views), padding=padding, object_map=True).outputs(raw) for tile in (0, 64)
    )
    assert whole.object_map is not None and tiled.object_map is not None
    assert whole.object_map.shape == (150, 203)
    assert whole.object_map.std() > 0.01
    assert np.abs(whole.object_map - tiled.object_map).max() <= 1e-5
    assert np.abs(whole.probabilities - tiled.probabilities).max() <= 1e-5
    np.testing.assert_allclose(whole.probabilities.sum(axis=0), 1, atol=1e-5)


def test_whole_equals_one_forward_pass_over_the_mirrored_image() -> None:
    """The naive oracle mirrors by numpy, runs one forward pass and crops once."""
    raw = image(80, 100)
    subject = predictor(Inference(), depth=2)
    size = [subject.network.geometry.at_least(side + 40) for side in (80, 100)]
    scaled = (raw[..., 0].astype(np.float32) / 255 - 0.5) / 0.25
    padded = np.pad(scaled, [(20, size[0] - 100), (20, size[1] - 120)], mode="reflect")
    with torch.no_grad():
        output = subject.network(torch.from_numpy(padded)[None, None]).softmax(1)[0, :, :80, :100].numpy()
    assert np.abs(output - subject.probabilities(raw)).max() <= 1e-6


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_instance_and_group_norm_get_the_whole_image(norm: str) -> None:
    raw = image(150, 140)
    whole, tiled = (predictor(Inference(tile=tile), norm=norm) for tile in (0, 64))
    assert np.array_equal(whole.probabilities(raw), tiled.probabilities(raw))


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_a_single_pixel_has_labels_whatever_the_norm(norm: str) -> None:
    assert predictor(Inference(), norm=norm, padding="same", depth=4).labels(image(1, 1)).shape == (1, 1)


@pytest.mark.parametrize(("width", "depth", "padding"), [(128, 6, "same"), (64, 7, "same"), (32, 7, "valid")])
def test_the_tile_for_a_large_image_is_legal(width: int, depth: int, padding: str) -> None:
    subject = predictor(Inference(), width=1, depth=depth, padding=padding)
    subject.network.channels_per_pixel = width
    size = subject._tile(3000, 3000)
    assert size is None or len(tiling.plan(3000, size, subject.network.geometry)) > 0


def test_a_large_image_is_tiled_within_the_memory_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = image(300, 310)
    subject = predictor(Inference(), padding="valid")
    whole = subject.probabilities(raw)
    sizes: list[torch.Size] = []
    subject.network.register_forward_pre_hook(lambda _m, inputs: sizes.append(inputs[0].shape))
    monkeypatch.setattr(inference, "MEMORY_BUDGET", 4 * inference.ACTIVATIONS * 16 * 150 * 150)
    assert np.abs(whole - subject.probabilities(raw)).max() <= 1e-5
    assert len(sizes) > 1
    assert all(s[0] * s[2] * s[3] <= 150 * 150 for s in sizes)


def test_eight_views_are_the_mean_over_the_dihedral_group() -> None:
    raw = image(60, 90)
    single, eight = predictor(Inference()), predictor(Inference(views=8))
    expected = np.zeros((3, 60, 90))
    for turns, mirrored in itertools.product(range(4), [False, True]):
        view = np.rot90(raw, turns)
        view = view[:, ::-1] if mirrored else view
        output = single.probabilities(np.ascontiguousarray(view))
        output = output[:, :, ::-1] if mirrored else output
        expected += np.rot90(output, -turns, axes=(1, 2)) / 8
    assert np.abs(eight.probabilities(raw) - expected).max() < 1e-6
    turned = np.ascontiguousarray(np.rot90(raw))
    assert np.abs(np.rot90(eight.probabilities(raw), axes=(1, 2)) - eight.probabilities(turned)).max() < 1e-6


def test_four_views_are_the_mean_over_the_mirrorings() -> None:
    raw = image(60, 90)
    single, four = predictor(Inference()), predictor(Inference(views=4))
    expected = np.zeros((3, 60, 90))
    for axes in [(), (0,), (1,), (0, 1)]:
        output = single.probabilities(np.ascontiguousarray(np.flip(raw, axes)))
        expected += np.flip(output, [axis + 1 for axis in axes]) / 4
    assert np.abs(four.probabilities(raw) - expected).max() < 1e-6


@given(st.integers(0, 7))
def test_a_view_can_be_undone(view: int) -> None:
    array = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    assert np.array_equal(undo_view(make_view(array, view), view), array)


def test_labels_by_threshold_and_by_argmax() -> None:
    p = np.array([[[0.5, 0.45, 0.3]], [[0.3, 0.3, 0.4]], [[0.2, 0.25, 0.3]]], np.float32)
    assert inference.to_labels(p, Inference()).tolist() == [[0, 0, 1]]
    assert inference.to_labels(p, Inference(0.52)).tolist() == [[0, 1, 1]]
    assert inference.to_labels(p, Inference(0.6)).tolist() == [[0, 0, 1]]


def test_the_segment_threshold_closes_a_faint_border_between_cells() -> None:
    cell = np.full((5, 9), 0.95, np.float32)
    cell[:, 4] = 0.1  # a border ...
    cell[2, 4] = 0.7  # ... that is faint in one place
    p = np.stack([1 - cell, cell])
    assert inference.to_labels(p, Inference())[2, 4] == 1
    closed = inference.to_labels(p, Inference(segment_threshold=0.8))
    assert np.array_equal(closed == 0, np.arange(9)[None].repeat(5, 0) == 4)


@pytest.mark.parametrize("separation", [None, Separation(), Separation(1.5, 20)])
def test_a_saved_predictor_answers_as_before(separation: Separation | None, tmp_path: Path) -> None:
    subject = predictor(Inference(0.3, 0.8, separation, 8, 64))
    subject.description.write(tmp_path / "model.json")
    subject.inference.write(tmp_path / "inference.json")
    weights = {name: tensor.contiguous() for name, tensor in subject.network.state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    loaded = inference.load(tmp_path)
    assert loaded.description == subject.description
    assert loaded.inference == subject.inference
    for before, after in zip(subject.predict(image(50, 51)), loaded.predict(image(50, 51)), strict=True):
        assert np.array_equal(before, after)


def test_with_a_separation_only_objects_are_foreground_with_one_class_each() -> None:
    p = np.zeros((3, 12, 30), np.float32)
    p[0] = 1
    p[:, 1:11, 1:11] = np.array([0.1, 0.8, 0.1])[:, None, None]
    p[:, 3:5, 3:5] = np.array([0.1, 0.4, 0.5])[:, None, None]  # a few pixels of another class
    p[:, 5, 20] = [0.2, 0.8, 0]  # a speck
    labels, objects = inference.interpret(Outputs(p), Inference(separation=Separation(1, 10)))
    assert np.array_equal(objects, np.pad(np.ones((10, 10), int), ((1, 1), (1, 19))))
    assert np.array_equal(labels, objects)
    labels, objects = inference.interpret(Outputs(p), Inference())
    assert np.array_equal(labels, p.argmax(axis=0))
    assert objects[1, 1] == 1
    assert objects[3, 3] == 2
    assert objects[5, 20] == objects.max() == 3


def test_the_network_is_built_from_its_description() -> None:
    assert isinstance(description().build(), UNet)
    assert description().build().head.out_channels == 3
