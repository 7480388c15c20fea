"""Separate touching instances by a gap: choose the pixels that become background."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segline.data.labels import Labels, foreground, grown, renumber, strips

Pixels = npt.NDArray[np.intp]  # positions of pixels in a flattened image

APART, OPEN, KEPT, GONE = range(4)  # pixel states: touches no other instance; undecided; kept; now background
HIGHEST_ID = 1 << 20  # if ids are higher, instances are renumbered, because a table is as long as the highest id

# Four of the eight neighbours are enough to visit each pair of neighbouring pixels once.
_FORWARD = ((0, 1), (1, -1), (1, 0), (1, 1))


def separate(classes: Labels, instances: Labels, ignore: int | None = None) -> npt.NDArray[np.uint8]:
    """Where instances of one class touch, at a side or a corner, insert a gap of background; return the new class ids.

    Instances are processed in order of their number of untouched pixels, fewest first. Each instance keeps those pixels
    that touch no kept pixel of an earlier instance. So the gap is one pixel wide and lies in the thicker of two
    instances. No pixel of the gap could be given back to an instance. If an instance would lose all its pixels, other
    instances give way to one of its pixels. The instance vanishes only if this is impossible, for example between two
    instances of one pixel each. A second call changes nothing.

    Besides arguments and result, only one byte of memory per pixel is needed, because strips are processed in turn.

    Parameters
    ----------
    classes : (H, W) class ids, 0 = background, at most 255.
    instances : (H, W) instance ids, 0 = background, in any numbering; an instance may be in several pieces. Pixels of
        class 0 or `ignore` belong to no instance.
    ignore : class id that stays unchanged.

    Raises
    ------
    ValueError
        The arrays differ in shape, are not of an integer type, or hold ids out of range.
    """
    _check(classes, instances)
    if instances.max(initial=0) > HIGHEST_ID:
        instances, _ = renumber(instances)
    separated = np.array(classes, np.uint8, order="C")
    state = _decide(_Scene(separated, instances, ignore))
    if state is not None:
        separated[state == GONE] = 0
    return separated


def _check(classes: Labels, instances: Labels) -> None:
    if classes.shape != instances.shape or classes.ndim != 2:
        raise ValueError(f"classes {classes.shape} and instances {instances.shape} must have the same shape (H, W)")
    for name, array in (("classes", classes), ("instances", instances)):
        if array.dtype.kind not in "ui":
            raise ValueError(f"{name} are of type {array.dtype}; pass integer ids")
    for id_ in (int(classes.min(initial=0)), int(classes.max(initial=0))):
        if not 0 <= id_ <= 255:
            raise ValueError(f"classes contain id {id_}; class ids are 0 to 255")
    if instances.min(initial=0) < 0:
        raise ValueError(f"instances contain id {instances.min()}; instance ids are above 0, and 0 is background")


@dataclass(frozen=True)
class _Window:
    """Pairs of touching pixels in a strip of an image, and in the rows just above and below the strip if they exist.

    The rows are flattened. `first[i]` and `second[i]` are neighbouring pixels of the same class in different instances.
    """

    around: slice
    inner: slice  # the rows without the row above and the row below, as positions in the flattened rows
    cells: Labels
    first: Pixels
    second: Pixels


@dataclass
class _Scene:
    """Class ids and instance ids of an image, read in windows of rows."""

    classes: npt.NDArray[np.uint8]
    instances: Labels
    ignore: int | None
    last: tuple[slice, _Window] | None = None  # latest window, kept because one window holds a whole small image

    def cells(self, rows: slice) -> Labels:
        """Return the instance ids in `rows`, 0 outside the foreground."""
        return np.where(foreground(self.classes[rows], self.ignore), self.instances[rows], 0)

    def window(self, rows: slice) -> _Window:
        """Return the window for `rows`; reuse the latest window if it was made for the same rows."""
        if self.last is None or self.last[0] != rows:
            height, width = self.classes.shape
            around, inside = grown(rows, 1, height)
            cells = self.cells(around).ravel()
            pairs = _touching(cells, self.classes[around].ravel(), width)
            self.last = rows, _Window(around, slice(inside.start * width, inside.stop * width), cells, *pairs)
        return self.last[1]


def _touching(cells: Labels, classes: npt.NDArray[np.uint8], width: int) -> tuple[Pixels, Pixels]:
    """Find pairs of touching pixels with the same class but different instances; return two arrays of flat indices."""
    first, second = [], []
    for dy, dx in _FORWARD:
        step = dy * width + dx
        # In a flattened array, the last pixel of each row seems to touch the first pixel of the next row.
        # The condition on `start % width` removes these false pairs between the first column and the last column.
        start = np.flatnonzero(cells[: max(0, cells.size - step)] != cells[step:])
        end = start + step
        touch = (cells[start] > 0) & (cells[end] > 0) & (classes[start] == classes[end])
        if dx:
            touch &= start % width != (width - 1 if dx > 0 else 0)
        first.append(start[touch])
        second.append(end[touch])
    return np.concatenate(first), np.concatenate(second)


def _decide(scene: _Scene) -> npt.NDArray[np.uint8] | None:
    """Decide which pixels become background; return the pixel states (H, W), or None if no instances touch."""
    state, area, untouched = _initial_state(scene)
    if (untouched == area).all():
        return None
    rank = np.empty(area.size, np.intp)
    rank[np.lexsort((area, untouched))] = np.arange(area.size)
    protected: list[int] = []
    while True:
        _make_room(scene, state, sorted(protected, key=lambda cell: (area[cell], cell)))
        waiting = list(strips(state.shape))
        while waiting:
            # A pixel waits for all touching pixels whose instance has a lower rank; some of these lie in other strips.
            # The loop always terminates: the undecided pixels of lowest rank wait for no other pixel, so each pass
            # decides at least these pixels.
            waiting = [rows for rows in waiting if not _decide_rows(scene, state, rank, rows)]
        gone = _count_gone(scene, state, area.size)
        lost = np.setdiff1d(np.flatnonzero((area > 0) & (gone == area)), protected)
        if lost.size == 0:
            return state
        protected += lost.tolist()
        state[state != APART] = OPEN


def _initial_state(scene: _Scene) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the initial state of each pixel, and each instance's number of pixels and number of untouched pixels.

    A pixel is untouched if none of its neighbours belongs to another instance of the same class. The initial state is
    APART for an untouched pixel and OPEN for every other pixel.
    """
    state = np.full(scene.classes.shape, APART, np.uint8)
    length = int(scene.instances.max(initial=0)) + 1
    area = np.zeros(length, np.int64)
    touched = np.zeros(length, np.int64)
    for rows in strips(state.shape):
        window = scene.window(rows)
        opened = np.zeros(window.cells.size, np.uint8)
        opened[window.first] = opened[window.second] = OPEN
        state[rows] = opened[window.inner].reshape(state[rows].shape)
        inside = window.cells[window.inner]
        area += np.bincount(inside, minlength=length)
        touched += np.bincount(inside[opened[window.inner] == OPEN], minlength=length)
    area[0] = 0
    return state, area, area - touched


def _decide_rows(scene: _Scene, state: npt.NDArray[np.uint8], rank: Pixels, rows: slice) -> bool:
    """In the given rows of `state`, mark pixels as kept or background if possible; return True if none stays undecided.

    A pixel is kept if no touching pixel of lower rank is kept. In each round, all pixels that wait for no other pixel
    are kept at once. The result is the same as if the instances were processed one by one.
    """
    if not (state[rows] == OPEN).any():
        return True
    window = scene.window(rows)
    states = state[window.around].ravel()
    earlier = rank[window.cells[window.first]] < rank[window.cells[window.second]]
    first = np.where(earlier, window.first, window.second)
    second = np.where(earlier, window.second, window.first)
    # The window holds `rows`, plus the row above and the row below, where these exist.
    # Pixels in the two extra rows may touch pixels outside the window, so other windows decide about the extra rows.
    undecided = window.inner.start + np.flatnonzero(states[window.inner] == OPEN)
    waits = np.zeros(states.size, bool)
    while True:
        alive = (states[second] == OPEN) & (states[first] != GONE)
        first, second = first[alive], second[alive]
        waits[second] = True
        kept = undecided[~waits[undecided]]
        waits[second] = False
        gone = second[states[first] == KEPT]
        if not (kept.size or gone.size):
            state[rows] = states[window.inner].reshape(state[rows].shape)
            return not undecided.size
        states[kept], states[gone] = KEPT, GONE
        undecided = undecided[states[undecided] == OPEN]


def _count_gone(scene: _Scene, state: npt.NDArray[np.uint8], length: int) -> npt.NDArray[np.int64]:
    """Count the pixels that each instance loses to the background."""
    gone = np.zeros(length, np.int64)
    for rows in strips(state.shape):
        gone += np.bincount(scene.cells(rows)[state[rows] == GONE], minlength=length)
    return gone


def _make_room(scene: _Scene, state: npt.NDArray[np.uint8], protected: Sequence[int]) -> None:
    """Make sure that each instance with an id in `protected` keeps a pixel, at the cost of neighbouring instances.

    Pixels of other instances beside the kept pixel, as `_rivals` returns them, become background. The kept pixel has
    the fewest such neighbours among those pixels of the instance that are not yet background. Instances are processed
    in turn.
    """
    if not protected:
        return
    states = state.reshape(-1)
    pixels, owners = _pixels_of(scene, protected)
    rivals = _rivals(scene, pixels)
    cost = np.count_nonzero(rivals >= 0, axis=1)
    by_cell = np.argsort(owners, kind="stable")
    starts, ends = (np.searchsorted(owners[by_cell], protected, side=side) for side in ("left", "right"))
    for start, end in zip(starts, ends, strict=True):
        own = by_cell[start:end]
        free = own[states[pixels[own]] != GONE]
        if free.size:
            way = rivals[free[np.argmin(cost[free])]]
            states[way[way >= 0]] = GONE


def _pixels_of(scene: _Scene, chosen: Sequence[int]) -> tuple[Pixels, Labels]:
    """Return two arrays: flat indices of all pixels of the `chosen` instances, and the instance id of each pixel.

    The pixels are listed row by row.
    """
    wanted = np.zeros(int(scene.instances.max(initial=0)) + 1, bool)
    wanted[chosen] = True
    pixels, owners = [], []
    for rows in strips(scene.classes.shape):
        cells = scene.cells(rows).ravel()
        positions = np.flatnonzero(wanted[cells])
        pixels.append(rows.start * scene.classes.shape[1] + positions)
        owners.append(cells[positions])
    return np.concatenate(pixels), np.concatenate(owners)


def _rivals(scene: _Scene, pixels: Pixels) -> Pixels:
    """Return an array (N, 8) with the positions of the eight neighbours of each of N pixels.

    The entry is -1 for a neighbour that is not in another instance of the same class.
    """
    height, width = scene.classes.shape
    y, x = (axis[:, None] for axis in np.divmod(pixels, width))
    down, right = np.array([(dy, dx) for sign in (1, -1) for dy, dx in np.multiply(sign, _FORWARD)]).T
    inside = (y + down >= 0) & (y + down < height) & (x + right >= 0) & (x + right < width)
    neighbours = np.clip(y + down, 0, height - 1), np.clip(x + right, 0, width - 1)
    cells = np.where(foreground(scene.classes[neighbours], scene.ignore), scene.instances[neighbours], 0)
    rival = inside & (cells > 0) & (cells != scene.instances[y, x]) & (scene.classes[neighbours] == scene.classes[y, x])
    return np.where(rival, neighbours[0] * width + neighbours[1], -1)
