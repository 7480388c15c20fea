"""Draws the embedded default: phase-contrast-like images of two classes of cells that touch."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segline.data.microscope import FIBROUS, GRANULAR, Cell, box_of, local, photograph, smooth_noise

NAME = "cells"  # of the dataset
CLASSES = {0: "background", GRANULAR: "granular", FIBROUS: "fibrous"}
RADIUS = {GRANULAR: 21.0, FIBROUS: 19.5}  # px, of the middle one
SMALLEST_CELL = 60  # px; what is left of a cell under others is dropped below this

Instances = npt.NDArray[np.int32]  # (H, W)
Field = npt.NDArray[np.float32]  # (H, W)


@dataclass(frozen=True)
class Drawing:
    """One image with its truth: image (H, W) uint8, instances (H, W) int32, classes (H, W) uint8."""

    image: npt.NDArray[np.uint8]
    instances: Instances
    classes: npt.NDArray[np.uint8]


def draw(seed: int, index: int, min_size: int = 256, max_size: int = 320) -> Drawing:
    """Image `index` of the dataset that `seed` names; sides between `min_size` and `max_size` px.

    The classes differ in texture, and on average in outline, size and brightness, with overlap. Every instance is
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
    """Cells in clusters: most are put beside an earlier one, so close that they touch."""
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
    """Whether the new cell covers no earlier one altogether."""
    return all(np.hypot(cell.x - o.x, cell.y - o.y) > 0.72 * (cell.radius + o.radius) for o in cells)


def _cell(rng: np.random.Generator, kind: int, x: float, y: float) -> Cell:
    radius = rng.lognormal(np.log(RADIUS[kind]), 0.2)
    aspect = rng.uniform(1.0, 1.45) if kind == GRANULAR else rng.uniform(1.4, 2.6)
    waves = tuple((rng.normal(0, 0.16 / k), rng.uniform(0, 2 * np.pi)) for k in range(2, 7))
    length, breadth = float(radius * np.sqrt(aspect)), float(radius / np.sqrt(aspect))
    return Cell(kind, x, y, length, breadth, rng.uniform(0, np.pi), rng.normal(0, 0.12), waves)


def _settle(cells: list[Cell], height: int, width: int, rng: np.random.Generator) -> tuple[Instances, Field]:
    """Instances, and how deep in its cell a pixel lies: 1 in the middle, 0 on the outline.

    A pixel goes to the cell in which it lies deepest, so that neighbours share a border and none overlaps.
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
