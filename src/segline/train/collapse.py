"""Detect and report a collapse: the network predicts one class for every pixel."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from segline.params import Train


def collapsed(confusion: npt.NDArray[np.int64]) -> int | None:
    """Return the class id if one class is predicted for every pixel but the truth has several classes; otherwise None.

    `confusion`: (K, K), true classes in rows, as returned by `score.counts.confusion`.
    """
    predicted = np.flatnonzero(confusion.sum(axis=0))
    several = np.count_nonzero(confusion.sum(axis=1)) > 1
    return int(predicted[0]) if several and predicted.size == 1 else None


@dataclass
class Spell:
    """A collapse: in epochs `first` to `last`, every validation pixel was predicted as class `class_id`."""

    class_id: int
    first: int
    last: int


@dataclass
class Watch:
    """Record of the epochs in which predictions collapsed to a single class. ``classes`` maps class ids to names."""

    classes: Mapping[int, str]
    settings: Train
    spells: list[Spell] = field(default_factory=list)
    epoch: int = 0  # latest epoch passed to `update`

    def update(self, epoch: int, class_id: int | None) -> str | None:
        """Record whether the predictions of an epoch collapsed; return a message if a collapse begins or ends.

        `class_id` is the value that the function `collapsed` returned for this epoch.
        """
        spell = self._current()
        self.epoch = epoch
        if class_id is None:
            return None if spell is None else f"epoch {epoch}: the validation predictions contain several classes again"
        if spell is not None and spell.class_id == class_id:
            spell.last = epoch
            return None
        self.spells.append(Spell(class_id, epoch, epoch))
        return (
            f"epoch {epoch}: every validation pixel is predicted as {self._name(class_id)}, but the ground truth has "
            "other classes"
        )

    def verdict(self, kept: int) -> str | None:
        """Return a warning if predictions collapsed in the latest epoch or in epoch number `kept`; otherwise None.

        The warning suggests changes of settings. The weights of epoch number `kept` become the trained model.
        """
        relevant = [spell for spell in self.spells if spell is self._current() or spell.first <= kept <= spell.last]
        if not relevant:
            return None
        return (
            f"every validation pixel is predicted as {' and '.join(map(self._describe, relevant))} of {self.epoch} "
            f"(epoch {kept} is used); try weights.density_balance: 1, a higher weights.class_balance (up to 1), "
            f"a lower train.learning_rate (now {self.settings.learning_rate:g}) or "
            f"more train.epochs (now {self.settings.epochs})"
        )

    def _current(self) -> Spell | None:
        """Return the collapse that includes the latest epoch; None if this epoch's predictions did not collapse."""
        return self.spells[-1] if self.spells and self.spells[-1].last == self.epoch else None

    def _describe(self, spell: Spell) -> str:
        epochs = f"epoch {spell.first}" if spell.first == spell.last else f"epochs {spell.first} to {spell.last}"
        return f"{self._name(spell.class_id)} in {epochs}"

    def _name(self, class_id: int) -> str:
        return f"{self.classes[class_id]} (class {class_id})"
