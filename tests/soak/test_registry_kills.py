"""Registrations and promotions ended by SIGKILL at 60 random moments, and registry.jsonl damaged in 3,000 ways."""

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
def test_killed_before_and_after_each_call(store: Store, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_upload", killed.upload)
    killed.kill_and_repair(store, parts, killed.POINTS, ("before", "after"))


@pytest.mark.soak
def test_60_kills_at_any_moment_of_a_registration_or_promotion(
    store: Store, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "_upload", killed.upload)
    killed.work(killed.variant(parts, 0), 0)
    began = time.monotonic()
    killed.work(killed.variant(parts, 1), 1)
    took = time.monotonic() - began
    chance, kills, number = random.Random(0), 0, 1
    while kills < KILLS:  # some children end before they are killed, on a busy machine more of them
        number += 1
        assert number < 5 * KILLS, f"only {kills} of {number} children were killed"
        other = killed.variant(parts, number)
        kills += killed.killed_after(chance.uniform(0, took), other, number)
        killed.whole_before_repair(store)
        killed.work(other, number)
        killed.repaired(store)


@pytest.mark.soak
@settings(max_examples=DAMAGES)
@given(at=st.integers(0, len(text(LINE))), cut=st.integers(0, 60), new=st.binary(max_size=60))
def test_3000_damages_of_a_line(at: int, cut: int, new: bytes) -> None:
    read_or_refused(text(LINE)[:at] + new + text(LINE)[at + cut :])
