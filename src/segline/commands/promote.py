"""`segline models promote` and `rollback`: who is champion, and why."""

import json
from collections.abc import Callable
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline.commands.models import open_registry
from segline.gate import champion, judging
from segline.track.verdict import Verdict


def promote(
    which: str,
    name: str,
    console: Console,
    say: Callable[[str], None],
    *,
    dry_run: bool = False,
    force: bool = False,
    reason: str = "",
    as_json: bool = False,
    trust: bool = False,
    judge: champion.Judge | None = None,
) -> int:
    """Judge a version, make it champion if it passes, and say so; returns the exit code."""
    registry = open_registry(name)
    judge = judge or partial(judging.judge, trust=trust)
    outcome = champion.promote(registry, which, judge, reason=reason, force=force, dry_run=dry_run, trust=trust)
    if as_json:
        content = {"version": int(outcome.version.version), "promoted": outcome.promoted, "notices": outcome.notices}
        say(json.dumps({**content, **outcome.verdict.as_dict()}, indent=2))
    else:
        if outcome.verdict.checks:
            console.print(table(outcome.verdict))
        for unclear in outcome.verdict.undecided:
            say(f"cannot decide: {unclear}")
        say(_sentence(outcome, dry_run))
        for notice in outcome.notices:
            say(f"notice: {notice}")
    return 0 if outcome.promoted else outcome.verdict.exit_code


def table(verdict: Verdict) -> Table:
    """What was measured and asked for, line by line."""
    content = Table("check", "value", "asked for", "", "", title=f"gate: {verdict.word}", title_justify="left")
    for check in verdict.checks:
        content.add_row(
            Text(check.name),
            "-" if check.value is None else f"{check.value:.4f}",
            f"{check.bound} {check.limit:g}",
            Text("holds", style="green") if check.passed else Text("fails", style="red"),
            Text(check.detail),
        )
    return content


def _sentence(outcome: champion.Outcome, dry_run: bool) -> str:
    """What came of it."""
    version = f"{outcome.version.name} version {outcome.version.version}"
    former = f"; version {outcome.former.version} was" if outcome.former else ""
    if dry_run:
        end = {0: "would be promoted", 1: "would not be promoted", 2: "could not be judged"}
        return f"dry run: {version} {end[outcome.verdict.exit_code]}; nothing was changed"
    if outcome.promoted:
        return f"{version} is champion{former}{'' if outcome.verdict.passed else ' (forced)'}"
    return f"{version} was not promoted{f'; version {outcome.former.version} stays champion' if outcome.former else ''}"


def rollback(reason: str, to: str, name: str, say: Callable[[str], None]) -> None:
    """Make a former champion champion again."""
    registry = open_registry(name)
    version, left = champion.rollback(registry, reason, to)
    before = registry.find(left.version_md5)
    said = f"version {before.version}" if before else f"md5 {left.version_md5}"
    say(f"{registry.name} version {version.version} is champion again; {said} was")
    say("notice: commit registry.jsonl: it is the history that a clone gets")
