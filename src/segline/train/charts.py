"""Draw PNG charts of a training run's metrics and of a search's trials. Equal data give equal bytes."""

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

if TYPE_CHECKING:
    import optuna
    import pandas as pd

DPI = 100
WIDTH, HEIGHT = 10, 6  # inches
PANEL_WIDTH = 2.6  # inches, width of each plot if several plots stand side by side
NAME_SIZE = 9  # points, font size of the names below plots
BACKGROUND = "0.85"  # grey, because Optuna draws the worst trials in nearly white
MIN_TRIALS = 2  # finished trials needed for a comparison
# Omit the software version from the PNG file, so that equal charts have equal bytes.
METADATA = {"Software": None}

COURSE = {
    "loss": ("loss", "validation_loss"),
    "metrics on validation": ("validation_mean_iou", "validation_pixel_error"),
    "learning rate": ("learning_rate",),
    "momentum": ("momentum",),
}


def draw_course(history: "pd.DataFrame", best_epoch: int, file: Path) -> None:
    """Write a chart of loss, metrics, learning rate and momentum per epoch. A vertical line marks the best epoch.

    `history` has one row per epoch and the columns named in `COURSE`.
    """
    # Use Figure instead of pyplot, because pyplot is slow to import and keeps global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    for axes, (title, columns) in zip(figure.subplots(2, 2).flat, COURSE.items(), strict=True):
        for column in columns:
            axes.plot(history["epoch"], history[column], marker=".", label=column)
        axes.axvline(best_epoch, color="grey", linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set(title=title, xlabel="epoch")
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=DPI, metadata=METADATA)


def search_charts(study: "optuna.Study") -> Iterator[tuple[str, bytes]]:
    """Yield the name and the PNG bytes of each chart for which `study` has enough finished trials."""
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as draw

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    yield "history", _png(draw.plot_optimization_history, study)
    yield "curves", _png(draw.plot_intermediate_values, study)
    if len(finished) < MIN_TRIALS:
        return
    names = sorted(set.intersection(*(set(trial.params) for trial in finished)))
    # Sort the names of the settings, so that equally important settings have the same order in every process.
    yield "importances", _png(draw.plot_param_importances, study, params=names)
    if len(names) > 1:
        yield "parallel_coordinates", _png(draw.plot_parallel_coordinate, study, params=names)
    yield "slices", _png(draw.plot_slice, study)


def _png(plot: Callable[..., Any], study: "optuna.Study", **options: Any) -> bytes:
    """Draw an Optuna chart without opening a window; return the PNG file as bytes."""
    from matplotlib import pyplot as plt
    from optuna.exceptions import ExperimentalWarning

    stream = io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Ignore the warnings of matplotlib about axes with a single value and about long names.
        warnings.simplefilter("ignore", UserWarning)
        plt.switch_backend("agg")
        axes = plot(study, **options)
        panels = list(axes.flat) if hasattr(axes, "flat") else [axes]
        for panel in panels:
            panel.xaxis.label.set_fontsize(NAME_SIZE)
            panel.set_facecolor(BACKGROUND)
            if len(panels) > 1:  # long names and numbers would overlap those of the next panel
                panel.set_xlabel(panel.get_xlabel().replace(".", ".\n"))
                panel.tick_params(axis="x", which="both", labelrotation=60, labelsize=NAME_SIZE)
        figure = panels[0].figure
        figure.set_size_inches(max(WIDTH, PANEL_WIDTH * len(panels)), HEIGHT)
        figure.savefig(stream, dpi=DPI, bbox_inches="tight", metadata=METADATA)
        plt.close(figure)
    return stream.getvalue()
