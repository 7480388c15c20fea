"""Laws of a search: what it draws and who wins follow from its settings alone; judged by runs without disturbance."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from segline.params import Params, Train, Tune, Tuned, check
from segline.train import studies
from segline.train.loop import Epoch, TrainingError
from segline.train.search import Asked, Outcome, Search, SearchError, best
from segline.train.space import Plan

EPOCHS = 3
QUICK = {"trials": 6, "epochs": EPOCHS, "startup_trials": 2, "pruner_startup_trials": 2}


class Killed(BaseException):
    """In the place of SIGKILL: nothing of segline catches it."""


def plan(train: dict[str, Any] | None = None, **tune: Any) -> Plan:
    settings = check(Params, {"train": train or {}, "tune": QUICK | tune}, "params.yaml")
    return Plan(Tuned(model=settings.model, augment=settings.augment, train=settings.train), settings.tune)


def opened(of: Plan, journal: Path) -> Search:
    return Search(of, *studies.open_storage(str(journal), "study"), "study")


def epoch(number: int, iou: float, loss: float) -> Epoch:
    return Epoch(number, loss, loss, iou, 0.1, 2, 0.1, 0.9, 1.0)


def quality(settings: Train, number: int) -> float:
    """Made up: best at a learning rate of 0.005 with a momentum of 0.9, and better with each epoch."""
    distance = abs(settings.learning_rate - 0.005) * 50 + abs(settings.momentum - 0.9)
    kind = {"step": 0.1, "poly": 0.0}.get(settings.schedule.kind, 0.05)
    return (1 - distance - kind) * number / EPOCHS


def train(asked: Asked) -> None:
    for number in range(1, asked.trained.train.epochs + 1):
        value = quality(asked.trained.train, number)
        if asked.report(epoch(number, value, -value)):
            asked.tell("pruned")
            return
    asked.tell("finished")


def searched(of: Plan, journal: Path) -> list[Outcome]:
    search = opened(of, journal)
    search.lay_out(of.tune.trials)
    for asked in search.trials(wait=False):
        train(asked)
    return search.outcomes(of.tune.trials)


@pytest.fixture
def undisturbed(tmp_path: Path) -> list[Outcome]:
    return searched(plan(), tmp_path / "undisturbed.journal")


def test_the_same_search_gives_the_same_trials_and_another_seed_others(
    undisturbed: list[Outcome], tmp_path: Path
) -> None:
    assert searched(plan(), tmp_path / "again.journal") == undisturbed
    assert searched(plan(seed=1), tmp_path / "other.journal")[1:] != undisturbed[1:]
    assert {outcome.state for outcome in undisturbed} == {"finished", "pruned"}


def test_trial_0_has_the_settings_of_the_file(undisturbed: list[Outcome]) -> None:
    own = undisturbed[0]
    assert own.values["train.learning_rate"] == 0.003
    assert own.value == pytest.approx(quality(plan().base.train, EPOCHS))
    assert set(own.values) == {
        "train.learning_rate",
        "train.momentum",
        "train.weight_decay",
        "train.batch_size",
        "train.schedule.kind",
        "train.schedule.power",
    }


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
@pytest.mark.parametrize("lost", [True, False])
def test_a_search_killed_at_any_write_continues_as_if_it_had_not_been(
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


def test_half_a_line_at_the_end_of_the_journal_is_cut_off(undisturbed: list[Outcome], tmp_path: Path) -> None:
    journal = tmp_path / "half.journal"
    search = opened(plan(), journal)
    search.lay_out(6)
    trials = search.trials(wait=False)
    train(next(trials))
    train(next(trials))
    trials.close()
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":4,"wor')
    assert searched(plan(), journal) == undisturbed


def test_a_search_grown_and_shrunk_keeps_what_is_there(tmp_path: Path) -> None:
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


def test_several_workers_share_the_trials(undisturbed: list[Outcome], tmp_path: Path) -> None:
    journal = tmp_path / "shared.journal"
    first = opened(plan(), journal)
    first.lay_out(6)
    second = Search.joined(plan(), *studies.open_storage(str(journal), "study"), "study")
    mine, yours = first.trials(wait=False), second.trials(wait=False)
    done = []
    for one, other in zip(mine, yours, strict=True):
        assert one.number != other.number
        done += [one.number, other.number]
        train(other)
        train(one)
    assert sorted(done) == list(range(6))
    found = first.outcomes(6)
    assert found == second.outcomes(6)
    assert found[0] == undisturbed[0]


def test_what_a_worker_leaves_undone_is_taken_over(tmp_path: Path) -> None:
    journal = tmp_path / "left.journal"
    first, second = opened(plan(), journal), opened(plan(), journal)
    first.lay_out(2)
    left = first.trials(wait=False)
    values = next(left).settings
    assert [asked.number for asked in _trained(second.trials(wait=False))] == [1]
    left.close()  # as the operating system frees the claim of a killed process
    (taken,) = _trained(second.trials(wait=True))
    assert (taken.number, taken.settings) == (0, values)


def test_who_wants_fewer_trials_takes_none_from_others(tmp_path: Path) -> None:
    journal = tmp_path / "wanted.journal"
    many, few = opened(plan(), journal), opened(plan(), journal)
    many.lay_out(4)
    few.lay_out(2)
    joined = Search.joined(plan(), *studies.open_storage(str(journal), "study"), "study")
    assert [search.total for search in (many, few, joined)] == [4, 2, 2]
    assert len(_trained(many.trials(wait=True))) == len(many.outcomes(4)) == 4


def _trained(trials: Iterator[Asked]) -> list[Asked]:
    return [asked for asked in trials if train(asked) is None]


def test_a_search_that_is_not_there_cannot_be_joined(tmp_path: Path) -> None:
    storage, claims = studies.open_storage(str(tmp_path / "empty.journal"), "study")
    with pytest.raises(studies.StudyError, match="no search with the settings, data and code of this folder"):
        Search.joined(plan(), storage, claims, "study")


def test_only_the_drawn_schedule_has_its_parameters_drawn(tmp_path: Path) -> None:
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


def test_what_is_drawn_keeps_to_the_space_and_its_types(tmp_path: Path) -> None:
    space: dict[str, Any] = {
        "model.width": {"low": 4, "high": 13, "step": 4},
        "model.norm": {"choices": ["none", "batch"]},
        "augment.mirror": {"choices": [True, False]},
        "train.batch_size": {"low": 1, "high": 8, "log": True},
        "augment.elastic_sigma": {"low": 0, "high": 10, "step": 2.5},
    }
    of = plan(space=space, trials=12, sampler="random", pruner="none", epochs=1)
    search = opened(of, tmp_path / "study.journal")
    search.lay_out(12)
    seen = [asked.settings for asked in _trained(search.trials(wait=False))]
    assert seen[0] == of.base  # a width of 16, although none above 12 can be drawn
    assert {settings.model.width for settings in seen[1:]} == {4, 8, 12}
    assert {settings.augment.elastic_sigma for settings in seen[1:]} <= {0, 2.5, 5, 7.5, 10}
    assert {settings.augment.mirror for settings in seen[1:]} == {True, False}
    assert all(1 <= settings.train.batch_size <= 8 for settings in seen[1:])
    assert seen[3].searched == tuple(sorted(space))


def test_a_training_that_diverges_is_a_bad_trial_not_the_end(tmp_path: Path) -> None:
    search = opened(plan(trials=2), tmp_path / "study.journal")
    search.lay_out(2)
    trials = search.trials(wait=False)
    train(next(trials))
    asked = next(trials)
    with pytest.raises(TrainingError, match="validation loss is not finite"):
        Asked.report(_by_loss(asked), epoch(1, 0.5, float("inf")))
    asked.tell("failed", "the loss is not finite")
    assert next(trials, None) is None
    assert [outcome.state for outcome in search.outcomes(2)] == ["finished", "failed"]
    assert best(search.outcomes(2), plan().tune).number == 0


def _by_loss(asked: Asked) -> Asked:
    asked._plan = plan(objective="minimize loss")
    return asked


def test_settings_that_contradict_are_a_bad_trial_too(tmp_path: Path) -> None:
    space = {"augment.min_scale": {"low": 1.2, "high": 1.3}}  # above max_scale
    search = opened(plan(space=space, trials=3), tmp_path / "study.journal")
    search.lay_out(3)
    assert [asked.number for asked in _trained(search.trials(wait=False))] == [0]
    failed = search.outcomes(3)[1:]
    assert [outcome.state for outcome in failed] == ["failed"] * 2
    assert "is larger than max_scale 1.1; swap them" in failed[0].reason


def test_the_winner_is_the_best_of_those_that_ran_to_their_end() -> None:
    outcomes = [
        Outcome(0, "finished", 0.5, 3, {}),
        Outcome(1, "finished", 0.7, 3, {}),
        Outcome(2, "finished", 0.7, 3, {}),
        Outcome(3, "pruned", None, 1, {}),
    ]
    assert best(outcomes, Tune()).number == 1
    assert best(outcomes, Tune(objective="minimize loss")).number == 0
    with pytest.raises(SearchError, match="none of 1 trials ran to its end: too steep"):
        best([Outcome(0, "failed", None, 0, {}, "too steep")], Tune())


def test_the_value_of_a_trial_is_that_of_its_best_epoch(tmp_path: Path) -> None:
    of = plan(trials=1)
    search = opened(of, tmp_path / "study.journal")
    search.lay_out(1)
    for asked in search.trials(wait=False):
        for number, iou in enumerate((0.2, float("nan"), 0.4), 1):  # nan: nothing was there, nothing was found
            assert not asked.report(epoch(number, iou, 1))
        asked.tell("finished")
    assert search.outcomes(1)[0].value == 1.0
    assert search.outcomes(1)[0].epochs == 3


def test_tpe_finds_what_random_draws_do_not(tmp_path: Path) -> None:
    values = {}
    for sampler in ("tpe", "random"):
        found = []
        for seed in range(3):
            of = plan(sampler=sampler, trials=25, seed=seed, pruner="none", epochs=1)
            outcomes = searched(of, tmp_path / f"{sampler}-{seed}.journal")
            found.append(max(outcome.value or 0 for outcome in outcomes[1:]))
        values[sampler] = sum(found)
    assert values["tpe"] > values["random"]


@pytest.mark.parametrize("address", ["mysql://user:secret@host/name", "sqlite:///study.db"])
def test_a_database_whose_locks_do_not_end_with_their_holder_is_refused(address: str) -> None:
    with pytest.raises(studies.StudyError, match="a journal file or a PostgreSQL database") as refused:
        studies.open_storage(address, "study")
    assert "secret" not in str(refused.value)


@pytest.mark.usefixtures("undisturbed")
def test_optuna_keeps_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    assert capsys.readouterr().err == ""
