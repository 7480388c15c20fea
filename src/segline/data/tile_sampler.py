"""Cut tiles from prepared images: augmented tiles for training, fixed tiles for validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from segline.data.augment import Grid, draw, grey, grid, warp, window
from segline.data.dataset import IGNORE
from segline.data.density import Density
from segline.model.normalisation import Statistics, normalise, scale, to_network
from segline.params import Augment
from segline.transforms import applied, compose, probe

Array = npt.NDArray[Any]
# A sample holds the network input (C, n, n) float32, the target (m, m) uint8 and the weights (m, m) float32; if the
# network predicts the object map, also the object map (m, m) float32.
Sample = tuple[Array, ...]


class TrainingTiles(Dataset[Sample]):
    """Augmented training tiles. Seed, epoch and index determine each tile completely.

    The item ``epoch * tiles_per_epoch + index`` is the tile `index` of `epoch`, whichever process reads it and in
    whatever order. `training_loader` reads the items in ascending order.

    Without a density, the centre of a tile is uniform over the pixels of all images, so large images are chosen more
    often. Images are mirrored beyond their borders, so all pixels except the outermost are equally likely to be in a
    tile. The outermost pixels are half as likely, because the mirror does not repeat them.

    Parameters
    ----------
    images, targets, weights : one array of each kind for each image: (H, W, C) raw, (H, W) uint8 and (H, W) float32.
        The arrays may be memory-mapped; only the pixels that a tile needs are read.
    statistics : statistics that normalise each image.
    settings : kinds and limits of the augmentation.
    tile : side n of the network's input, px.
    output : side m of the network's output, px, centred in the input; n with same padding.
    tiles_per_epoch, seed : number of tiles in an epoch, and seed >= 0 of the random choices.
    ignore : class id whose pixels get weight 0.
    density : density of the centre of a tile over the pixels of these images.
    object_maps : object map (H, W) uint8 of each image, see `object_map`; None: samples have no object map.

    Raises
    ------
    ValueError
        There are no images, their arrays differ in size, they do not match the statistics or the density, the output
        is not centred in the tile, or a transform of `augment.extra` cannot be used for these images.
    """

    def __init__(
        self,
        images: Sequence[Array],
        targets: Sequence[Array],
        weights: Sequence[Array],
        *,
        statistics: Sequence[Statistics],
        settings: Augment,
        tile: int,
        output: int,
        tiles_per_epoch: int,
        seed: int,
        ignore: int | None = None,
        density: Density | None = None,
        object_maps: Sequence[Array] | None = None,
    ) -> None:
        _check(images, targets, weights, statistics=statistics, tile=tile, output=output)
        if density is not None and len(density) != len(images):
            raise ValueError(
                f"there are {len(images)} images, but the tile density in data/weights covers {len(density)} images; "
                "run the DVC stage `weights` again"
            )
        self.images, self.targets, self.weights = images, targets, weights
        self.density, self.object_maps = density, object_maps
        self.statistics = statistics
        self._units = _units(statistics)
        self.settings = settings
        self.tile, self.output = tile, output
        self.tiles_per_epoch = tiles_per_epoch
        self.seed = seed
        self.ignore = ignore
        if settings.extra:
            probe(settings.extra, statistics[0].dtype, statistics[0].channels, tile)
        self._extra = compose(settings.extra) if settings.extra else None
        self._ends = np.cumsum([image.shape[0] * image.shape[1] for image in images])

    def __len__(self) -> int:
        """Return the number of tiles in an epoch."""
        return self.tiles_per_epoch

    def __getitem__(self, number: int) -> Sample:
        epoch, index = divmod(number, self.tiles_per_epoch)
        rng = np.random.default_rng((self.seed, epoch, index))
        image, centre = self._draw_place(rng)
        parameters = draw(rng, self.settings, self.tile, centre)
        whole = grid(parameters, *self.images[image].shape[:2])
        inner = whole.inner(self.output)
        scaled = self._scaled(warp(whole, self.images[image], "linear"), rng)
        target = warp(inner, self.targets[image], "nearest")
        weights = warp(inner, self.weights[image], "linear")
        if self.ignore is not None:
            weights[target == self.ignore] = 0
        own = self.statistics[image]
        changed = grey(parameters, scaled, own.mean, self._units[image])
        return normalise(changed, own), target, weights, *_object_map(self.object_maps, image, inner)

    def _scaled(self, raw: Array, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Scale a tile (n, n, C) as `scale` does, and apply the transforms of the setting `augment.extra`.

        Few transforms of albumentations accept uint16, so uint16 tiles are scaled before the transforms. uint8 tiles
        are scaled after them.
        """
        if self._extra is None or rng.random() >= self.settings.extra_probability:
            return scale(raw)
        seed = int(rng.integers(2**63))
        if raw.dtype == np.uint8:
            return scale(applied(self._extra, raw, seed))
        return applied(self._extra, scale(raw), seed)

    def _draw_place(self, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
        """Sample a tile centre (image, pixel): from the density if there is one, else uniformly over all pixels."""
        if self.density is not None:
            return self.density.draw(rng)
        pixel = int(rng.integers(self._ends[-1]))
        image = int(np.searchsorted(self._ends, pixel, side="right"))
        start = int(self._ends[image - 1]) if image else 0
        row, column = divmod(pixel - start, self.images[image].shape[1])
        return image, (row, column)


class EpochBatches(Sampler[list[int]]):
    """Batches of tile numbers for all epochs, in order. The last batch of an epoch may be smaller.

    A batch never spans two epochs. The first `skip` batches of the first epoch are left out.
    """

    def __init__(self, tiles_per_epoch: int, batch_size: int, epochs: range, skip: int = 0) -> None:
        self.tiles_per_epoch = tiles_per_epoch
        self.batch_size = batch_size
        self.epochs = epochs
        self.skip = skip

    def __len__(self) -> int:
        """Return the number of batches in all epochs, without the first `skip` batches."""
        return len(self.epochs) * -(-self.tiles_per_epoch // self.batch_size) - self.skip

    def __iter__(self) -> Iterator[list[int]]:
        for place, epoch in enumerate(self.epochs):
            numbers = range(epoch * self.tiles_per_epoch, (epoch + 1) * self.tiles_per_epoch)
            first = 0 if place else self.skip * self.batch_size
            for start in range(first, self.tiles_per_epoch, self.batch_size):
                yield list(numbers[start : start + self.batch_size])


def training_loader(
    tiles: TrainingTiles, *, batch_size: int, epochs: range, workers: int, skip: int = 0
) -> "DataLoader[Sample]":
    """Return a loader for the batches of `epochs`, in order. The number of workers does not change the batches.

    One iterator serves all epochs, so workers start once and prepare the next epoch during validation. Use
    ``batches = iter(loader)``, then ``itertools.islice(batches, steps)`` for an epoch, where steps is
    ``ceil(tiles_per_epoch / batch_size)``. To resume, pass ``range(done, all)`` as epochs, and the number of finished
    batches of the first epoch as `skip`.
    """
    return DataLoader(
        tiles,
        batch_sampler=EpochBatches(len(tiles), batch_size, epochs, skip),
        num_workers=workers,
        worker_init_fn=_one_thread,
        # Do not let the loader use torch's global generator.
        # With the global generator, a resumed training run would differ from an uninterrupted training run.
        generator=torch.Generator(),
    )


def _one_thread(_worker: int) -> None:
    # Use one thread: OpenCV's threads do not survive the fork of a worker process, and workers run in parallel anyway.
    cv2.setNumThreads(0)


@dataclass(frozen=True)
class TilePlace:
    """Position of a validation tile: image number, and top left pixel of the network output for this tile.

    The output is used only for the rows `rows` and the columns `columns` of the image.
    """

    image: int
    row: int
    column: int
    rows: range
    columns: range


class ValidationTiles(Dataset[Sample]):
    """Fixed validation tiles without augmentation, at most `most` of them.

    If this number is large enough, the network outputs of the tiles cover all images.

    Every pixel is used at most once. Each tile uses an equal share of its image, in the middle of its output. The rest
    of the output has target `ignore` and weight 0: another tile uses these pixels, or they lie outside the image.

    Parameters
    ----------
    images, targets, weights, statistics, tile, output, object_maps : see `TrainingTiles`.
    most : largest number of tiles. If more tiles are possible, they are selected at even steps. The choice is always
        the same.
    ignore : class id of pixels that are never used; pass the ignored id of the dataset, if there is one.
    """

    def __init__(
        self,
        images: Sequence[Array],
        targets: Sequence[Array],
        weights: Sequence[Array],
        *,
        statistics: Sequence[Statistics],
        tile: int,
        output: int,
        most: int,
        ignore: int = IGNORE,
        object_maps: Sequence[Array] | None = None,
    ) -> None:
        _check(images, targets, weights, statistics=statistics, tile=tile, output=output)
        self.images, self.targets, self.weights = images, targets, weights
        self.statistics = statistics
        self.tile, self.output = tile, output
        self.ignore, self.object_maps = ignore, object_maps
        self.places = _even([_cover(number, image, output) for number, image in enumerate(images)], most)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        place = self.places[index]
        image = self.images[place.image]
        centre = place.row + self.output // 2, place.column + self.output // 2
        whole = window(centre, self.tile, *image.shape[:2])
        inner = whole.inner(self.output)
        target = warp(inner, self.targets[place.image], "nearest")
        weights = warp(inner, self.weights[place.image], "linear")
        counted = np.zeros(target.shape, np.bool_)
        rows, columns = place.rows, place.columns
        top, left = place.row, place.column
        counted[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = True
        target[~counted] = self.ignore
        weights[target == self.ignore] = 0
        network_input = to_network(warp(whole, image, "linear"), self.statistics[place.image])
        return network_input, target, weights, *_object_map(self.object_maps, place.image, inner)


def _object_map(maps: Sequence[Array] | None, image: int, place: Grid) -> tuple[Array, ...]:
    """Cut a tile from the object map of an image, with values in 0...1; return no array if there are no object maps."""
    return () if maps is None else (warp(place, maps[image], "linear") * np.float32(1 / 255),)


def _cover(number: int, image: Array, output: int) -> list[TilePlace]:
    """Return the positions of the tiles that cover image `number`, in a shuffled order that is always the same."""
    height, width = image.shape[:2]
    places = [
        TilePlace(number, row, column, rows, columns)
        for (row, rows), (column, columns) in product(_shares(height, output), _shares(width, output))
    ]
    # Without the shuffle, an evenly spaced selection of tiles could take the same corner of every image.
    return [places[index] for index in np.random.default_rng(number).permutation(len(places))]


def _shares(length: int, output: int) -> list[tuple[int, range]]:
    """Cover an axis of `length` px with tile outputs; return the start and the used pixel range of each output.

    The ranges divide the axis. `output` is the length of each output, px.
    If the axis is at least as long as an output, all outputs lie inside the axis.
    """
    count = -(-length // output)
    bounds = [length * index // count for index in range(count + 1)]
    last = max(0, length - output)
    return [(min(max(0, (a + b - output) // 2), last), range(a, b)) for a, b in pairwise(bounds)]


def _units(statistics: Sequence[Statistics]) -> list[tuple[float, ...] | None]:
    """For each image and channel, return the factor that scales the brightness changes and the noise.

    Images that are normalised by themselves are changed in proportion to their deviation, so that a dark image does not
    vanish in noise. The mean deviation of all images has the factor 1. None: all images have the same statistics.
    """
    if all(one == statistics[0] for one in statistics):
        return [None] * len(statistics)
    mean = np.mean([one.std for one in statistics], axis=0)
    return [tuple((np.asarray(one.std) / mean).tolist()) for one in statistics]


def _even(places: list[list[TilePlace]], most: int) -> list[TilePlace]:
    """Select at most `most` tile positions, evenly spaced in the list of all positions, so no image is favoured."""
    every = [place for image in places for place in image]
    count = min(most, len(every))
    return [every[(2 * index + 1) * len(every) // (2 * count)] for index in range(count)]


def _check(
    images: Sequence[Array],
    targets: Sequence[Array],
    weights: Sequence[Array],
    *,
    statistics: Sequence[Statistics],
    tile: int,
    output: int,
) -> None:
    """Raise ValueError if images, targets, weights, statistics or sizes do not match."""
    if not images:
        raise ValueError("the training or validation split has no images; change the section prepare of params.yaml")
    if not 0 < output <= tile or (tile - output) % 2:
        raise ValueError(
            f"an output of {output} px cannot be centred in a tile of {tile} px; their difference must be even"
        )
    if not len(images) == len(targets) == len(weights) == len(statistics):
        raise ValueError(
            f"there are {len(images)} images, {len(targets)} targets, {len(weights)} weight maps and "
            f"{len(statistics)} statistics; pass one of each for each image"
        )
    for number, arrays in enumerate(zip(images, targets, weights, strict=True)):
        sizes = [array.shape[:2] for array in arrays]
        if sizes[0] != sizes[1] or sizes[0] != sizes[2] or arrays[0].ndim != 3:
            raise ValueError(
                f"image {number}: image, target and weights differ in size: {[array.shape for array in arrays]}"
            )
        if (arrays[0].dtype.name, arrays[0].shape[2]) != (statistics[number].dtype, statistics[number].channels):
            raise ValueError(
                f"image {number} is {arrays[0].dtype} with {arrays[0].shape[2]} channels, but the statistics are for "
                f"{statistics[number].dtype} images with {statistics[number].channels} channels; "
                "run the DVC stage `prepare` again"
            )
