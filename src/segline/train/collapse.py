"""Notices a training that predicts one class everywhere, and says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from segline.params import Train


def collapsed(confusion: npt.NDArray[np.int64]) -> int | None:
    """The class that every pixel was given, where the truth has several; None where there is no such class.

    `confusion`: (K, K), true classes in rows, as `score.counts.confusion` has it.
    """
    predicted = np.flatnonzero(confusion.sum(axis=0))
    several = np.count_nonzero(confusion.sum(axis=1)) > 1
    return int(predicted[0]) if several and predicted.size == 1 else None


@dataclass
class Spell:
    """Epochs `first` to `last`, in which all validation pixels were given one class."""

    class_id: int
    first: int
    last: int


@dataclass
class Watch:
    """The collapses of one training; `classes`: the names of the class ids."""

    classes: Mapping[int, str]
    settings: Train
    spells: list[Spell] = field(default_factory=list)
    epoch: int = 0  # the last one seen

    def see(self, epoch: int, class_id: int | None) -> str | None:
        """Take in what `collapsed` found in the next epoch; return what is to be said when it begins or ends."""
        before = self._present()
        self.epoch = epoch
        if class_id is None:
            return None if before is None else f"epoch {epoch}: the validation predictions hold several classes again"
        if before is not None and before.class_id == class_id:
            before.last = epoch
            return None
        self.spells.append(Spell(class_id, epoch, epoch))
        return f"epoch {epoch}: every validation pixel is predicted {self._name(class_id)}; the truth has other classes"

    def verdict(self, kept: int) -> str | None:
        """What is wrong at the end, when epoch `kept` is the one that is used, and what to try; None if nothing is.

        A collapse that ended is forgiven, unless the epoch that is used lies in it.
        """
        matter = [spell for spell in self.spells if spell is self._present() or spell.first <= kept <= spell.last]
        if not matter:
            return None
        return (
            f"every validation pixel is predicted {' and '.join(map(self._describe, matter))} of {self.epoch} "
            f"(epoch {kept} is used); try weights.density_balance: 1, a higher weights.class_balance (up to 1), "
            f"a lower train.learning_rate (now {self.settings.learning_rate:g}) or "
            f"more train.epochs (now {self.settings.epochs})"
        )

    def _present(self) -> Spell | None:
        """The spell that the last epoch seen is part of."""
        return self.spells[-1] if self.spells and self.spells[-1].last == self.epoch else None

    def _describe(self, spell: Spell) -> str:
        epochs = f"epoch {spell.first}" if spell.first == spell.last else f"epochs {spell.first} to {spell.last}"
        return f"{self._name(spell.class_id)} in {epochs}"

    def _name(self, class_id: int) -> str:
        return f"{self.classes[class_id]} (class {class_id})"
