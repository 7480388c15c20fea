"""Tile samplers, judged by crops, by pixel counts, and by the law that a batch depends on seed, epoch and index."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from segline.data.borders import class_weights
from segline.data.density import Density, cells
from segline.data.tile_sampler import EpochBatches, TrainingTiles, ValidationTiles, training_loader
from segline.model.normalisation import Statistics, to_network
from segline.params import Augment

OFF = Augment(elastic_sigma=0, rotation=0, mirror=False, min_scale=1, max_scale=1, brightness=0, contrast=0, noise=0)
STATISTICS = Statistics("uint8", 1, (0.5,), (0.25,))


def dataset(*shapes, channels=1):
    """Make images, targets and weights whose values encode the number of the pixel."""
    images, targets, weights = [], [], []
    for height, width in shapes:
        numbers = np.arange(height * width).reshape(height, width)
        images.append(np.stack([numbers % 251] * channels, axis=-1).astype(np.uint8))
        targets.append((numbers % 3).astype(np.uint8))
        weights.append(numbers.astype(np.float32))
    return images, targets, weights


def training(arrays, augment=OFF, *, tile=12, output=6, tiles_per_epoch=8, seed=0, statistics=STATISTICS, **further):
    return TrainingTiles(
        *arrays,
        statistics=statistics if isinstance(statistics, list) else [statistics] * len(arrays[0]),
        settings=augment,
        tile=tile,
        output=output,
        tiles_per_epoch=tiles_per_epoch,
        seed=seed,
        **further,
    )


def validation(arrays, *, tile=12, output=6, most=10**6, **further):
    return ValidationTiles(
        *arrays, statistics=[STATISTICS] * len(arrays[0]), tile=tile, output=output, most=most, **further
    )


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right), strict=True)


@pytest.mark.parametrize(("tile", "output"), [(12, 12), (12, 6), (13, 5), (40, 40)])
def test_an_unchanged_sample_is_cut_from_one_place_of_all_arrays(tile, output):
    arrays = dataset((20, 17))
    tiles = training(arrays, tile=tile, output=output, tiles_per_epoch=40)
    padded = [np.pad(part[0], [(60, 60), (60, 60)] + [(0, 0)] * (part[0].ndim - 2), mode="reflect") for part in arrays]
    for image, target, weights in itertools.islice(tiles, 40):
        assert (image.shape, image.dtype) == ((1, tile, tile), np.float32)
        assert (target.shape, target.dtype) == ((output, output), np.uint8)
        assert (weights.shape, weights.dtype) == ((output, output), np.float32)
        # The weight of the centre is the number of its pixel, so the place of the tile is known.
        row, column = divmod(int(weights[output // 2, output // 2]), 17)
        window = [
            part[60 + row - side // 2 :, 60 + column - side // 2 :][:side, :side]
            for part, side in zip(padded, (tile, output, output), strict=True)
        ]
        assert_same((image, target, weights), (to_network(window[0], STATISTICS), window[1], window[2]))


def test_image_weights_and_target_of_an_augmented_sample_stay_aligned():
    # Image, weights and (rounded) target are the same smooth picture, so they must stay equal.
    picture = (100 + 50 * np.sin(np.arange(90) / 9)[:, None] + 50 * np.cos(np.arange(70) / 7)).astype(np.float32)
    arrays = [picture[..., None]], [picture.round().astype(np.uint8)], [picture]
    geometry = Augment(brightness=0, contrast=0, noise=0)
    tiles = training(arrays, geometry, tile=40, output=20, statistics=Statistics("float32", 1, (0,), (1,)))
    for image, target, weights in itertools.islice(tiles, 20):
        np.testing.assert_allclose(weights, image[0, 10:30, 10:30], atol=1e-3)
        # The picture changes by at most 9 for each pixel; half a pixel both ways and rounding stay below 10.
        assert np.abs(target - weights).max() < 10


@pytest.mark.parametrize("sample", [training, validation])
def test_the_object_map_is_cut_like_the_weights_and_the_other_arrays_stay_as_they_are(sample):
    images, targets, _ = dataset((40, 30), (25, 50))
    maps = [(image[..., 0] % 97).astype(np.uint8) for image in images]
    weights = [values.astype(np.float32) for values in maps]
    augment = {"augment": Augment()} if sample is training else {}
    plain = sample((images, targets, weights), **augment)
    tiles = sample((images, targets, weights), **augment, object_maps=maps)
    for (*others, object_map), expected in zip(itertools.islice(tiles, 12), itertools.islice(plain, 12), strict=True):
        assert_same(others, expected)
        assert object_map.dtype == np.float32
        used = expected[2] > 0  # validation tiles have weight 0 outside their share of the image
        np.testing.assert_allclose(object_map[used] * 255, expected[2][used], atol=0.51)  # uint8 is rounded


def test_tiles_cover_every_pixel_equally():
    # All centres are equally likely. With each centre once, tiles of 9 x 9 contain each pixel 81 times.
    height, width, side = 14, 11, 9
    arrays = dataset((height, width))
    counts = np.zeros(height * width)
    tiles = training(arrays, tile=side, output=side)
    for pixel in range(height * width):
        tiles._draw_place = lambda _, pixel=pixel: (0, divmod(pixel, width))
        counts += np.bincount(tiles[0][2].astype(int).ravel(), minlength=height * width)
    counts = counts.reshape(height, width) / side**2
    assert counts[1:-1, 1:-1].min() >= 1
    assert counts[1:-1, 1:-1].max() <= ((side + 1) / side) ** 2 + 1e-6
    # The mirror does not repeat the outermost line.
    assert counts[0, 1:-1].min() >= 0.5


def test_images_are_drawn_by_area_and_centres_uniformly():
    shapes = [(10, 10), (20, 30), (7, 1)]
    tiles = training(dataset(*shapes), tile=1, output=1, tiles_per_epoch=1)
    ends = np.cumsum([height * width for height, width in shapes])
    counts = np.zeros(ends[-1])
    for number in range(20 * ends[-1]):
        image, (row, column) = tiles._draw_place(np.random.default_rng((0, number)))
        assert 0 <= row < shapes[image][0]
        assert 0 <= column < shapes[image][1]
        counts[ends[image] - shapes[image][0] * shapes[image][1] + row * shapes[image][1] + column] += 1
    # Chi squared with 706 degrees of freedom: 706 +- 38.
    assert ((counts - 20) ** 2 / 20).sum() < 706 + 4 * 38


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint16", 2), ("float32", 3)])
def test_grey_values_change_in_units_of_the_range_before_normalisation(dtype, channels):
    images, targets, weights = dataset((30, 30), channels=channels)
    images = [image.astype(dtype) for image in images]
    statistics = Statistics(dtype, channels, (0.4,) * channels, (0.2,) * channels)
    brighter = OFF.model_copy(update={"brightness": 0.1})
    plain = training((images, targets, weights), statistics=statistics)
    changed = training((images, targets, weights), brighter, statistics=statistics)
    shifts = [changed[number][0] - plain[number][0] for number in range(50)]
    # Each tile has one shift of up to 0.1 of the range, which is half a standard deviation.
    assert max(shift.max() - shift.min() for shift in shifts) < 1e-4 * max(1, np.abs(plain[0][0]).max())
    means = np.array([shift.mean() for shift in shifts])
    assert np.abs(means).max() < 0.5 + 1e-3
    assert np.abs(means).max() > 0.45
    assert_same(changed[3][1:], plain[3][1:])


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_batches_are_the_same_for_any_number_of_workers_and_after_a_restart():
    tiles = training(dataset((40, 50), (30, 30)), Augment(), tiles_per_epoch=7, seed=3)
    undisturbed = list(training_loader(tiles, batch_size=3, epochs=range(3), workers=0))
    assert [len(batch[0]) for batch in undisturbed] == [3, 3, 1] * 3
    for workers in (1, 3):
        for batch, expected in zip(
            training_loader(tiles, batch_size=3, epochs=range(3), workers=workers), undisturbed, strict=True
        ):
            assert_same(batch, expected)
    for done, workers in [(1, 0), (2, 3)]:
        rest = training_loader(tiles, batch_size=3, epochs=range(done, 3), workers=workers)
        for batch, expected in zip(rest, undisturbed[3 * done :], strict=True):
            assert_same(batch, expected)
    numbered = np.concatenate([batch[0].numpy() for batch in undisturbed])
    assert len(np.unique(numbered.reshape(21, -1), axis=0)) == 21


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_persistent_workers_of_a_plain_loader_give_the_same_epochs():
    tiles = training(dataset((40, 50)), Augment(), tiles_per_epoch=6)
    sampler = EpochBatches(6, 2, range(0))
    loader = DataLoader(tiles, batch_sampler=sampler, num_workers=2, persistent_workers=True)
    for epoch in range(3):
        sampler.epochs = range(epoch, epoch + 1)
        for index, batch in enumerate(loader):
            for item in range(2):
                assert_same([part[item] for part in batch], tiles[6 * epoch + 2 * index + item])


def test_a_loader_does_not_change_the_global_random_state():
    tiles = training(dataset((40, 50)), Augment())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(training_loader(tiles, batch_size=2, epochs=range(2), workers=0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_other_tiles():
    arrays = dataset((40, 50))
    first, second = (training(arrays, Augment(), seed=seed)[0][0] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_ignored_pixels_have_weight_0_after_warping():
    images, targets, weights = dataset((40, 40))
    targets[0][10:30, 10:30] = 200
    weights[0][:] = 1
    weights[0][10:30, 10:30] = 0
    tiles = training((images, targets, weights), Augment(), tile=32, output=32, ignore=200)
    seen = 0
    for _, target, weight in itertools.islice(tiles, 8):
        assert not weight[target == 200].any()
        seen += (target == 200).sum()
    assert seen > 1000


@pytest.mark.parametrize("shapes", [[(12, 12)], [(13, 29), (6, 7), (3, 40), (1, 1)]])
@pytest.mark.parametrize(("tile", "output"), [(6, 6), (12, 6), (40, 6)])
def test_validation_counts_every_pixel_exactly_once(shapes, tile, output):
    arrays = dataset(*shapes)
    tiles = validation(arrays, tile=tile, output=output)
    counts = [np.zeros(shape, int) for shape in shapes]
    for place, (image, target, weights) in zip(tiles.places, (tiles[i] for i in range(len(tiles))), strict=True):
        assert (image.shape, image.dtype) == ((1, tile, tile), np.float32)
        assert (target.dtype, weights.dtype) == (np.uint8, np.float32)
        counted = target != 255
        assert not weights[~counted].any()
        row, column = np.nonzero(counted)
        at = (row + place.row, column + place.column)
        counts[place.image][at] += 1
        np.testing.assert_array_equal(target[counted], arrays[1][place.image][at])
        np.testing.assert_array_equal(weights[counted], arrays[2][place.image][at])
    for count in counts:
        assert (count == 1).all()


def test_validation_image_is_centred_on_its_output():
    arrays = dataset((30, 31))
    tiles = validation(arrays, tile=16, output=8)
    # Quarters of 30 rows and 31 columns, in the middle of 8 px, inside the image.
    assert {place.row for place in tiles.places} == {0, 7, 14, 22}
    assert {place.column for place in tiles.places} == {0, 7, 15, 23}
    assert {(len(place.rows), len(place.columns)) for place in tiles.places} == {(7, 7), (7, 8), (8, 7), (8, 8)}
    padded = np.pad(arrays[0][0], [(8, 8), (8, 8), (0, 0)], mode="reflect")
    for place, (image, _, _) in zip(tiles.places, (tiles[i] for i in range(len(tiles))), strict=True):
        window = padded[8 + place.row - 4 : 8 + place.row + 12, 8 + place.column - 4 : 8 + place.column + 12]
        np.testing.assert_array_equal(image, to_network(window, STATISTICS))


@pytest.mark.parametrize("most", [1, 2, 5, 11, 1000])
def test_validation_spreads_its_limited_tiles_over_all_images(most):
    arrays = dataset(*[(18, 18)] * 4, (36, 18))
    tiles = validation(arrays, most=most)
    assert len(tiles) == min(most, 4 * 9 + 18)
    assert len(set(tiles.places)) == len(tiles)
    assert tiles.places == validation(arrays, most=most).places
    per_image = np.bincount([place.image for place in tiles.places], minlength=5)
    assert np.abs(per_image - len(tiles) * np.array([9, 9, 9, 9, 18]) / 54).max() < 1


def test_validation_does_not_take_the_same_corner_of_every_image():
    tiles = validation(dataset(*[(12, 12)] * 16), most=16)
    assert len({place.image for place in tiles.places}) == 16
    assert len({(place.row, place.column) for place in tiles.places}) == 4


def test_validation_uses_the_ignore_id_of_the_dataset():
    images, targets, weights = dataset((4, 20))
    targets[0][:, :5] = 9
    tiles = validation((images, targets, weights), ignore=9)
    for index in range(len(tiles)):
        _, target, weight = tiles[index]
        assert set(np.unique(target)) <= {0, 1, 2, 9}
        assert not weight[target == 9].any()


def test_mismatched_arrays_are_refused():
    images, targets, weights = dataset((20, 20), (20, 20))
    with pytest.raises(ValueError, match="split has no images"):
        training(([], [], []))
    with pytest.raises(ValueError, match="output of 7 px cannot be centred in a tile of 12 px"):
        training((images, targets, weights), tile=12, output=7)
    with pytest.raises(ValueError, match="output of 14 px"):
        validation((images, targets, weights), tile=12, output=14)
    with pytest.raises(ValueError, match="2 images, 1 targets, 2 weight maps and 2 statistics"):
        training((images, targets[:1], weights))
    with pytest.raises(ValueError, match=r"image 1: .*\(20, 21\)"):
        validation((images, [targets[0], np.zeros((20, 21), np.uint8)], weights))


def test_each_image_is_normalised_by_its_own_statistics():
    arrays = dataset((20, 20), (20, 20))
    both = [Statistics("uint8", 1, (0.1,), (0.5,)), Statistics("uint8", 1, (0.7,), (0.2,))]
    for augment in (OFF, OFF.model_copy(update={"contrast": 0.5})):
        tiles = training(arrays, augment, statistics=both)
        for image, own in enumerate(both):
            alone = training([part[image : image + 1] for part in arrays], augment, statistics=own)
            tiles._draw_place = lambda _, image=image: (image, (10, 10))
            alone._draw_place = lambda _: (0, (10, 10))
            assert_same(tiles[3], alone[3])
    # Brightness and noise change both images alike, in units of their own deviation; their mean deviation is 0.35.
    flat = [[np.full((20, 20, 1), 100, np.uint8)] * 2, *arrays[1:]]
    for change in ({"brightness": 0.1}, {"noise": 0.1}):
        plain, changed = (training(flat, OFF.model_copy(update=more), statistics=both) for more in ({}, change))
        differences = []
        for image in range(2):
            for tiles in (plain, changed):
                tiles._draw_place = lambda _, image=image: (image, (10, 10))
            differences.append(changed[3][0] - plain[3][0])
        np.testing.assert_allclose(differences[0], differences[1], atol=1e-5)
        assert 0 < np.abs(differences[0]).mean() < 0.1 / 0.35 * 4
    fixed = ValidationTiles(*arrays, statistics=both, tile=20, output=20, most=9)
    for place, (image, _, _) in zip(fixed.places, (fixed[index] for index in range(2)), strict=True):
        np.testing.assert_array_equal(image, to_network(arrays[0][place.image], both[place.image]))


@pytest.mark.parametrize(
    "statistics", [Statistics("uint16", 1, (0,), (1,)), Statistics("uint8", 3, (0,) * 3, (1,) * 3)]
)
def test_images_that_differ_from_the_statistics_are_refused(statistics):
    with pytest.raises(
        ValueError,
        match=r"image 0 is uint8 with 1 channels, but the statistics are for uint(16|8) images with [13] channels",
    ):
        training(dataset((20, 20)), statistics=statistics)


def test_cutting_tiles_does_not_import_albumentations():
    code = "import sys, segline.data.tile_sampler; print('albumentations' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_the_uniform_draw_has_not_changed():
    arrays = dataset((20, 17), (33, 40), (5, 9))
    tiles = training(arrays, tiles_per_epoch=4, seed=3)
    # Recorded before the draw by density existed.
    assert [int(tiles[number][2][3, 3]) for number in range(10)] == [1043, 134, 22, 117, 7, 337, 965, 684, 1099, 710]
    rngs = [np.random.default_rng((3, 1, index)) for index in range(5)]
    expected = [(2, (0, 7)), (1, (8, 17)), (1, (24, 5)), (1, (17, 4)), (1, (6, 29))]
    assert [tiles._draw_place(rng) for rng in rngs] == expected


def rare(shape=(90, 70)):
    """Make an image with three classes, one of them in 50 of 6,300 pixels, and the density that balances them."""
    images, targets, weights = dataset(shape)
    targets[0][:] = np.arange(shape[1]) < 20
    targets[0][40:45, 30:40] = 2
    of_class = class_weights(np.bincount(targets[0].ravel()), 1)
    return (images, targets, weights), Density(of_class, targets, [cells(targets[0], 0.0, of_class)])


@pytest.mark.parametrize(("tile", "output"), [(12, 12), (12, 6)])
def test_a_balancing_density_centres_tiles_equally_on_each_class(tile, output):
    arrays, density = rare()
    tiles = training(arrays, tile=tile, output=output, tiles_per_epoch=100, density=density)
    middles = np.array([tiles[number][1][output // 2, output // 2] for number in range(3000)])
    np.testing.assert_allclose(np.bincount(middles, minlength=3) / 3000, 1 / 3, atol=4 * 0.5 / 3000**0.5)
    plain = training(arrays, tile=tile, output=output, tiles_per_epoch=100)
    assert np.mean([plain[number][1][output // 2, output // 2] == 2 for number in range(3000)]) < 0.02


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_batches_by_a_density_are_the_same_for_any_number_of_workers_and_after_a_restart():
    arrays, density = rare()
    tiles = training(arrays, Augment(), tiles_per_epoch=5, seed=3, density=density)
    undisturbed = list(training_loader(tiles, batch_size=2, epochs=range(3), workers=0))
    for workers, done in [(1, 0), (3, 1)]:
        loader = training_loader(tiles, batch_size=2, epochs=range(done, 3), workers=workers)
        for batch, expected in zip(loader, undisturbed[3 * done :], strict=True):
            assert_same(batch, expected)


def test_a_density_of_other_images_is_refused():
    arrays, density = rare()
    with pytest.raises(
        ValueError,
        match="there are 2 images, but the tile density in data/weights covers 1 images; "
        "run the DVC stage `weights` again",
    ):
        training([part * 2 for part in arrays], density=density)
