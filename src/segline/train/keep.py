"""Which epochs are worth keeping."""

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from segline.params import Train
from segline.train import checkpoint
from segline.train.loop import Epoch, State


def better(settings: Train, epoch: Epoch) -> float:
    """What `train.monitor` says of an epoch, so that larger is better.

    A mean IoU that is nan is right: there was no foreground, and none was found.
    """
    if settings.monitor == "loss":
        return -epoch.validation_loss
    return 1.0 if math.isnan(epoch.validation_mean_iou) else epoch.validation_mean_iou


@dataclass
class Kept:
    """Checkpoints of the best epochs and of the last, in `folder`, one subfolder each: best-00007, last."""

    folder: Path
    settings: Train
    best: list[Epoch] = field(default_factory=list)  # best first; of equals, the earlier

    def offer(self, epoch: Epoch, state: State) -> None:
        """Save `state`, as it is after `epoch`, where it belongs."""
        checkpoint.save(self.folder / "last", state, self.settings)
        ranked = sorted([*self.best, epoch], key=lambda e: (-better(self.settings, e), e.epoch))
        self.best, dropped = ranked[: self.settings.keep_best], ranked[self.settings.keep_best :]
        if epoch in self.best:
            shutil.copytree(self.folder / "last", self._of(epoch))
        for former in dropped:
            shutil.rmtree(self._of(former), ignore_errors=True)

    @property
    def weights(self) -> Path:
        """The weights of the best epoch."""
        return self._of(self.best[0]) / checkpoint.WEIGHTS

    def _of(self, epoch: Epoch) -> Path:
        return self.folder / f"best-{epoch.epoch:05d}"
