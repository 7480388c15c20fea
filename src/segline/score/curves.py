"""The course of a training as one picture."""

from pathlib import Path

import pandas as pd

FIGURES = {
    "loss": ("loss", "validation_loss"),
    "metrics on validation": ("validation_mean_iou", "validation_pixel_error"),
    "learning rate": ("learning_rate",),
    "momentum": ("momentum",),
}


def draw(history: pd.DataFrame, best_epoch: int, file: Path) -> None:
    """Write a PNG with loss, metrics, learning rate and momentum by epoch; the epoch that was kept is marked.

    `history` has a row an epoch and the columns named in `FIGURES`.
    """
    # Not pyplot: it is slow to import and keeps state of the whole process.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    for axes, (title, columns) in zip(figure.subplots(2, 2).flat, FIGURES.items(), strict=True):
        for column in columns:
            axes.plot(history["epoch"], history[column], marker=".", label=column)
        axes.axvline(best_epoch, color="grey", linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set(title=title, xlabel="epoch")
        axes.legend()
        axes.grid(alpha=0.3)
    # No software version in the file: its bytes must not depend on more than its content.
    figure.savefig(file, dpi=100, metadata={"Software": None})
