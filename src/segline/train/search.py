"""Search for better settings with Optuna: sample the values of each trial, record its outcome, and find the best trial.

The seed, the number of a trial and the trials that finished before determine the values of the trial. So a search that
was interrupted, or extended later, has the same trials as an uninterrupted one.
"""

import hashlib
import math
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import Literal, cast

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from segline.params import Axis, ParamsError, Tune, Tuned
from segline.train.loop import OVERTIME, Epoch, TrainingError
from segline.train.space import KIND, SearchPlan, Value, bounds, holds
from segline.train.studies import ALONE, Claims, StudyError

State = Literal["finished", "pruned", "failed"]

TOTAL, MINUTES = "trials", "minutes"  # user attributes of a study
REASON, SECONDS = "reason", "seconds"  # user attributes of a trial
CHANGED = 1 / 3  # share of the settings that a trial changes before TPE learns from earlier trials
POLL_INTERVAL = 0.5  # seconds between two checks of the trials of other workers


class SearchError(RuntimeError):
    """The search has no result; the message says what to change."""


class OvertimeError(RuntimeError):
    """A trial must end, because the search exceeds tune.minutes too far."""


@dataclass(frozen=True)
class TrialOutcome:
    """Outcome of a trial. ``value``: objective of the best epoch; None if the trial did not finish."""

    number: int
    state: State
    value: float | None
    epochs: int
    values: dict[str, Value]  # sampled values by full setting name
    reason: str = ""  # why the trial failed


class OpenTrial:
    """A trial to train. ``settings``: as drawn; ``trained``: the same, for the short training of the search.

    ``longest``: seconds after which the trial must end.
    """

    def __init__(
        self, study: optuna.Study, trial: optuna.Trial, settings: Tuned, plan: SearchPlan, longest: float
    ) -> None:
        self.number = trial.number
        self.settings = settings
        self.trained = plan.shortened(settings)
        self.plan = plan
        self._study, self._trial = study, trial
        self._started, self._longest = perf_counter(), longest
        self._reported = dict(study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        self._values: list[float] = []

    def report(self, epoch: Epoch) -> bool:
        """Record the objective of an epoch; return True if the trial should be pruned because other trials are better.

        Raises
        ------
        TrainingError
            The objective is not finite.
        """
        value = objective(self.plan.tune, epoch)
        if not math.isfinite(value):
            raise TrainingError(
                f"the validation loss is not finite in epoch {epoch.epoch}; lower train.learning_rate, or its largest "
                "value in tune.space"
            )
        self._values.append(value)
        # If the trial's former worker was killed, the study already has the first epochs. Do not record them again.
        if epoch.epoch not in self._reported:
            self._trial.report(value, epoch.epoch)
        # Trial 0 is never pruned, because the other trials are compared with it.
        return self.number > 0 and epoch.epoch >= max(self._reported, default=0) and self._trial.should_prune()

    def check_time(self) -> None:
        """Raise OvertimeError if the trial must end."""
        if perf_counter() - self._started > self._longest:
            raise OvertimeError(f"trial {self.number} takes too long")

    @property
    def value(self) -> float:
        """Objective of the best epoch so far."""
        return max(self._values) if self.plan.tune.direction == "maximize" else min(self._values)

    def tell(self, state: State, reason: str = "") -> None:
        """Record the outcome of the trial in the study, unless another worker has already recorded one."""
        with suppress(UpdateFinishedTrialError):
            # Optuna's duration of a trial that was interrupted and trained again would include the interruption.
            self._trial.set_user_attr(SECONDS, perf_counter() - self._started)
            if reason:
                self._trial.set_user_attr(REASON, reason)
        if state == "finished":
            self._study.tell(self._trial, self.value, skip_if_finished=True)
        else:
            # Record failed trials as pruned, because the sampler learns from pruned trials but ignores failed ones.
            self._study.tell(self._trial, state=TrialState.PRUNED, skip_if_finished=True)


class Search:
    """An Optuna study in a storage that any number of workers may share."""

    def __init__(self, plan: SearchPlan, storage: BaseStorage, claims: Claims, name: str) -> None:
        self.plan, self.claims, self.storage = plan, claims, storage
        self._total: int | None = None
        self.study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=plan.tune.direction,
            pruner=_pruner(plan),
            sampler=RandomSampler(seed=0),  # replaced before each sampling
            load_if_exists=True,
        )

    @classmethod
    def joined(cls, plan: SearchPlan, storage: BaseStorage, claims: Claims, name: str) -> "Search":
        """Join the search `name` that another worker has started; raise StudyError if the storage lacks this search."""
        names = optuna.get_all_study_names(storage)
        if name not in names:
            raise StudyError(
                f"no search in the storage has the settings, data and code of this folder (search key {name}); "
                f"the storage has the search keys: {', '.join(names) or 'none'}. Start the search with `dvc repro` "
                "first; then join it from a folder with the same commit and data"
            )
        return cls(plan, storage, claims, name)

    def add_trials(self, total: int) -> None:
        """Add trials until the study has `total` trials. If the study already has more trials, keep them all."""
        self._total = total
        with self.claims.claim(ALONE, wait=True):
            self.study.set_user_attr(TOTAL, total)
            self.study.set_user_attr(MINUTES, self.minutes)
            for number in range(len(self._trials()), total):
                self.study.enqueue_trial(self._kept(number))

    @property
    def total(self) -> int:
        """Number of trials, as given to `add_trials`. A worker that joined a search reads the number from the study."""
        return self._total if self._total is not None else int(self.study.user_attrs.get(TOTAL, 0))

    @property
    def minutes(self) -> float:
        """Longest time of the search, 0: no limit. A worker that joined a search reads it from the study."""
        return self.plan.tune.minutes if self._total is not None else float(self.study.user_attrs.get(MINUTES, 0))

    def trials(self, wait: bool, check: Callable[[], None] = lambda: None) -> Generator[OpenTrial]:
        """Yield each trial that this worker must train; keep the trial locked until the next trial is requested.

        No trial but trial 0 starts as soon as the finished trials have taken the longest time of the search.

        Parameters
        ----------
        wait : wait for the trials of other workers too, and take over those that they leave unfinished.
        check : called between trials and while waiting; an exception that it raises ends the generator.
        """
        while unfinished := self._unfinished():
            trained = others = False
            for number in unfinished:
                check()
                with self.claims.claim(number) as claimed:
                    others |= not claimed
                    if claimed and (asked := self._ask(number)):
                        trained = True
                        yield asked
                if trained:
                    break  # the time of the search may be used up now
            if not trained:
                if not (wait and others):
                    return
                check()
                sleep(POLL_INTERVAL)

    def outcomes(self, total: int) -> list[TrialOutcome]:
        """Return the outcomes of the finished trials whose numbers are below `total`."""
        return [self._outcome(trial) for trial in self._trials()[:total] if trial.state.is_finished()]

    def copy(self, total: int) -> optuna.Study:
        """Return a copy of the study, in memory, with only the finished trials whose numbers are below `total`."""
        study = optuna.create_study(direction=self.plan.tune.direction, study_name=self.study.study_name)
        study.add_trials([trial for trial in self._trials()[:total] if trial.state.is_finished()])
        return study

    def _unfinished(self) -> list[int]:
        """Return the numbers of the unfinished trials; if the time is used up, without those that wait to start."""
        waiting = self._seconds_left() > 0
        return [
            trial.number
            for trial in self._trials()[: self.total]
            if not trial.state.is_finished() and (waiting or trial.number == 0 or trial.state == TrialState.RUNNING)
        ]

    def _seconds_left(self, factor: float = 1) -> float:
        """Return the time until the search has taken `factor` times its longest time; infinity without a limit.

        Only finished trials count, so that all workers agree, and so that interruptions do not count.
        """
        limit = factor * 60 * self.minutes
        if not limit:
            return math.inf
        finished = [trial for trial in self._trials()[: self.total] if trial.state.is_finished()]
        return limit - sum(float(trial.user_attrs.get(SECONDS, 0)) for trial in finished)

    def _ask(self, number: int) -> OpenTrial | None:
        """Return trial `number` (already claimed) with sampled values, or None if the trial needs no training."""
        frozen = self._trials()[number]
        if frozen.state.is_finished() or (number and self._seconds_left() <= 0):
            return None
        # If this worker can claim a RUNNING trial, the trial's former worker was killed. Train the trial again.
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
        # Trial 0 is never ended early, because the other trials are compared with it.
        longest = self._seconds_left(OVERTIME) if number else math.inf
        return OpenTrial(self.study, trial, settings, self.plan, longest)

    def _draw(self, trial: optuna.Trial) -> dict[str, Value]:
        """Sample a value for each searched setting. Trial 0 takes the settings before the search that the space allows.

        The keys of the returned dict are full setting names.
        """
        values: dict[str, Value] = {}
        _ = trial.relative_params  # sample jointly; `_suggest` later sets samplers for single settings
        kind = self.plan.tune.space.get(KIND)
        base = self.plan.base.train.schedule.kind
        if kind and (trial.number or holds(kind, base)):
            values[KIND] = self._suggest(trial, kind)
        for axis in self.plan.axes(str(values.get(KIND, base))):
            if trial.number or axis.name in self._base_values():
                values[axis.name] = self._suggest(trial, axis)
        return values

    def _base_values(self) -> dict[str, Value]:
        """Return those values of `plan.base_values()` that lie within the search space."""
        return {
            name: value for name, value in self.plan.base_values().items() if holds(self.plan.tune.space[name], value)
        }

    def _kept(self, number: int) -> dict[str, Value]:
        """Return the values of trial 0 that trial `number` keeps: all of them, or, before TPE learns, two thirds.

        A trial that changed everything at once would nearly always be worse than settings that were chosen with reason.
        """
        tune, base = self.plan.tune, self._base_values()
        if number == 0:
            return base
        if tune.sampler == "random" or number >= tune.startup_trials:
            return {}
        names = sorted(base, key=lambda name: _seed(tune, number, f"kept {name}"))
        return {name: base[name] for name in names[math.ceil(CHANGED * len(names)) :]}

    def _suggest(self, trial: optuna.Trial, axis: Axis) -> Value:
        # Use one random seed per setting, so that a trial that is trained again gets the same values as before.
        # With one common seed for all settings, a setting whose value is already stored would draw no random number,
        # so the settings after it would get other random numbers than before.
        self.study.sampler = self._sampler(trial.number, axis.name)
        if axis.choices is not None:
            return cast(Value, trial.suggest_categorical(axis.name, axis.choices))
        low, high = bounds(axis)
        if axis.whole:
            return trial.suggest_int(axis.name, int(low), int(high), step=int(axis.step or 1), log=axis.log)
        return trial.suggest_float(axis.name, low, high, step=axis.step, log=axis.log)

    def _sampler(self, number: int, name: str) -> BaseSampler:
        tune = self.plan.tune
        seed = _seed(tune, number, name)
        if tune.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=tune.startup_trials)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _outcome(self, trial: FrozenTrial) -> TrialOutcome:
        state: State = "finished"
        if trial.state != TrialState.COMPLETE:
            state = "failed" if REASON in trial.user_attrs else "pruned"
        values = self.plan.base_values() if trial.number == 0 else trial.params
        value = trial.value if state == "finished" else None
        return TrialOutcome(trial.number, state, value, trial.last_step or 0, values, trial.user_attrs.get(REASON, ""))


def _seed(tune: Tune, number: int, name: str) -> int:
    """Return a random number that depends on the seed of the search, the number of a trial, and a name."""
    text = f"{tune.seed} {number} {name}".encode()
    return int.from_bytes(hashlib.md5(text, usedforsecurity=False).digest()[:4], "big")


def objective(tune: Tune, epoch: Epoch) -> float:
    """Return the objective of an epoch. A mean IoU of nan (no foreground present or predicted) counts as 1."""
    if tune.metric == "loss":
        return epoch.validation_loss
    return 1.0 if math.isnan(epoch.validation_mean_iou) else epoch.validation_mean_iou


def best(outcomes: list[TrialOutcome], tune: Tune) -> TrialOutcome:
    """Return the best finished trial; of two equally good trials, return the earlier one.

    Raises
    ------
    SearchError
        No trial has finished.
    """
    finished = [(outcome.value, outcome) for outcome in outcomes if outcome.value is not None]
    if not finished:
        reasons = {outcome.reason for outcome in outcomes if outcome.reason}
        raise SearchError(f"none of {len(outcomes)} trials finished: {'; '.join(sorted(reasons))}")
    sign = -1 if tune.direction == "maximize" else 1
    return min(finished, key=lambda pair: (sign * pair[0], pair[1].number))[1]


def _pruner(plan: SearchPlan) -> BasePruner:
    tune = plan.tune
    match tune.pruner:
        case "median":
            return MedianPruner(tune.pruner_startup_trials, tune.pruner_warmup_epochs)
        case "hyperband":
            return HyperbandPruner(max(1, tune.pruner_warmup_epochs), plan.epochs, tune.reduction_factor)
        case "none":
            return NopPruner()
