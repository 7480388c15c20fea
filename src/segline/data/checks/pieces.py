"""In how many pieces each instance lies, in one pass over the rows whatever their number and shape."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from segline.data.labels import Labels

Numbers = npt.NDArray[np.intp]

PIXELS = 1 << 22  # looked at together, so that a large image needs little more memory


def pieces(instances: Labels, count: int) -> Numbers:
    """Number of 8-connected pieces of instance 0..`count`, that of the background not counted.

    Every row is cut into runs of one instance, and the runs that touch from row to row are joined.

    Parameters
    ----------
    instances : (H, W) ids 0..count, 0 = background.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    owners, above, below = (np.concatenate(parts) for parts in zip(*_runs(instances), strict=True))
    links = coo_array((np.ones(above.size, bool), (above, below)), shape=(owners.size, owners.size))
    number, piece_of = connected_components(links, directed=False)
    owner_of_piece = np.zeros(number, np.intp)
    owner_of_piece[piece_of] = owners
    found = np.bincount(owner_of_piece, minlength=count + 1)
    found[0] = 0
    return found


def _runs(instances: Labels) -> Iterator[tuple[Numbers, Numbers, Numbers]]:
    """Of some rows after the others: the instance of each run, and the pairs of runs of one instance that touch."""
    height, width = instances.shape
    rows = max(1, PIXELS // max(1, width))
    total = 0
    last: tuple[Labels, npt.NDArray[np.bool_], Numbers] | None = None
    for row in range(0, height, rows):
        part = instances[row : row + rows]
        starts = np.ones(part.shape, bool)
        np.not_equal(part[:, 1:], part[:, :-1], out=starts[:, 1:])
        runs = np.cumsum(starts).reshape(part.shape) + (total - 1)
        owners = part[starts]
        total += owners.size
        if last is not None:
            part, starts, runs = (
                np.concatenate([old, new]) for old, new in zip(last, (part, starts, runs), strict=True)
            )
        above, below = _touching(part, starts, runs)
        last = part[-1:], starts[-1:], runs[-1:]
        yield owners.astype(np.intp), above, below


def _touching(part: Labels, starts: npt.NDArray[np.bool_], runs: Numbers) -> tuple[Numbers, Numbers]:
    """Each pair of touching runs once or a few times: where they begin to overlap, or by a corner."""
    upper, lower = part[:-1], part[1:]
    begins = starts[:-1] | starts[1:]
    left, right = np.s_[:, :-1], np.s_[:, 1:]
    all_of = np.s_[:, :]
    pairs = []
    for up, down, where in (
        (all_of, all_of, begins),
        # By a corner alone only where the lower run begins at the right pixel, or ended before it.
        (left, right, starts[1:, 1:]),
        (right, left, starts[1:, 1:]),
    ):
        same = (upper[up] == lower[down]) & (lower[down] > 0) & where
        pairs.append((runs[:-1][up][same], runs[1:][down][same]))
    return np.concatenate([above for above, _ in pairs]), np.concatenate([below for _, below in pairs])
