"""Which moments of a training are worth keeping on disk: the latest, from which it can go on, and the best epochs."""

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
from segline.train.loop import Epoch, State, Step

SECONDS = 300  # of an epoch that may be lost when the process is killed
EVERY = "epoch-*"


class KeepError(RuntimeError):
    """What a training must keep cannot be written; the message says what to do."""


def better(settings: Train, epoch: Epoch) -> float:
    """What `train.monitor` says of an epoch, so that larger is better.

    A mean IoU that is nan is right: there was no foreground, and none was found.
    """
    if settings.monitor == "loss":
        return -epoch.validation_loss
    return 1.0 if math.isnan(epoch.validation_mean_iou) else epoch.validation_mean_iou


@dataclass
class Kept:
    """The history of a training, and its checkpoints in `folder`: one of the latest moment, one of each of the best.

    They are named for finished epochs, epoch-00007, and, within one, for its steps too: epoch-00007-step-000120.
    A checkpoint is there as a whole or not at all, and the latest never without the best ones that its history names:
    whenever the process ends, `load` finds what to go on from.
    """

    folder: Path
    settings: Train
    epochs: list[Epoch] = field(default_factory=list)
    unsaved: dict[str, checkpoint.Content] = field(default_factory=dict)  # for want of room on the disk

    @property
    def best(self) -> list[Epoch]:
        """The `train.keep_best` best epochs, best first; of equals, the earlier."""
        ranked = sorted(self.epochs, key=lambda epoch: (-better(self.settings, epoch), epoch.epoch))
        return ranked[: self.settings.keep_best]

    @property
    def weights(self) -> Path:
        """The weights of the best epoch.

        Raises
        ------
        KeepError
            There was no room to save them, and there is none now.
        """
        if self.unsaved and (trouble := self._write()):
            raise KeepError(f"{trouble}; make room on the disk, and the next start goes on from there")
        return self.folder / _name(self.best[0].epoch) / checkpoint.WEIGHTS

    def offer(self, epoch: Epoch, state: State) -> str | None:
        """Take in `epoch` and save `state`, as it is after it; returns what to say where that failed."""
        self.epochs.append(epoch)
        return self.save(state)

    def save(self, state: State) -> str | None:
        """Save `state`, as it is after some step; returns what to say where that failed.

        The checkpoints before stay, and what belongs to the best epochs is held in memory and written next time.
        """
        latest = _name(state.epoch, state.step)
        self.unsaved[latest] = checkpoint.take(state, self.settings, self.epochs)
        self.unsaved = {name: content for name, content in self.unsaved.items() if name in (latest, *self._best())}
        if trouble := self._write():
            self.unsaved = {name: content.copy() for name, content in self.unsaved.items()}
            return trouble
        for folder in self.folder.glob(EVERY):
            if folder.name not in (latest, *self._best()) and _is_checkpoint(folder):
                shutil.rmtree(folder)
        return None

    def keep(
        self, moments: Iterable[Step | Epoch], state: State, stop: Deferred, say: Callable[[str], None]
    ) -> Iterator[Step | Epoch]:
        """Pass on `moments` of the training of `state`, saved: each epoch, and from time to time within one.

        When `stop` is asked for, save once more and leave; `say` is told what cannot be saved.
        """
        last = time.monotonic()
        for moment in moments:
            if isinstance(moment, Epoch):
                _say(self.offer(moment, state), say)
                last = time.monotonic()
            elif time.monotonic() - last > SECONDS:
                _say(self.save(state), say)
                last = time.monotonic()
            yield moment
            if stop.asked:
                _say(self.save(state), say)
                stop.check()

    def load(self, state: State) -> bool:
        """Set `state`, freshly made by `loop.start`, to the latest moment that was saved; False where there is none."""
        for partial in self.folder.glob(".*.partial"):  # the process ended while it was written
            _remove(partial)
        for folder in sorted(filter(_is_checkpoint, self.folder.glob(EVERY)), reverse=True):
            try:
                content = checkpoint.read(folder)
            except checkpoint.CheckpointError:  # the process ended while it was removed; an earlier one does as well
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
                        f"{folder}: {error}; remove {self.folder}, and the training starts afresh"
                    ) from error
                return True
        self.epochs = []
        return False

    def named(self) -> dict[str, Path]:
        """The checkpoints of a finished training by what they are: last and best-00007."""
        best = {f"best-{epoch.epoch:05d}": self.folder / _name(epoch.epoch) for epoch in self.best}
        return {"last": self.folder / _name(self.epochs[-1].epoch)} | best

    def _best(self) -> list[str]:
        return [_name(epoch.epoch) for epoch in self.best]

    def _write(self) -> str | None:
        """Write what is unsaved, the earliest first; returns what to say where that failed."""
        for name in sorted(self.unsaved):
            try:
                if not (self.folder / name).exists():
                    checkpoint.write(self.folder / name, self.unsaved[name])
            except (OSError, SafetensorError) as error:
                return f"checkpoint {self.folder / name} cannot be written: {error}; the one before it stays"
            del self.unsaved[name]
        return None


def _is_checkpoint(folder: Path) -> bool:
    return re.fullmatch(r"epoch-\d{5,}(-step-\d{6,})?", folder.name) is not None and not folder.is_symlink()


def _remove(folder: Path) -> None:
    """Remove a folder, or a link, but not what that leads to."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink()


def _say(trouble: str | None, say: Callable[[str], None]) -> None:
    if trouble:
        say(trouble)


def _name(epoch: int, step: int = 0) -> str:
    return f"epoch-{epoch:05d}" + (f"-step-{step:06d}" if step else "")
