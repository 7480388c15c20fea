"""Pictures of a search: its history, what mattered, and how the settings go together; no network, no dates."""

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import optuna
from matplotlib import pyplot as plt
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState
from optuna.visualization import matplotlib as draw

DPI = 100
WIDTH, HEIGHT = 10, 6  # inches
EACH = 2.6  # inches, of each of several plots side by side
NAME_SIZE = 9  # points, of the names below plots
FEWEST = 2  # finished trials below which nothing can be compared


def pictures(study: optuna.Study) -> Iterator[tuple[str, bytes]]:
    """Name and PNG of each picture that can be drawn of `study`; the same study gives the same bytes."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    yield "history", _png(draw.plot_optimization_history, study)
    yield "curves", _png(draw.plot_intermediate_values, study)
    if len(finished) < FEWEST:
        return
    names = sorted(set.intersection(*(set(trial.params) for trial in finished)))
    # By name: of importances that are equal the order would else be that of a set, another one in each process.
    yield "importances", _png(draw.plot_param_importances, study, params=names)
    if len(names) > 1:
        yield "parallel_coordinates", _png(draw.plot_parallel_coordinate, study, params=names)
    yield "slices", _png(draw.plot_slice, study)


def _png(plot: Callable[..., Any], study: optuna.Study, **options: Any) -> bytes:
    """What Optuna draws, on a canvas without a window."""
    stream = io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Of axes on which all values are one, and of names that leave no room.
        warnings.simplefilter("ignore", UserWarning)
        plt.switch_backend("agg")
        axes = plot(study, **options)
        several = list(axes.flat) if hasattr(axes, "flat") else [axes]
        for each in several:
            each.xaxis.label.set_fontsize(NAME_SIZE)
        figure = several[0].figure
        figure.set_size_inches(max(WIDTH, EACH * len(several)), HEIGHT)
        figure.savefig(stream, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)
    return stream.getvalue()
