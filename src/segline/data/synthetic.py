"""Render the synthetic default dataset: images that look like phase contrast, with two classes of touching cells."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

GRANULAR, FIBROUS = 1, 2
NAME = "cells"  # name of the dataset
CLASSES = {0: "background", GRANULAR: "granular", FIBROUS: "fibrous"}
RADIUS = {GRANULAR: 21.0, FIBROUS: 19.5}  # px, median
SMALLEST_CELL = 60  # px; a covered cell is dropped if less of it remains visible

Instances = npt.NDArray[np.int32]  # (H, W)
Field = npt.NDArray[np.float32]  # (H, W)
Box = tuple[slice, slice]


@dataclass(frozen=True)
class Cell:
    """Shape of a cell: a bent ellipse with a wavy outline; lengths in px, angles in radians."""

    kind: int
    x: float
    y: float
    length: float  # half axes
    breadth: float
    angle: float
    bend: float
    waves: tuple[tuple[float, float], ...]  # (amplitude, phase) of the outline's harmonics 2, 3, ...

    @property
    def radius(self) -> float:
        """Radius, px, of the circle that has the same area as the cell."""
        return float(np.sqrt(self.length * self.breadth))


@dataclass(frozen=True)
class Drawing:
    """Synthetic image (H, W) uint8 and its ground truth: instances (H, W) int32 and classes (H, W) uint8."""

    image: npt.NDArray[np.uint8]
    instances: Instances
    classes: npt.NDArray[np.uint8]


def draw(seed: int, index: int, min_size: int = 256, max_size: int = 320) -> Drawing:
    """Render image number `index` of the dataset that `seed` determines. Each side has `min_size` to `max_size` px.

    The classes differ in texture and, on average, in outline, size and brightness. Every instance is
    4-connected; instances are numbered 1..n.
    """
    rng = np.random.default_rng((seed, index))
    height, width = (int(side) for side in rng.integers(min_size, max_size, 2, endpoint=True))
    cells = _scatter(rng, height, width)
    instances, depth = _settle(cells, height, width, rng)
    image = photograph(cells, instances, depth, rng)
    kinds = np.array([0, *(cell.kind for cell in cells)], np.uint8)
    numbers = np.cumsum(np.isin(np.arange(len(kinds)), instances[instances > 0])).astype(np.int32)
    return Drawing(image, np.where(instances > 0, numbers[instances], 0).astype(np.int32), kinds[instances])


def _scatter(rng: np.random.Generator, height: int, width: int) -> list[Cell]:
    """Place cells in clusters: most cells are placed so close to an earlier cell that the two touch."""
    share = rng.uniform(0.4, 0.6)
    wanted = int(height * width * rng.uniform(0.55, 0.9) / (np.pi * 20**2))
    cells: list[Cell] = []
    for _ in range(wanted * 12):
        x, y = rng.uniform(-5, width + 5), rng.uniform(-5, height + 5)
        kind = GRANULAR if rng.random() < share else FIBROUS
        if cells and rng.random() < 0.85:
            near = cells[rng.integers(len(cells))]
            kind = near.kind if rng.random() < 0.3 else kind
            reach, towards = near.radius + rng.uniform(14, 24), rng.uniform(0, 2 * np.pi)
            x, y = near.x + reach * np.cos(towards), near.y + reach * np.sin(towards)
        cell = _cell(rng, kind, x, y)
        if -8 < x < width + 8 and -8 < y < height + 8 and _fits(cell, cells):
            cells.append(cell)
        if len(cells) == wanted:
            break
    return cells


def _fits(cell: Cell, cells: list[Cell]) -> bool:
    """Return whether the new cell is so far from all earlier cells that no cell covers another completely."""
    return all(
        np.hypot(cell.x - earlier.x, cell.y - earlier.y) > 0.72 * (cell.radius + earlier.radius) for earlier in cells
    )


def _cell(rng: np.random.Generator, kind: int, x: float, y: float) -> Cell:
    radius = rng.lognormal(np.log(RADIUS[kind]), 0.2)
    aspect = rng.uniform(1.0, 1.45) if kind == GRANULAR else rng.uniform(1.4, 2.6)
    waves = tuple((rng.normal(0, 0.16 / k), rng.uniform(0, 2 * np.pi)) for k in range(2, 7))
    length, breadth = float(radius * np.sqrt(aspect)), float(radius / np.sqrt(aspect))
    return Cell(kind, x, y, length, breadth, rng.uniform(0, np.pi), rng.normal(0, 0.12), waves)


def _settle(cells: list[Cell], height: int, width: int, rng: np.random.Generator) -> tuple[Instances, Field]:
    """Return two arrays: instance ids, and the depth of each pixel in its cell, from 0 (outline) to 1 (middle).

    A pixel belongs to the cell in which it lies deepest, so that neighbours share a border and no cells overlap.
    """
    bent = (smooth_noise(rng, height, width, 9) * 2.2, smooth_noise(rng, height, width, 9) * 2.2)
    instances, outline = np.zeros((height, width), np.int32), np.ones((height, width), np.float32)
    for number, cell in enumerate(cells, 1):
        box = box_of(cell, height, width)
        u, v = local(cell, box, bent)
        angle = np.arctan2(v, u)
        wavy = 1 + sum(size * np.cos(k * angle + phase) for k, (size, phase) in enumerate(cell.waves, 2))
        distance = np.hypot(u, v) / np.maximum(wavy, 0.4)
        closer = distance < outline[box]
        instances[box][closer] = number
        outline[box][closer] = distance[closer]
    for number, cell in enumerate(cells, 1):
        _keep_largest_piece(instances[box_of(cell, height, width)], number)
    return instances, np.where(instances > 0, 1 - outline, 0).astype(np.float32)


def _keep_largest_piece(patch: Instances, number: int) -> None:
    mask = (patch == number).astype(np.uint8)
    if not mask.any():
        return
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    stays = (pieces == largest) & (stats[largest, cv2.CC_STAT_AREA] >= SMALLEST_CELL)
    patch[(mask > 0) & ~stays] = 0


def box_of(cell: Cell, height: int, width: int) -> Box:
    """Return the rows and columns of an image that the cell may reach."""
    reach = 1.5 * cell.length + 2
    top, left = max(0, int(cell.y - reach)), max(0, int(cell.x - reach))
    bottom, right = max(top, min(height, int(cell.y + reach) + 1)), max(left, min(width, int(cell.x + reach) + 1))
    return slice(top, bottom), slice(left, right)


def local(cell: Cell, box: Box, bent: tuple[Field, Field] | None = None) -> tuple[Field, Field]:
    """Return two coordinates of each pixel in `box`: along and across the cell, in units of the cell's half axes.

    Before the conversion, `bent` shifts the pixels, in px.
    """
    rows, columns = box
    x: npt.NDArray[Any] = np.arange(columns.start, columns.stop, dtype=np.float32)[None] - np.float32(cell.x)
    y: npt.NDArray[Any] = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(cell.y)
    if bent is not None:
        x, y = x + bent[0][box], y + bent[1][box]
    cos, sin = np.float32(np.cos(cell.angle)), np.float32(np.sin(cell.angle))
    u, v = (cos * x + sin * y) / cell.length, (cos * y - sin * x) / cell.breadth
    return u.astype(np.float32), (v + cell.bend * (u * u - 0.5)).astype(np.float32)


def smooth_noise(rng: np.random.Generator, height: int, width: int, sigma: float) -> Field:
    """Sample Gaussian noise with a correlation length of `sigma` px, mean 0 and standard deviation 1."""
    step = max(1, int(sigma / 2))
    noise = rng.standard_normal((height // step + 8, width // step + 8), dtype=np.float32)
    noise = _blur(noise, sigma / step)
    noise = cv2.resize(noise, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)[:height, :width].astype(np.float32)
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def photograph(
    cells: list[Cell], instances: npt.NDArray[np.int32], depth: Field, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Render an image (H, W) of the cells, as a camera on a phase-contrast microscope would record it.

    Parameters
    ----------
    instances : (H, W); `cells[number - 1]` is the cell of instance `number`.
    depth : (H, W), 1 in the middle of a cell, 0 on its outline and outside.
    """
    height, width = depth.shape
    scene = _scene(cells, instances, depth, rng) + _debris(height, width, rng)
    scene = _blur(scene + 0.05 * smooth_noise(rng, height, width, 2.5), rng.uniform(0.7, 1.4))
    light = _light(height, width, rng)
    level = rng.uniform(0.42, 0.55) * light * (1 + rng.uniform(0.8, 1.15) * scene)
    electrons = rng.uniform(350, 1000)
    level = level + rng.standard_normal(level.shape) * np.sqrt(np.clip(level, 0.02, None) / electrons)
    pixels: npt.NDArray[np.uint8] = np.clip(np.rint(level * 255), 0, 255).astype(np.uint8)
    return pixels


def _scene(cells: list[Cell], instances: npt.NDArray[np.int32], depth: Field, rng: np.random.Generator) -> Field:
    """Render the cells as an ideal microscope would show them; the background is 0."""
    height, width = depth.shape
    thickness, look = np.zeros_like(depth), np.zeros_like(depth)
    grain = smooth_noise(rng, height, width, 1.3) - smooth_noise(rng, height, width, 3)
    for number, cell in enumerate(cells, 1):
        box = box_of(cell, height, width)
        inside = instances[box] == number
        if not inside.any():
            continue
        u, v = local(cell, box)
        fine = rng.uniform(0.75, 1.25)
        if cell.kind == GRANULAR:
            level, tall = rng.normal(0.05, 0.05), rng.uniform(0.8, 1.1)
            texture = fine * (0.13 * np.maximum(grain[box], 0) ** 1.4 - 0.06)
        else:
            level, tall = rng.normal(-0.11, 0.05), rng.uniform(0.7, 1.0)
            texture = fine * 0.15 * _fibres(rng, cell, u.shape)
        look[box][inside] = (level + _with_nucleus(texture, cell, u, v, rng))[inside]
        thickness[box][inside] = tall * np.sqrt(np.clip(depth[box] * (2 - depth[box]), 0, 1))[inside]
    return _phase(thickness, rng) + look + _membranes(instances, rng)


def _with_nucleus(texture: Field, cell: Cell, u: Field, v: Field, rng: np.random.Generator) -> Field:
    """Draw a nucleus into the texture: smooth and bright, with a dark rim and two dark nucleoli."""
    x, y = rng.normal(0, 0.12, 2)
    size = rng.uniform(0.38, 0.48) if cell.kind == GRANULAR else rng.uniform(0.26, 0.36)
    r = np.hypot(u - x, v - y) / size
    nucleus = 1 / (1 + np.exp((r - 1) * 9))
    rim = np.exp(-(((r - 1) / 0.16) ** 2))
    nucleoli = sum(np.exp(-(((u - x - a) ** 2 + (v - y - b) ** 2) / 0.006)) for a, b in rng.normal(0, 0.16, (2, 2)))
    mixed = texture * (1 - 0.75 * nucleus) + 0.16 * nucleus - 0.35 * nucleoli * nucleus - 0.14 * rim
    return np.asarray(mixed, np.float32)


def _fibres(rng: np.random.Generator, cell: Cell, shape: tuple[int, ...]) -> Field:
    """Render random streaks along the cell. The standard deviation of their values is about 1."""
    side = int(np.ceil(np.hypot(shape[0], shape[1]))) + 4
    streaks = cv2.GaussianBlur(rng.standard_normal((side, side), dtype=np.float32), (0, 0), sigmaX=7, sigmaY=1.1)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), -np.degrees(cell.angle), 1)
    turned = cv2.warpAffine(streaks / np.std(streaks), turn, (side, side), borderMode=cv2.BORDER_REFLECT)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    return np.asarray(turned[top : top + shape[0], left : left + shape[1]], np.float32)


def _phase(thickness: Field, rng: np.random.Generator) -> Field:
    """Render the phase contrast, in which thick bodies are dark and have bright halos."""
    return np.asarray(-0.75 * (_blur(thickness, 1.2) - 0.85 * _blur(thickness, rng.uniform(6, 9))), np.float32)


def _membranes(instances: npt.NDArray[np.int32], rng: np.random.Generator) -> Field:
    """Render bright lines between instances, strong in some places and absent in others."""
    edge = np.zeros(instances.shape, np.float32)
    edge[:, 1:] += instances[:, 1:] != instances[:, :-1]
    edge[1:] += instances[1:] != instances[:-1]
    strength = np.clip(0.5 + 0.5 * smooth_noise(rng, instances.shape[0], instances.shape[1], 8), 0, 1.4)
    return np.asarray(_blur(edge, 0.9) * strength * 0.5, np.float32)


def _debris(height: int, width: int, rng: np.random.Generator) -> Field:
    """Render specks with halos, and larger specks that are out of focus."""
    specks, far = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for _ in range(rng.integers(6, 16)):
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        axes = (int(rng.integers(1, 4)), int(rng.integers(1, 3)))
        cv2.ellipse(specks, (x, y), axes, rng.uniform(0, 180), 0, 360, rng.uniform(0.5, 1.1), -1, cv2.LINE_AA)
    for _ in range(rng.integers(0, 4)):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(far, centre, int(rng.integers(6, 14)), rng.uniform(-0.35, 0.35), -1)
    return np.asarray(_blur(specks, 0.8) - 1.5 * _blur(specks, 2.5) + _blur(far, 4), np.float32)


def _light(height: int, width: int, rng: np.random.Generator) -> Field:
    """Render uneven illumination: a gradient, darker corners and slow waves. Its values are close to 1."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    slope_x, slope_y = rng.normal(0, 0.12, 2)
    corners = rng.uniform(0, 0.15) * (x * x + y * y)
    return np.asarray(1 + slope_x * x + slope_y * y - corners + 0.04 * smooth_noise(rng, height, width, 60), np.float32)


def _blur(field: Field, sigma: float) -> Field:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), float(sigma)), np.float32)
