"""Draw the picture of a plan: an image with a tile, object sizes, brightness of the images, and speeds."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segline.data.dataset import IGNORE
from segline.model.images import Raw
from segline.planning.fingerprint import Fingerprint, Measurement
from segline.score.overlay import overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (12, 8)  # inches
DPI = 100
LARGEST = 1024  # px; of a larger image, the middle is shown
BINS = 30
Example = tuple[Raw, npt.NDArray[np.uint8], npt.NDArray[np.int32]]  # image, class ids, instance ids
METADATA = {"Software": None}  # omit the software version, so that equal pictures have equal bytes


def draw(
    data: Fingerprint,
    measured: Sequence[Measurement],
    rates: Mapping[str, float],
    tile: int,
    example: Example,
) -> bytes:
    """Return the picture as PNG.

    Parameters
    ----------
    rates : training speed by network and precision, tiles/s; empty if it was not measured.
    tile : side of a training tile, px.
    example : an image (H, W, C), its class ids and its instance ids (H, W); the tile is drawn over it.
    """
    # Use Figure instead of pyplot, because pyplot is slow to import and keeps global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    upper, lower = figure.subplots(2, 2)
    image, classes, instances = example
    middle = _middle(image.shape)
    _draw_example(upper[0], tile, (image[middle], classes[middle], instances[middle]))
    if data.diameters:
        _draw_diameters(upper[1], np.concatenate([image.diameters for image in measured]), data.diameters)
    else:
        _draw_bars(
            upper[1], "fraction of the pixels", {f"class {id}": part for id, part in enumerate(data.frequencies)}
        )
    _draw_brightness(lower[0], measured)
    _draw_bars(lower[1], "training speed, tiles/s" if rates else "training speed: not measured", rates)
    figure.suptitle(data.sentence())
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata=METADATA)
    return stream.getvalue()


def _middle(shape: Sequence[int]) -> tuple[slice, slice]:
    """Return the rows and columns of the middle of an image."""
    rows, columns = (slice(max(0, side - LARGEST) // 2, (side + LARGEST) // 2) for side in shape[:2])
    return rows, columns


def _draw_example(axes: "Axes", tile: int, example: Example) -> None:
    from matplotlib.patches import Rectangle

    image, classes, instances = example

    axes.imshow(overlay(image, np.where(classes == IGNORE, 0, classes), objects=instances if instances.any() else None))
    height, width = image.shape[:2]
    corner = ((width - tile) / 2, (height - tile) / 2)
    axes.add_patch(Rectangle(corner, tile, tile, fill=False, edgecolor="red", linewidth=2))
    axes.set(title=f"an image with its labels, and a tile of {tile} px", xticks=(), yticks=())
    margin = 0.02 * max(tile, width, height)
    axes.set_xlim(min(0, corner[0]) - margin, max(width, corner[0] + tile) + margin)
    axes.set_ylim(max(height, corner[1] + tile) + margin, min(0, corner[1]) - margin)


def _draw_diameters(axes: "Axes", diameters: npt.NDArray[np.float64], percentiles: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    lowest, highest = max(1.0, float(diameters.min())), max(2.0, float(diameters.max()))
    axes.hist(diameters, bins=np.geomspace(lowest, highest * 1.001, BINS).tolist(), color="tab:blue")
    for value in percentiles:
        axes.axvline(value, color="black", linestyle=":")
    axes.set(title="objects; dotted: 10th, 50th and 90th percentile", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="diameter of a disc of equal area, px", ylabel="number of objects")


def _draw_brightness(axes: "Axes", measured: Sequence[Measurement]) -> None:
    """Draw mean and standard deviation of each image, averaged over its channels; the darkest image comes first."""
    mean, spread = (np.array([getattr(image, name).mean() for image in measured]) for name in ("mean", "std"))
    order = np.argsort(mean)
    axes.errorbar(np.arange(1, len(order) + 1), mean[order], spread[order], fmt=".", color="tab:blue", ecolor="0.7")
    axes.set(title="brightness of the images, mean over the channels", xlabel="images, darkest first")
    axes.set(ylabel="mean and deviation, fraction of the range")


def _draw_bars(axes: "Axes", title: str, values: Mapping[str, float]) -> None:
    axes.set(title=title)
    if not values:
        axes.axis("off")
        return
    bars = axes.barh([*values], [*values.values()], color="tab:blue")
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.margins(x=0.15)
    axes.invert_yaxis()
