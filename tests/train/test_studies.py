"""Storages and claims: a search is the same in each, and a claim ends with its holder; judged by the journal's."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from segline.params import Params, Tuned, check
from segline.train import studies
from segline.train.loop import Epoch
from segline.train.search import Asked, Outcome, Search
from segline.train.space import Plan

HOLD = """
import sys, time
from segline.train import studies
_, claims = studies.open_storage(sys.argv[1], "study")
with claims.claim(3) as mine:
    print(mine, flush=True)
    time.sleep(600)
"""


def plan() -> Plan:
    tune = {"trials": 4, "epochs": 2, "startup_trials": 2, "pruner_startup_trials": 1}
    settings = check(Params, {"tune": tune}, "params.yaml")
    return Plan(Tuned(model=settings.model, augment=settings.augment, train=settings.train), settings.tune)


def train(asked: Asked) -> None:
    for number in (1, 2):
        value = asked.trained.train.learning_rate * number
        if asked.report(Epoch(number, 1, 1, value, 0.1, 2, 0.1, 0.9, 1.0)):
            asked.tell("pruned")
            return
    asked.tell("finished")


def searched(*searches: Search) -> list[Outcome]:
    """All trials, of which each of `searches` in turn takes one."""
    searches[0].lay_out(4)
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
def expected(journal: str) -> list[Outcome]:
    """What a search in a journal gives."""
    return searched(Search(plan(), *studies.open_storage(journal, "study"), "study"))


def test_a_search_in_a_database_is_the_same(expected: list[Outcome], tmp_path: Path) -> None:
    storage = RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    assert searched(Search(plan(), storage, studies.FileClaims(tmp_path / "claims"), "study")) == expected


def test_a_claim_is_held_by_one_and_ends_with_its_process(journal: str) -> None:
    _held_by_one_till_it_is_killed(journal)


def _held_by_one_till_it_is_killed(address: str) -> None:
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


def test_a_search_in_postgresql_is_the_same(expected: list[Outcome], database: str) -> None:
    assert searched(Search(plan(), *studies.open_storage(database, "study"), "study")) == expected


def test_grown_and_shrunk_in_postgresql_it_goes_on(expected: list[Outcome], database: str) -> None:
    for total in (2, 4, 2):
        search = Search(plan(), *studies.open_storage(database, "study"), "study")
        search.lay_out(total)
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
    _held_by_one_till_it_is_killed(database)


OPEN = """
import sys
from segline.train import studies
print("ready", flush=True)
sys.stdin.readline()
studies.open_storage(sys.argv[1], "study")
"""


def test_an_empty_database_may_be_opened_by_several_at_once(database: str) -> None:
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
        said = [process.communicate()[1] for process in opened]
    assert [process.returncode for process in opened] == [0] * 4, said


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(studies.StudyError, match=r"postgresql\+psycopg://me@127.0.0.1:1/study: cannot be opened: "):
        studies.open_storage("postgresql+psycopg://me@127.0.0.1:1/study", "study")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql+psycopg://me:secret@host/study", "leave the password out"),
        ("postgresql+psycopg://me:a?secret@b@host/study", "leave the password out"),
        ("postgresql+psycopg://me@/study?host=there&password=secret", "leave the password out"),
        ("postgresql+psycopg://me:secret@host:port/study", "this is no address of a database"),
        ("postgres://me:secret@host/study", "a journal file or a PostgreSQL database"),
    ],
)
def test_a_password_is_refused_and_not_said(address: str, said: str) -> None:
    with pytest.raises(studies.StudyError, match=said) as refused:
        studies.open_storage(address, "study")
    assert "secret" not in str(refused.value)


def test_a_missing_driver_is_named() -> None:
    with pytest.raises(studies.StudyError, match=r"pg8000.*; pip install the driver that it names"):
        studies.open_storage("postgresql+pg8000://me@127.0.0.1:1/study", "study")


def test_a_journal_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(studies.StudyError, match="there is no such file"):
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
    with pytest.raises(studies.StudyError, match=r"a\.journal: damaged, or no journal .*begins afresh"):
        studies.open_storage(str(journal), "study")
    assert journal.read_text() == text
