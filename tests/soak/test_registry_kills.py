"""Kill registrations and promotions at 60 random moments, and damage registry.jsonl in 3,000 ways."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segline.track import versions
from segline.track.history import text
from segline.track.packaging import Parts
from segline.track.store import Store
from tests.track import conftest as fixtures
from tests.track import killed
from tests.track.test_history import LINE, read_or_refused

KILLS, DAMAGES = 60, 3000

no_surroundings, made, project = fixtures.no_surroundings, fixtures.made, fixtures.project
store, parts = fixtures.store, fixtures.parts


@pytest.mark.soak
def test_registry_is_repaired_after_a_kill_at_each_call(
    store: Store, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "_upload", killed.upload)
    killed.kill_and_repair(store, parts, killed.POINTS, ("before", "after"))


@pytest.mark.soak
def test_registry_is_repaired_after_60_kills_at_random_moments(
    store: Store, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "_upload", killed.upload)
    killed.work(killed.variant(parts, 0), 0)
    start = time.monotonic()
    killed.work(killed.variant(parts, 1), 1)
    took = time.monotonic() - start
    chance, kills, number = random.Random(0), 0, 1
    while kills < KILLS:  # some children finish before the kill, especially on a busy machine
        number += 1
        assert number < 5 * KILLS, f"only {kills} of {number} children were killed"
        changed = killed.variant(parts, number)
        kills += killed.killed_after(chance.uniform(0, took), changed, number)
        killed.check_before_repair(store)
        killed.work(changed, number)
        killed.check_repaired(store)


@pytest.mark.soak
@settings(max_examples=DAMAGES)
@given(at=st.integers(0, len(text(LINE))), cut=st.integers(0, 60), new=st.binary(max_size=60))
def test_3000_damaged_lines_are_read_or_refused(at: int, cut: int, new: bytes) -> None:
    read_or_refused(text(LINE)[:at] + new + text(LINE)[at + cut :])
