"""Storages and claims: all storages give the trials of the journal, and a claim ends with its process."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from segline.params import Params, Tuned, check
from segline.train import studies
from segline.train.loop import Epoch
from segline.train.search import OpenTrial, Search, TrialOutcome
from segline.train.space import SearchPlan

HOLD = """
import sys, time
from segline.train import studies
_, claims = studies.open_storage(sys.argv[1], "study")
with claims.claim(3) as mine:
    print(mine, flush=True)
    time.sleep(600)
"""


def plan() -> SearchPlan:
    tune = {"trials": 4, "epochs": 2, "startup_trials": 2, "pruner_startup_trials": 1}
    settings = check(Params, {"tune": tune}, "params.yaml")
    return SearchPlan(Tuned(model=settings.model, augment=settings.augment, train=settings.train), settings.tune)


def train(asked: OpenTrial) -> None:
    for number in (1, 2):
        value = asked.trained.train.learning_rate * number
        if asked.report(Epoch(number, 1, 1, value, 0.1, 2, 0.1, 0.9, 1.0)):
            asked.tell("pruned")
            return
    asked.tell("finished")


def searched(*searches: Search) -> list[TrialOutcome]:
    """Train all trials; `searches` take one trial each in turn."""
    searches[0].add_trials(4)
    workers = [search.trials(wait=False) for search in searches]
    while workers:
        for worker in list(workers):
            asked = next(worker, None)
            if asked is None:
                workers.remove(worker)
            else:
                train(asked)
    return searches[0].outcomes(4)


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return str(tmp_path / "study.journal")


@pytest.fixture
def expected(journal: str) -> list[TrialOutcome]:
    """Outcomes of a search in a journal."""
    return searched(Search(plan(), *studies.open_storage(journal, "study"), "study"))


def test_a_search_in_a_database_is_the_same(expected: list[TrialOutcome], tmp_path: Path) -> None:
    storage = RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    assert searched(Search(plan(), storage, studies.FileClaims(tmp_path / "claims"), "study")) == expected


def test_a_claim_is_exclusive_and_ends_with_its_process(journal: str) -> None:
    _check_claim_until_kill(journal)


def _check_claim_until_kill(address: str) -> None:
    _, claims = studies.open_storage(address, "study")
    with claims.claim(3) as mine, claims.claim(4) as another:
        assert mine and another
    command = [sys.executable, "-c", HOLD, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with claims.claim(3) as mine, claims.claim(4) as another:
            assert not mine and another
        holder.kill()
    with claims.claim(3, wait=True) as mine:
        assert mine


# PostgreSQL


def test_a_search_in_postgresql_is_the_same(expected: list[TrialOutcome], database: str) -> None:
    assert searched(Search(plan(), *studies.open_storage(database, "study"), "study")) == expected


def test_a_search_in_postgresql_can_grow_and_shrink(expected: list[TrialOutcome], database: str) -> None:
    for total in (2, 4, 2):
        search = Search(plan(), *studies.open_storage(database, "study"), "study")
        search.add_trials(total)
        for asked in search.trials(wait=False):
            train(asked)
        assert search.outcomes(total) == expected[:total]
    assert len(search.outcomes(9)) == 4


def test_two_workers_share_a_search_in_postgresql(database: str) -> None:
    first = Search(plan(), *studies.open_storage(database, "study"), "study")
    second = Search.joined(plan(), *studies.open_storage(database, "study"), "study")
    outcomes = searched(first, second)
    assert [outcome.number for outcome in outcomes] == [0, 1, 2, 3]


def test_a_claim_in_postgresql_ends_with_its_process(database: str) -> None:
    _check_claim_until_kill(database)


OPEN = """
import sys
from segline.train import studies
print("ready", flush=True)
sys.stdin.readline()
studies.open_storage(sys.argv[1], "study")
"""


def test_several_workers_can_open_an_empty_database_at_the_same_time(database: str) -> None:
    command = [sys.executable, "-c", OPEN, database]
    with ExitStack() as stack:
        opened = [
            stack.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
            for _ in range(4)
        ]
        for process in opened:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in opened:
            assert process.stdin is not None
            process.stdin.write("now\n")
            process.stdin.flush()
        errors = [process.communicate()[1] for process in opened]
    assert [process.returncode for process in opened] == [0] * 4, errors


def test_an_unreachable_server_is_named() -> None:
    with pytest.raises(studies.StudyError, match=r"postgresql\+psycopg://me@127.0.0.1:1/study cannot be opened: "):
        studies.open_storage("postgresql+psycopg://me@127.0.0.1:1/study", "study")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("postgresql+psycopg://me:secret@host/study", "contains a password, but others can read"),
        ("postgresql+psycopg://me:a?secret@b@host/study", "contains a password, but others can read"),
        ("postgresql+psycopg://me@/study?host=there&password=secret", "contains a password, but others can read"),
        ("postgresql+psycopg://me:secret@host:port/study", "is not the address of a database"),
        ("postgres://me:secret@host/study", "a journal file or a PostgreSQL database"),
    ],
)
def test_a_password_is_refused_and_not_printed(address: str, message: str) -> None:
    with pytest.raises(studies.StudyError, match=message) as refused:
        studies.open_storage(address, "study")
    assert "secret" not in str(refused.value)


def test_a_missing_driver_is_named() -> None:
    with pytest.raises(studies.StudyError, match=r"needs a database driver .*pg8000.*; install this driver with pip"):
        studies.open_storage("postgresql+pg8000://me@127.0.0.1:1/study", "study")


def test_a_missing_journal_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(studies.StudyError, match=r"the journal .* does not exist"):
        studies.open_storage(str(tmp_path / "there" / "study.journal"), "study", new=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "x\n",
        "[1]\n",
        "{}\n",
        '{"op_code": 99, "worker_id": "x"}\n',
        '{"op_code": "x"}\n',
        "[" * 100_000 + "\n",
        "\x00\n",
    ],
)
def test_a_damaged_journal_is_named(text: str, tmp_path: Path) -> None:
    journal = tmp_path / "a.journal"
    journal.write_text(text)
    with pytest.raises(studies.StudyError, match=r"a\.journal is damaged, or is not the journal .*from the beginning"):
        studies.open_storage(str(journal), "study")
    assert journal.read_text() == text
