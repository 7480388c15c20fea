"""Keep two kinds of checkpoints of a training run: the latest, to resume from, and those of the best epochs."""

import math
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError

from segline.params import Train
from segline.process import Deferred
from segline.train import checkpoint
from segline.train.loop import Epoch, Step
from segline.train.setup import State

INTERVAL = 300  # seconds between two checkpoints within an epoch
PATTERN = "epoch-*"


class KeepError(RuntimeError):
    """A needed checkpoint cannot be written or restored; the message says what to do."""


def better(settings: Train, epoch: Epoch) -> float:
    """Return an epoch's value of the metric that `train.monitor` names. A loss is negated, so that larger is better.

    With `last`, each epoch is better than the one before. A mean IoU of nan counts as 1, because it means that no
    foreground is present or predicted.
    """
    if settings.monitor == "last":
        return epoch.epoch
    if settings.monitor == "loss":
        return -epoch.validation_loss
    return 1.0 if math.isnan(epoch.validation_mean_iou) else epoch.validation_mean_iou


@dataclass
class Kept:
    """Finished epochs of a training run, and its checkpoints in `folder`: the latest, and those of the best epochs.

    A checkpoint is named by the number of finished epochs (epoch-00007) and, within an epoch, also by the number of
    finished steps (epoch-00007-step-000120). Each checkpoint is written atomically, after the checkpoints of the best
    epochs in its history. So `load` finds a checkpoint to resume from, whenever the process is killed.
    """

    folder: Path
    settings: Train
    epochs: list[Epoch] = field(default_factory=list)
    unsaved: dict[str, checkpoint.CheckpointContent] = field(default_factory=dict)  # by name; not written yet

    @property
    def best(self) -> list[Epoch]:
        """The best epochs, best first, at most `train.keep_best`. Of equally good epochs, the earliest comes first."""
        ranked = sorted(self.epochs, key=lambda epoch: (-better(self.settings, epoch), epoch.epoch))
        return ranked[: self.settings.keep_best]

    @property
    def weights(self) -> Path:
        """File with the weights of the best epoch.

        Raises
        ------
        KeepError
            A checkpoint could not be written, and a second attempt failed too.
        """
        if self.unsaved and (problem := self._write()):
            raise KeepError(
                f"{problem}; make room on the disk, then start the training again to resume from the former checkpoint"
            )
        return self.folder / _name(self.best[0].epoch) / checkpoint.WEIGHTS

    def offer(self, epoch: Epoch, state: State) -> str | None:
        """Add `epoch` to the history and save `state`; return a message if the checkpoint cannot be written."""
        self.epochs.append(epoch)
        return self.save(state)

    def save(self, state: State) -> str | None:
        """Save `state` as the latest checkpoint; return a message if the checkpoint cannot be written.

        After a failure, former checkpoints stay. New checkpoints of the best epochs wait in memory for the next save.
        """
        latest = _name(state.epoch, state.step)
        self.unsaved[latest] = checkpoint.take(state, self.settings, self.epochs)
        self.unsaved = {name: content for name, content in self.unsaved.items() if name in (latest, *self._best())}
        if problem := self._write():
            self.unsaved = {name: content.copy() for name, content in self.unsaved.items()}
            return problem
        for folder in self.folder.glob(PATTERN):
            if folder.name not in (latest, *self._best()) and _is_checkpoint(folder):
                shutil.rmtree(folder)
        return None

    def keep(
        self, moments: Iterable[Step | Epoch], state: State, stop: Deferred, say: Callable[[str], None]
    ) -> Iterator[Step | Epoch]:
        """Yield each item of `moments` (the steps and epochs of the training) unchanged, and save `state` regularly.

        `state` is saved after each epoch, and within an epoch every INTERVAL seconds.
        If `stop` is requested, `state` is saved once more before the exit. `say` gets a message for each failed save.
        """
        last = time.monotonic()
        for moment in moments:
            if isinstance(moment, Epoch):
                _report(self.offer(moment, state), say)
                last = time.monotonic()
            elif time.monotonic() - last > INTERVAL:
                _report(self.save(state), say)
                last = time.monotonic()
            yield moment
            if stop.requested:
                _report(self.save(state), say)
                stop.check()

    def load(self, state: State) -> bool:
        """Restore `state` from the latest complete checkpoint; return False if no checkpoint is complete."""
        for partial in self.folder.glob(".*.partial"):  # the process was killed while it wrote the checkpoint
            _remove(partial)
        for folder in sorted(filter(_is_checkpoint, self.folder.glob(PATTERN)), reverse=True):
            try:
                content = checkpoint.read(folder)
            except checkpoint.CheckpointError:  # a process was killed while it removed this folder
                _remove(folder)
                continue
            self.epochs = checkpoint.history(content)
            if bool(self.epochs) == bool(content.rest["epoch"]) and all(
                (self.folder / name).is_dir() for name in self._best()
            ):
                try:
                    checkpoint.give(content, state)
                except checkpoint.CheckpointError as error:
                    raise KeepError(
                        f"{folder}: {error}; remove {self.folder} to start the training from the beginning"
                    ) from error
                return True
        self.epochs = []
        return False

    def named(self) -> dict[str, Path]:
        """Return a dict from names (last, best-00007, ...) to the checkpoint folders of a finished training run."""
        best = {f"best-{epoch.epoch:05d}": self.folder / _name(epoch.epoch) for epoch in self.best}
        return {"last": self.folder / _name(self.epochs[-1].epoch)} | best

    def _best(self) -> list[str]:
        return [_name(epoch.epoch) for epoch in self.best]

    def _write(self) -> str | None:
        """Write the unsaved checkpoints, the earliest first; return a message if one of them cannot be written."""
        for name in sorted(self.unsaved):
            try:
                if not (self.folder / name).exists():
                    checkpoint.write(self.folder / name, self.unsaved[name])
            except (OSError, SafetensorError) as error:
                return f"checkpoint {self.folder / name} cannot be written: {error}; the former checkpoint stays"
            del self.unsaved[name]
        return None


def _is_checkpoint(folder: Path) -> bool:
    return re.fullmatch(r"epoch-\d{5,}(-step-\d{6,})?", folder.name) is not None and not folder.is_symlink()


def _remove(folder: Path) -> None:
    """Remove a folder, a file or a symbolic link; the target of a link stays."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink()


def _report(problem: str | None, say: Callable[[str], None]) -> None:
    if problem:
        say(problem)


def _name(epoch: int, step: int = 0) -> str:
    return f"epoch-{epoch:05d}" + (f"-step-{step:06d}" if step else "")
