"""Laws of a search: its trials and its best trial depend only on its settings; judged by uninterrupted searches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from segline.params import Params, Train, Tune, Tuned, check
from segline.train import studies
from segline.train.loop import Epoch, TrainingError
from segline.train.search import OpenTrial, OvertimeError, Search, SearchError, TrialOutcome, best
from segline.train.space import SearchPlan

EPOCHS = 3
QUICK = {"trials": 6, "epochs": EPOCHS, "startup_trials": 2, "pruner_startup_trials": 2}


class Killed(BaseException):
    """Stands for SIGKILL: segline never catches it."""


def plan(train: dict[str, Any] | None = None, **tune: Any) -> SearchPlan:
    settings = check(Params, {"train": train or {}, "tune": QUICK | tune}, "params.yaml")
    return SearchPlan(Tuned(model=settings.model, augment=settings.augment, train=settings.train), settings.tune)


def opened(of: SearchPlan, journal: Path) -> Search:
    return Search(of, *studies.open_storage(str(journal), "study"), "study")


def epoch(number: int, iou: float, loss: float) -> Epoch:
    return Epoch(number, loss, loss, iou, 0.1, 2, 0.1, 0.9, 1.0)


def quality(settings: Train, number: int) -> float:
    """Return an artificial metric: best at learning rate 0.005 and momentum 0.9, and rising with each epoch."""
    distance = abs(settings.learning_rate - 0.005) * 50 + abs(settings.momentum - 0.9)
    kind = {"step": 0.1, "poly": 0.0}.get(settings.schedule.kind, 0.05)
    return (1 - distance - kind) * number / EPOCHS


def train(asked: OpenTrial) -> None:
    for number in range(1, asked.trained.train.epochs + 1):
        value = quality(asked.trained.train, number)
        if asked.report(epoch(number, value, -value)):
            asked.tell("pruned")
            return
    asked.tell("finished")


def searched(of: SearchPlan, journal: Path) -> list[TrialOutcome]:
    search = opened(of, journal)
    search.add_trials(of.tune.trials)
    for asked in search.trials(wait=False):
        train(asked)
    return search.outcomes(of.tune.trials)


@pytest.fixture
def uninterrupted(tmp_path: Path) -> list[TrialOutcome]:
    return searched(plan(), tmp_path / "uninterrupted.journal")


def test_equal_seeds_give_equal_trials_and_other_seeds_do_not(
    uninterrupted: list[TrialOutcome], tmp_path: Path
) -> None:
    assert searched(plan(), tmp_path / "again.journal") == uninterrupted
    assert searched(plan(seed=1), tmp_path / "other.journal")[1:] != uninterrupted[1:]
    assert {outcome.state for outcome in uninterrupted} == {"finished", "pruned"}


def test_trial_0_has_the_settings_of_params_yaml(uninterrupted: list[TrialOutcome]) -> None:
    own = uninterrupted[0]
    assert own.values["train.learning_rate"] == 0.003
    assert own.value == pytest.approx(quality(plan().base.train, EPOCHS))
    assert set(own.values) == {
        "train.learning_rate",
        "train.momentum",
        "train.weight_decay",
        "train.schedule.kind",
        "train.schedule.power",
        "train.tile",
        "train.dice_weight",
        "model.width",
        "model.norm",
        "model.input_norm",
        "augment.contrast",
        "augment.extra_probability",
    }


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
@pytest.mark.parametrize("lost", [True, False])
def test_a_search_killed_at_any_write_resumes_to_the_same_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str, lost: bool
) -> None:
    of = plan(pruner=pruner, trials=5)
    append, written = JournalFileBackend.append_logs, []

    def counted(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        if not lost:
            append(self, logs)
        written.append(None)
        if len(written) == deadline:
            raise Killed
        if lost:
            append(self, logs)

    deadline = -1
    monkeypatch.setattr(JournalFileBackend, "append_logs", counted)
    expected = searched(of, tmp_path / "expected.journal")
    writes = len(written)
    assert writes > 50
    for deadline in range(1, writes + 1, 9):
        written.clear()
        journal = tmp_path / f"{deadline}.journal"
        with pytest.raises(Killed):
            searched(of, journal)
        assert searched(of, journal) == expected, f"killed at write {deadline}"


def test_a_partial_last_line_of_the_journal_is_removed(uninterrupted: list[TrialOutcome], tmp_path: Path) -> None:
    journal = tmp_path / "half.journal"
    search = opened(plan(), journal)
    search.add_trials(6)
    trials = search.trials(wait=False)
    train(next(trials))
    train(next(trials))
    trials.close()
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":4,"wor')
    assert searched(plan(), journal) == uninterrupted


def test_a_search_can_grow_and_shrink(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    five = searched(plan(trials=5), journal)
    before = journal.read_bytes()
    eight = searched(plan(trials=8), journal)
    again = searched(plan(trials=5), journal)
    assert again == five
    assert eight[:5] == five
    assert journal.read_bytes().startswith(before)
    assert eight == searched(plan(trials=8), tmp_path / "eight.journal")
    assert best(again, plan().tune) == best(five, plan().tune)


def test_several_workers_share_the_trials(uninterrupted: list[TrialOutcome], tmp_path: Path) -> None:
    journal = tmp_path / "shared.journal"
    first = opened(plan(), journal)
    first.add_trials(6)
    second = Search.joined(plan(), *studies.open_storage(str(journal), "study"), "study")
    mine, yours = first.trials(wait=False), second.trials(wait=False)
    done = []
    for first_trial, second_trial in zip(mine, yours, strict=True):
        assert first_trial.number != second_trial.number
        done += [first_trial.number, second_trial.number]
        train(second_trial)
        train(first_trial)
    assert sorted(done) == list(range(6))
    outcomes = first.outcomes(6)
    assert outcomes == second.outcomes(6)
    assert outcomes[0] == uninterrupted[0]


def test_an_unfinished_trial_is_taken_over(tmp_path: Path) -> None:
    journal = tmp_path / "left.journal"
    first, second = opened(plan(), journal), opened(plan(), journal)
    first.add_trials(2)
    left = first.trials(wait=False)
    values = next(left).settings
    assert [asked.number for asked in _trained(second.trials(wait=False))] == [1]
    left.close()  # the operating system releases the claim of a killed process like this
    (taken,) = _trained(second.trials(wait=True))
    assert (taken.number, taken.settings) == (0, values)


def test_a_worker_that_wants_fewer_trials_leaves_the_others_alone(tmp_path: Path) -> None:
    journal = tmp_path / "wanted.journal"
    many, few = opened(plan(), journal), opened(plan(), journal)
    many.add_trials(4)
    few.add_trials(2)
    joined = Search.joined(plan(), *studies.open_storage(str(journal), "study"), "study")
    assert [search.total for search in (many, few, joined)] == [4, 2, 2]
    assert len(_trained(many.trials(wait=True))) == len(many.outcomes(4)) == 4


def _trained(trials: Iterator[OpenTrial]) -> list[OpenTrial]:
    return [asked for asked in trials if train(asked) is None]


class Clock:
    """A clock for the search. ``seconds``: what each trial takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.seconds = 0, 10
        monkeypatch.setattr("segline.train.search.perf_counter", lambda: self.now)

    def run(self, search: Search) -> int:
        """Train the trials of `search`; return the seconds that this takes."""
        started = self.now
        search.add_trials(search.plan.tune.trials)
        for asked in search.trials(wait=True):
            self.train(asked)
        return self.now - started

    def train(self, asked: OpenTrial) -> None:
        try:
            for _ in range(self.seconds):
                self.now += 1
                asked.check_time()
        except OvertimeError:
            asked.tell("pruned")
        else:
            train(asked)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("seconds", "trials", "taken"),
    [(10, 6, 60), (11, 6, 66), (12, 5, 60), (25, 3, 70), (59, 2, 70), (60, 1, 60), (200, 1, 200)],
)
def test_a_search_ends_when_its_time_is_used_up(
    tmp_path: Path, clock: Clock, seconds: int, trials: int, taken: int
) -> None:
    """A search of a minute ends in the second after 69 s at the latest, but trial 0 always ends."""
    clock.seconds = seconds
    search = opened(plan(minutes=1, pruner="none"), tmp_path / "study.journal")
    assert clock.run(search) == taken
    outcomes = search.outcomes(6)
    assert [outcome.number for outcome in outcomes] == [*range(trials)]
    assert outcomes[0].state == "finished"
    assert (outcomes[-1].state == "pruned") == (taken == 70)
    assert len(search.copy(6).trials) == trials


def test_a_longer_time_continues_the_search(tmp_path: Path, clock: Clock, uninterrupted: list[TrialOutcome]) -> None:
    clock.seconds = 30
    for minutes, trials in ((0.4, 1), (1, 2), (1, 2), (2.9, 6), (0.4, 6)):
        search = opened(plan(minutes=minutes), tmp_path / "study.journal")
        clock.run(search)
        assert search.outcomes(6) == uninterrupted[:trials]
    assert plan(minutes=1).content() == plan(train={"minutes": 3}).content()


def test_an_interruption_does_not_count_as_time_of_the_search(
    tmp_path: Path, clock: Clock, uninterrupted: list[TrialOutcome]
) -> None:
    former, search = (opened(plan(minutes=1), tmp_path / "study.journal") for _ in range(2))
    former.add_trials(6)
    left = former.trials(wait=True)
    clock.train(next(left))
    next(left)
    left.close()
    clock.now += 1000
    clock.run(search)
    assert search.outcomes(6) == uninterrupted


def test_workers_share_the_time_of_the_search(tmp_path: Path, clock: Clock) -> None:
    clock.seconds = 30
    search = opened(plan(minutes=1), tmp_path / "study.journal")
    search.add_trials(6)
    own = search.trials(wait=False)
    clock.train(next(own))
    left = next(own)  # trial 1 of a worker that will be killed
    joined = Search.joined(plan(), *studies.open_storage(str(tmp_path / "study.journal"), "study"), "study")
    others = joined.trials(wait=False)
    for asked in others:
        clock.train(asked)
    own.close()
    assert left.number == 1
    assert [outcome.number for outcome in joined.outcomes(6)] == [0, 2]
    assert clock.run(search) == 0  # a trial that was interrupted is not trained again if the time is used up


def test_a_missing_search_cannot_be_joined(tmp_path: Path) -> None:
    storage, claims = studies.open_storage(str(tmp_path / "empty.journal"), "study")
    with pytest.raises(
        studies.StudyError, match="no search in the storage has the settings, data and code of this folder"
    ):
        Search.joined(plan(), storage, claims, "study")


def test_only_parameters_of_the_drawn_schedule_are_drawn(tmp_path: Path) -> None:
    reads = {"poly": {"power"}, "cosine": set(), "one_cycle": {"warmup_percent"}, "step": {"step_epochs", "gamma"}}
    space: dict[str, Any] = {
        "train.schedule.kind": {"choices": list(reads)},
        "train.schedule.power": {"low": 0.5, "high": 2},
        "train.schedule.warmup_percent": {"low": 10, "high": 40},
        "train.schedule.step_epochs": {"low": 4, "high": 12},
        "train.schedule.gamma": {"low": 0.1, "high": 0.7},
    }
    of = plan(space=space, trials=16, sampler="random", pruner="none", epochs=1)
    outcomes = searched(of, tmp_path / "study.journal")
    for outcome in outcomes:
        kind = str(outcome.values["train.schedule.kind"])
        drawn = {name.rpartition(".")[2] for name in outcome.values if name.startswith("train.schedule.")}
        assert drawn - {"kind"} == reads[kind]
    assert {outcome.values["train.schedule.kind"] for outcome in outcomes} == set(reads)


def test_drawn_values_keep_to_the_space_and_its_types(tmp_path: Path) -> None:
    space: dict[str, Any] = {
        "model.width": {"low": 4, "high": 13, "step": 4},
        "model.norm": {"choices": ["none", "batch"]},
        "augment.mirror": {"choices": [True, False]},
        "train.batch_size": {"low": 1, "high": 8, "log": True},
        "augment.elastic_sigma": {"low": 0, "high": 10, "step": 2.5},
    }
    of = plan(space=space, trials=12, sampler="random", pruner="none", epochs=1)
    search = opened(of, tmp_path / "study.journal")
    search.add_trials(12)
    seen = [asked.settings for asked in _trained(search.trials(wait=False))]
    assert seen[0] == of.base  # its width of 16 is outside the space, which ends at 12
    assert {settings.model.width for settings in seen[1:]} == {4, 8, 12}
    assert {settings.augment.elastic_sigma for settings in seen[1:]} <= {0, 2.5, 5, 7.5, 10}
    assert {settings.augment.mirror for settings in seen[1:]} == {True, False}
    assert all(1 <= settings.train.batch_size <= 8 for settings in seen[1:])
    assert seen[3].searched == tuple(sorted({*space, "train.tiles_per_epoch"}))  # other widths get other numbers


def test_the_first_trials_keep_two_thirds_of_the_settings(tmp_path: Path) -> None:
    space = {f"augment.{name}": {"low": 0, "high": 0.9} for name in ("contrast", "brightness", "noise")}
    space |= {f"train.{name}": {"low": 0.1, "high": 0.9} for name in ("momentum", "dice_weight", "learning_rate")}
    of = plan(
        {"learning_rate": 0.95, "dice_weight": 0.5}, space=space, trials=30, startup_trials=29, pruner="none", epochs=1
    )
    outcomes = searched(of, tmp_path / "study.journal")
    own = of.base_values()
    changed = [{name for name, value in outcome.values.items() if value != own[name]} for outcome in outcomes[1:]]
    # The learning rate of params.yaml is not in the space, so each trial draws one; of the other five, two change.
    assert [len(names) for names in changed[:28]] == [3] * 28
    assert set.union(*changed[:28]) == set(space)
    assert len(changed[28]) == 6


def test_a_diverged_training_fails_its_trial_only(tmp_path: Path) -> None:
    search = opened(plan(trials=2), tmp_path / "study.journal")
    search.add_trials(2)
    trials = search.trials(wait=False)
    train(next(trials))
    asked = next(trials)
    with pytest.raises(TrainingError, match="validation loss is not finite"):
        OpenTrial.report(_by_loss(asked), epoch(1, 0.5, float("inf")))
    asked.tell("failed", "the loss is not finite")
    assert next(trials, None) is None
    assert [outcome.state for outcome in search.outcomes(2)] == ["finished", "failed"]
    assert best(search.outcomes(2), plan().tune).number == 0


def _by_loss(asked: OpenTrial) -> OpenTrial:
    asked.plan = plan(objective="minimize loss")
    return asked


def test_contradictory_settings_fail_their_trial_only(tmp_path: Path) -> None:
    space = {"augment.min_scale": {"low": 1.2, "high": 1.3}}  # above max_scale
    search = opened(plan(space=space, trials=3), tmp_path / "study.journal")
    search.add_trials(3)
    assert [asked.number for asked in _trained(search.trials(wait=False))] == [0]
    failed = search.outcomes(3)[1:]
    assert [outcome.state for outcome in failed] == ["failed"] * 2
    assert "is larger than max_scale 1.1; lower one or raise the other" in failed[0].reason


def test_the_best_trial_is_a_finished_trial() -> None:
    outcomes = [
        TrialOutcome(0, "finished", 0.5, 3, {}),
        TrialOutcome(1, "finished", 0.7, 3, {}),
        TrialOutcome(2, "finished", 0.7, 3, {}),
        TrialOutcome(3, "pruned", None, 1, {}),
    ]
    assert best(outcomes, Tune()).number == 1
    assert best(outcomes, Tune(objective="minimize loss")).number == 0
    with pytest.raises(SearchError, match="none of 1 trials finished: too steep"):
        best([TrialOutcome(0, "failed", None, 0, {}, "too steep")], Tune())


def test_the_value_of_a_trial_is_that_of_its_best_epoch(tmp_path: Path) -> None:
    of = plan(trials=1)
    search = opened(of, tmp_path / "study.journal")
    search.add_trials(1)
    for asked in search.trials(wait=False):
        for number, iou in enumerate((0.2, float("nan"), 0.4), 1):  # nan: no foreground is present or predicted
            assert not asked.report(epoch(number, iou, 1))
        asked.tell("finished")
    assert search.outcomes(1)[0].value == 1.0
    assert search.outcomes(1)[0].epochs == 3


def test_tpe_finds_better_values_than_random_draws(tmp_path: Path) -> None:
    values = {}
    for sampler in ("tpe", "random"):
        best_values = []
        for seed in range(3):
            of = plan(sampler=sampler, trials=25, seed=seed, pruner="none", epochs=1)
            outcomes = searched(of, tmp_path / f"{sampler}-{seed}.journal")
            best_values.append(max(outcome.value or 0 for outcome in outcomes[1:]))
        values[sampler] = sum(best_values)
    assert values["tpe"] > values["random"]


@pytest.mark.parametrize("address", ["mysql://user:secret@host/name", "sqlite:///study.db"])
def test_other_databases_than_postgresql_are_refused(address: str) -> None:
    with pytest.raises(studies.StudyError, match="a journal file or a PostgreSQL database") as refused:
        studies.open_storage(address, "study")
    assert "secret" not in str(refused.value)


@pytest.mark.usefixtures("uninterrupted")
def test_optuna_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    assert capsys.readouterr().err == ""
