"""Promote and roll back; compare aliases and history with the expected ones after each step."""

import json
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from segline.gate import champion
from segline.gate.champion import PromotionError, rollback
from segline.gate.rules import floors
from segline.params import Gate
from segline.track import commits
from segline.track.history import RegistryError, append, champions, read_history
from segline.track.packaging import Parts
from segline.track.registry import ModelVersion, Registered, Registry
from segline.track.store import Store
from segline.track.verdict import Verdict

GOOD = floors({"mean_iou": 0.9, "pixel_error": 0.05}, Gate())
BAD = floors({"mean_iou": 0.1, "pixel_error": 0.05}, Gate())
UNKNOWN = Verdict((), ("other classes",))


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def commit() -> str:
    git("add", "-A")
    git("commit", "-q", "-m", "x")
    return git("rev-parse", "HEAD")


@pytest.fixture
def project(cells: Path) -> Path:
    """Return a project with three versions, of which the first is champion."""
    return cells


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store, "cells")


def register(registry: Registry, parts: Parts) -> Registered:
    with registry.store.start_run("train") as run:
        return champion.register(registry, parts, run, GOOD, {"model.md5": "2" * 32, **commits.here()})


@pytest.fixture
def second(tmp_path: Path) -> Parts:
    """Return the parts of version 2."""
    for name in ("weights.safetensors", "model.json", "inference.json"):
        (tmp_path / name).write_text(f"{name} 2")
    return Parts(tmp_path, tmp_path / "inference.json", b"", b"", b"")


def tell(registry: Registry, number: str, tags: dict[str, str]) -> None:
    for name, value in tags.items():
        registry.client.set_model_version_tag("cells", number, name, value)


def promote(registry: Registry, which: str, verdict: Verdict, **options: Any) -> champion.Outcome:
    """Promote a version that the gate judges with `verdict`."""
    with patch.object(champion, "judge", lambda *_, **__: verdict):
        return champion.promote(registry, which, **options)


def aliases(registry: Registry) -> dict[str, str]:
    holders: dict[str, Any] = registry.client.get_registered_model("cells").aliases
    return {name: str(number) for name, number in holders.items() if name != "challenger"}


def history(registry: Registry) -> list[tuple[str, str, bool]]:
    numbers = {version.tags["version.md5"]: str(version.version) for version in registry.versions()}
    return [
        (line.action, numbers[line.version_md5], line.forced) for line in registry.history() if line.alias == "champion"
    ]


FIRST = ("promote", "1", False)


def test_promotions_and_rollbacks_move_the_aliases(registry: Registry) -> None:
    assert aliases(registry) == {"champion": "1"}
    for number in "23":
        assert promote(registry, number, GOOD).promoted
    assert aliases(registry) == {"champion": "3", "previous": "2"}
    rollback(registry, "too slow")
    assert aliases(registry) == {"champion": "2", "previous": "1"}
    rollback(registry, "worse on Monday's images")
    assert aliases(registry) == {"champion": "1"}
    with pytest.raises(
        PromotionError,
        match="cells has no champion before the current one; promote another version with `segline models promote`; "
        "to return to a champion that was rolled back, run `segline models rollback --to VERSION --reason TEXT`",
    ):
        rollback(registry, "once more")
    rollback(registry, "was good after all", "3")
    assert aliases(registry) == {"champion": "3", "previous": "1"}
    assert history(registry) == [
        FIRST,
        ("promote", "2", False),
        ("promote", "3", False),
        ("rollback", "2", False),
        ("rollback", "1", False),
        ("rollback", "3", False),
    ]
    assert [line.reason for line in registry.history()][-3:] == [
        "too slow",
        "worse on Monday's images",
        "was good after all",
    ]
    assert all(line.commit == git("rev-parse", "HEAD") and line.dirty == "false" for line in registry.history()[4:])


def test_a_version_that_fails_is_not_promoted_and_keeps_its_verdict(registry: Registry, project: Path) -> None:
    before = (project / "registry.jsonl").read_bytes()
    for verdict, code in ((BAD, 1), (UNKNOWN, 2)):
        outcome = promote(registry, "2", verdict)
        assert (outcome.promoted, outcome.verdict.exit_code) == (False, code)
        assert aliases(registry) == {"champion": "1"}
        assert (project / "registry.jsonl").read_bytes() == before
        version = registry.version("2")
        assert Verdict.from_dict(json.loads(version.tags["gate"])) == outcome.verdict
        assert version.description.startswith("# Card\n")
        assert version.description.count("## Gate: ") == 1
        assert f"## Gate: {verdict.word}" in version.description


def test_a_dry_run_changes_nothing(registry: Registry, project: Path) -> None:
    database = (project / "mlruns" / "mlflow.db").read_bytes()
    for verdict in (GOOD, BAD, UNKNOWN):
        outcome = promote(registry, "2", verdict, dry_run=True)
        assert (outcome.promoted, outcome.verdict.exit_code) == (False, verdict.exit_code)
    assert (project / "mlruns" / "mlflow.db").read_bytes() == database
    assert history(registry) == [FIRST]


def test_force_needs_a_reason(registry: Registry) -> None:
    with pytest.raises(PromotionError, match="--reason"):
        promote(registry, "2", BAD, force=True, reason=" ")
    assert promote(registry, "2", BAD, force=True, reason="for the demo").promoted
    assert promote(registry, "3", GOOD, force=True, reason="for the demo").promoted
    assert history(registry) == [FIRST, ("promote", "2", True), ("promote", "3", False)]
    verdict = json.loads(registry.version("2").tags["gate"])
    assert not verdict["passed"]
    assert verdict["facts"]["forced"] == "for the demo"


@pytest.mark.parametrize(
    ("file", "content"),
    [("src/a.py", "a = 2\n"), ("params.yaml", "train: {epochs: 2}\n"), ("dvc.yaml", "stages: {}\n")],
)
def test_a_version_without_its_commit_is_not_promoted(
    registry: Registry, second: Parts, project: Path, file: str, content: str
) -> None:
    (project / file).write_text(content)
    tell(registry, "2", {"params.md5": "what was never committed"})
    assert not register(registry, second).created
    refused = promote(registry, "2", GOOD)
    assert (refused.promoted, refused.verdict.exit_code) == (False, 1)
    assert refused.verdict.checks[-1].name == "lineage"
    assert file in refused.verdict.checks[-1].detail
    assert refused.verdict.checks[-1].detail.endswith(
        "; commit the version's code and settings, then promote the version"
    )
    made = commit()
    outcome = promote(registry, "2", GOOD)
    assert outcome.promoted
    assert any("dvc.lock" in notice for notice in outcome.notices)
    assert registry.history()[-1].commit == made


def test_registering_the_same_model_from_other_code_keeps_the_committed_origin(
    registry: Registry, second: Parts, project: Path
) -> None:
    for number in (2, 3):
        (project / "src" / "a.py").write_text(f"a = {number}  # number 2 is never committed\n")
        again = register(registry, second)
        assert (again.version, again.created) == ("2", False)
    # Version 2 keeps the tags that match a commit.
    assert promote(registry, "2", GOOD).promoted


def test_promotion_needs_git(registry: Registry, project: Path) -> None:
    shutil.rmtree(project / ".git")
    outcome = promote(registry, "2", GOOD)
    assert not outcome.promoted
    assert "git repository" in outcome.verdict.checks[-1].detail


def test_promotion_judges_again_if_the_champion_changes_meanwhile(registry: Registry) -> None:
    judged: list[str] = []

    def slow(_: Registry, challenger: ModelVersion, former: ModelVersion | None, *, trust: bool) -> Verdict:  # noqa: ARG001
        judged.append(f"{challenger.version} against {former.version if former else None}")
        if len(judged) == 1:
            promote(registry, "3", GOOD)
        return GOOD

    with patch.object(champion, "judge", slow):
        champion.promote(registry, "2")
    assert judged == ["2 against 1", "2 against 3"]
    assert aliases(registry) == {"champion": "2", "previous": "3"}


@pytest.mark.parametrize("call", ["append", "set_aliases"])
def test_next_call_repairs_the_aliases_after_a_kill(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        if call == "append":
            context.setattr("segline.track.history.append", killed)
        else:
            context.setattr(Registry, call, killed)
        with pytest.raises(KeyboardInterrupt):
            promote(registry, "2", GOOD)
    assert aliases(registry) == {"champion": "1"}
    expected = [FIRST] if call == "append" else [FIRST, ("promote", "2", False)]  # the line is the promotion
    assert history(registry) == expected
    with registry.store.place.lock("registry"):
        registry.settle()
    assert aliases(registry) == ({"champion": "1"} if call == "append" else {"champion": "2", "previous": "1"})
    assert history(registry) == expected
    assert not list(registry.store.place.folder.glob("promotion.*"))


@pytest.mark.parametrize("left", [b"", b'{"time": "2026-', b"{}"], ids=["empty", "incomplete", "other content"])
def test_an_incomplete_marker_does_not_stop_a_promotion(registry: Registry, left: bytes) -> None:
    (registry.store.place.folder / "promotion.json").write_bytes(left)
    promote(registry, "2", GOOD)
    assert history(registry) == [FIRST, ("promote", "2", False)]
    assert not list(registry.store.place.folder.glob("promotion.*"))


def test_a_history_without_lines_is_empty(tmp_path: Path) -> None:
    assert read_history(tmp_path / "registry.jsonl") == []
    (tmp_path / "registry.jsonl").touch()
    assert read_history(tmp_path / "registry.jsonl") == []


def test_a_full_disk_does_not_damage_the_history(registry: Registry) -> None:
    before = registry.history_file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # makes writing fail as on a full disk
    line = replace(read_history(registry.history_file)[-1], reason="another")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
        with pytest.raises(RegistryError, match=r"registry\.jsonl cannot be written"):
            append(registry.history_file, line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)
    assert registry.history_file.read_bytes() == before
    append(registry.history_file, line)
    assert read_history(registry.history_file)[-1] == line


@pytest.mark.parametrize("reason", ["zwei\nZeilen", "a\u2028b\u2029c\x85d", '"\\ grün', "\x00\x1f"])
def test_a_reason_may_hold_any_text(registry: Registry, reason: str) -> None:
    promote(registry, "2", GOOD, reason=reason)
    assert [line.reason for line in read_history(registry.history_file)][4:] == [reason]
    assert registry.history_file.read_bytes().count(b"\n") == 5
    rollback(registry, reason)
    assert aliases(registry) == {"champion": "1"}


def test_impossible_promotions_and_rollbacks_are_refused(registry: Registry, project: Path) -> None:
    with pytest.raises(PromotionError, match="is champion already"):
        promote(registry, "1", GOOD)
    with pytest.raises(RegistryError, match="cells has no version 9; its versions and aliases are 3, 2, 1"):
        promote(registry, "9", GOOD)
    with pytest.raises(
        PromotionError, match="version 3 was never champion; promote it with `segline models promote 3`"
    ):
        rollback(registry, "x", "3")
    with pytest.raises(PromotionError, match="--reason"):
        rollback(registry, "")
    for call in (lambda: rollback(registry, "gr\udcfcn"), lambda: promote(registry, "2", BAD, reason="\udcfc")):
        with pytest.raises(PromotionError, match="is not valid UTF-8"):
            call()
    weights = next(project.glob("mlruns/artifacts/**/weights.safetensors"))
    for file in project.glob("mlruns/artifacts/**/weights.safetensors"):
        file.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(RegistryError, match=r"weights\.safetensors was altered"):
        promote(registry, "2", GOOD)


def test_a_version_is_found_by_number_alias_and_md5(registry: Registry) -> None:
    md5 = registry.version("2").tags["version.md5"]
    assert {str(registry.version(name).version) for name in ("2", md5, md5[:8])} == {"2"}
    assert {str(registry.version(name).version) for name in ("champion", "@champion")} == {"1"}


@pytest.fixture
def lines() -> Callable[[str], list[Any]]:
    """Make lines of a history from a short notation: A is a promotion of A, <A is a rollback to A."""

    def make(text: str) -> list[Any]:
        return [
            champion.Promotion(
                "", "cells", "champion", word.strip("<"), "", "", "", "", "", "rollback" if "<" in word else "promote"
            )
            for word in text.split()
        ]

    return make


@pytest.mark.parametrize(
    ("happened", "held"),
    [
        ("", ""),
        ("A", "A"),
        ("A B", "A B"),
        ("A B <A", "A"),
        ("A B C <B <A", "A"),
        ("A B C <A", "A"),
        ("A B <A <B", "A B"),
        ("A B A", "A B A"),
        ("A B A <B", "A B"),
        ("A B <A C", "A C"),
        ("A A", "A"),
    ],
)
def test_champions_that_a_rollback_returns_to(lines: Callable[[str], list[Any]], happened: str, held: str) -> None:
    assert champions(lines(happened)) == held.split()


def test_a_history_without_later_fields_and_line_end_is_read(registry: Registry, project: Path) -> None:
    file = project / "registry.jsonl"
    old = next(line for line in map(json.loads, file.read_text().splitlines()) if line["alias"] == "champion")
    del old["action"], old["forced"]
    file.write_text(json.dumps(old))  # without a line end
    with pytest.raises(RegistryError, match=r"no line of registry\.jsonl has the version's md5"):
        promote(registry, "2", GOOD)
    promote(registry, "2", GOOD, trust=True)
    assert history(registry) == [FIRST, ("promote", "2", False)]
    assert [line.action for line in read_history(file)] == ["promote", "register", "promote"]
