"""The search for better settings by ask and tell: which values a trial takes, what came of it, and which one won.

A trial is known by its number. What it draws follows from the seed, its number and the trials that ended before it, so
that a search which is interrupted, or grown later, gives the same trials as one that is not.
"""

import hashlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, cast

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from segline.params import Axis, ParamsError, Tune, Tuned
from segline.train.loop import Epoch, TrainingError
from segline.train.space import KIND, Plan, Value, bounds, holds
from segline.train.studies import ALONE, Claims, StudyError

State = Literal["finished", "pruned", "failed"]

TOTAL, REASON = "trials", "reason"  # names of attributes of a study and of a trial
WAIT = 0.5  # s between two looks at the trials of other workers


class SearchError(RuntimeError):
    """A search without a result; the message says what to change."""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial. ``value``: of the best epoch; None when it did not run to its end."""

    number: int
    state: State
    value: float | None
    epochs: int
    values: dict[str, Value]  # that were drawn, by full name
    reason: str = ""  # why it failed


class Asked:
    """A trial to be trained: ``settings`` as train would take them, ``trained`` as the trial does."""

    def __init__(self, study: optuna.Study, trial: optuna.Trial, settings: Tuned, plan: Plan) -> None:
        self.number = trial.number
        self.settings = settings
        self.trained = plan.in_small(settings)
        self._study, self._trial, self._plan = study, trial, plan
        self._reported = dict(study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        self._figures: list[float] = []

    def report(self, epoch: Epoch) -> bool:
        """Take in what an epoch gave; True when the trial is to end here, being worse than others.

        Raises
        ------
        TrainingError
            The figure is not finite.
        """
        value = figure(self._plan.tune, epoch)
        if not math.isfinite(value):
            raise TrainingError(f"the validation loss is not finite in epoch {epoch.epoch}")
        self._figures.append(value)
        # A trial that is done again has reported its first epochs before, and was not ended there.
        if epoch.epoch not in self._reported:
            self._trial.report(value, epoch.epoch)
        # Nor is trial 0 ever: the others are compared with it.
        return self.number > 0 and epoch.epoch >= max(self._reported, default=0) and self._trial.should_prune()

    @property
    def value(self) -> float:
        """The figure of the best epoch so far."""
        return max(self._figures) if self._plan.tune.direction == "maximize" else min(self._figures)

    def tell(self, state: State, reason: str = "") -> None:
        """Close the trial; what another worker told meanwhile stays."""
        if reason:
            self._trial.set_user_attr(REASON, reason)
        if state == "finished":
            self._study.tell(self._trial, self.value, skip_if_finished=True)
        else:
            # Also what diverged is known to be bad, which the sampler learns from; of Optuna's FAIL it would not.
            self._study.tell(self._trial, state=TrialState.PRUNED, skip_if_finished=True)


class Search:
    """A study in its storage, worked on by any number of workers."""

    def __init__(self, plan: Plan, storage: BaseStorage, claims: Claims, name: str) -> None:
        self.plan, self.claims, self.storage = plan, claims, storage
        self._wanted: int | None = None
        self.study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=plan.tune.direction,
            pruner=_pruner(plan),
            sampler=RandomSampler(seed=0),  # set anew before each draw
            load_if_exists=True,
        )

    @classmethod
    def joined(cls, plan: Plan, storage: BaseStorage, claims: Claims, name: str) -> "Search":
        """The search that another worker has begun; StudyError when there is none with these settings and data."""
        names = optuna.get_all_study_names(storage)
        if name not in names:
            raise StudyError(
                f"there is no search with the settings, data and code of this folder ({name}); "
                f"the storage holds {', '.join(names) or 'none'}: start `dvc repro` first, and join from the same "
                "commit with the same data"
            )
        return cls(plan, storage, claims, name)

    def lay_out(self, total: int) -> None:
        """Make the trials that are missing to `total`; those beyond it are left as they are."""
        self._wanted = total
        with self.claims.claim(ALONE, wait=True):
            self.study.set_user_attr(TOTAL, total)
            for number in range(len(self._trials()), total):
                own = self._own_inside() if number == 0 else {}
                self.study.enqueue_trial(own)

    @property
    def total(self) -> int:
        """How many trials this worker has laid out; of one that joined, what the last that did so wants."""
        return self._wanted if self._wanted is not None else int(self.study.user_attrs.get(TOTAL, 0))

    def trials(self, wait: bool, check: Callable[[], None] = lambda: None) -> Generator[Asked]:
        """The trials that this worker has to train, one after the other, each held until the next is asked for.

        Parameters
        ----------
        wait : until those of other workers are finished, to take over what they leave undone.
        check : called between trials, and while it waits; what it raises ends this.
        """
        while unfinished := [t.number for t in self._trials()[: self.total] if not t.state.is_finished()]:
            idle = True
            for number in unfinished:
                check()
                with self.claims.claim(number) as mine:
                    if mine and (asked := self._ask(number)):
                        idle = False
                        yield asked
            if idle and not wait:
                return
            if idle:
                check()
                time.sleep(WAIT)

    def outcomes(self, total: int) -> list[Outcome]:
        """The finished trials among the first `total`."""
        return [self._outcome(trial) for trial in self._trials()[:total] if trial.state.is_finished()]

    def copy(self, total: int) -> optuna.Study:
        """The first `total` trials as a study of its own, in memory."""
        study = optuna.create_study(direction=self.plan.tune.direction, study_name=self.study.study_name)
        study.add_trials(self._trials()[:total])
        return study

    def _ask(self, number: int) -> Asked | None:
        """Trial `number`, which this worker holds, with its values drawn; None when it is finished."""
        frozen = self._trials()[number]
        if frozen.state.is_finished():
            return None
        # One that is RUNNING was left by a worker that ended: its claim was free.
        if frozen.state == TrialState.WAITING:
            self.storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
        self.study.sampler = self._sampler(number, "")
        trial = optuna.Trial(self.study, frozen._trial_id)
        values = self._draw(trial)
        try:
            settings = self.plan.settings(values) if number else self.plan.base
        except ParamsError as error:
            trial.set_user_attr(REASON, str(error))
            self.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            return None
        return Asked(self.study, trial, settings, self.plan)

    def _draw(self, trial: optuna.Trial) -> dict[str, Value]:
        """Values by full name; of trial 0 those of params.yaml that can be drawn."""
        values: dict[str, Value] = {}
        _ = trial.relative_params  # drawn together, so before a sampler for a single one is set
        kind = self.plan.tune.space.get(KIND)
        base = self.plan.base.train.schedule.kind
        if kind and (trial.number or holds(kind, base)):
            values[KIND] = self._suggest(trial, kind)
        for axis in self.plan.axes(str(values.get(KIND, base))):
            if trial.number or axis.name in self._own_inside():
                values[axis.name] = self._suggest(trial, axis)
        return values

    def _own_inside(self) -> dict[str, Value]:
        return {name: value for name, value in self.plan.own().items() if holds(self.plan.tune.space[name], value)}

    def _suggest(self, trial: optuna.Trial, axis: Axis) -> Value:
        # A sampler for each name: of a trial done again, some values may be there and others not.
        self.study.sampler = self._sampler(trial.number, axis.name)
        if axis.choices is not None:
            return cast(Value, trial.suggest_categorical(axis.name, axis.choices))
        low, high = bounds(axis)
        if axis.whole:
            return trial.suggest_int(axis.name, int(low), int(high), step=int(axis.step or 1), log=axis.log)
        return trial.suggest_float(axis.name, low, high, step=axis.step, log=axis.log)

    def _sampler(self, number: int, name: str) -> BaseSampler:
        tune = self.plan.tune
        text = f"{tune.seed} {number} {name}".encode()
        seed = int.from_bytes(hashlib.md5(text, usedforsecurity=False).digest()[:4], "big")
        if tune.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=tune.startup_trials)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _outcome(self, trial: FrozenTrial) -> Outcome:
        state: State = "finished"
        if trial.state != TrialState.COMPLETE:
            state = "failed" if REASON in trial.user_attrs else "pruned"
        values = self.plan.own() if trial.number == 0 else trial.params
        value = trial.value if state == "finished" else None
        return Outcome(trial.number, state, value, trial.last_step or 0, values, trial.user_attrs.get(REASON, ""))


def figure(tune: Tune, epoch: Epoch) -> float:
    """What the objective says of an epoch. A mean IoU that is nan is right: there was no foreground, none was found."""
    if tune.metric == "loss":
        return epoch.validation_loss
    return 1.0 if math.isnan(epoch.validation_mean_iou) else epoch.validation_mean_iou


def best(outcomes: list[Outcome], tune: Tune) -> Outcome:
    """The winner; of equals, the earlier.

    Raises
    ------
    SearchError
        No trial ran to its end.
    """
    finished = [(outcome.value, outcome) for outcome in outcomes if outcome.value is not None]
    if not finished:
        reasons = {outcome.reason for outcome in outcomes if outcome.reason}
        raise SearchError(f"none of {len(outcomes)} trials ran to its end: {'; '.join(sorted(reasons))}")
    sign = -1 if tune.direction == "maximize" else 1
    return min(finished, key=lambda found: (sign * found[0], found[1].number))[1]


def _pruner(plan: Plan) -> BasePruner:
    tune = plan.tune
    match tune.pruner:
        case "median":
            return MedianPruner(tune.pruner_startup_trials, tune.pruner_warmup_epochs)
        case "hyperband":
            return HyperbandPruner(max(1, tune.pruner_warmup_epochs), plan.epochs, tune.reduction_factor)
        case "none":
            return NopPruner()
