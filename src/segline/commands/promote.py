"""`segline models promote` and `rollback`: change the champion, and explain the decision of the gate."""

import json
from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline.commands.models import open_registry
from segline.gate import champion, rules
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
) -> int:
    """Judge a version, make it the champion if it passes the gate, and print the result; return the exit code."""
    outcome = champion.promote(open_registry(name), which, reason=reason, force=force, dry_run=dry_run, trust=trust)
    if as_json:
        content = {"version": int(outcome.version.version), "promoted": outcome.promoted, "notices": outcome.notices}
        say(json.dumps({**content, **outcome.verdict.as_dict()}, indent=2))
    else:
        if outcome.verdict.checks:
            console.print(table(outcome.verdict))
        for undecided in outcome.verdict.undecided:
            say(f"Cannot decide: {undecided}.")
        if not outcome.promoted:
            for refusal in rules.refusals(outcome.verdict):
                say(f"Not promoted: {refusal}.")
        say(_sentence(outcome, dry_run))
        for notice in outcome.notices:
            say(f"notice: {notice}")
    return 0 if outcome.promoted else outcome.verdict.exit_code


def table(verdict: Verdict) -> Table:
    """Return a table of the gate's checks, with the value and the limit of each check."""
    content = Table("check", "value", "limit", "", "", title=f"gate: {verdict.word}", title_justify="left")
    for check in verdict.checks:
        content.add_row(
            Text(check.name),
            "-" if check.value is None else f"{check.value:.4f}",
            f"{check.bound} {check.limit:g}",
            Text("passed", style="green") if check.passed else Text("failed", style="red"),
            Text(check.detail),
        )
    return content


def _sentence(outcome: champion.Outcome, dry_run: bool) -> str:
    """Return a sentence that says whether the version became champion, and which version it replaced."""
    version = f"{outcome.version.name} version {outcome.version.version}"
    former = f"version {outcome.former.version}" if outcome.former else ""
    if dry_run:
        end = {0: "would be promoted", 1: "would not be promoted", 2: "could not be judged"}
        return f"dry run: {version} {end[outcome.verdict.exit_code]}; nothing was changed"
    if outcome.promoted:
        replaced = f", replacing {former}" if former else ""
        return f"{version} is champion{replaced}{'' if outcome.verdict.passed else ' (forced)'}"
    return f"{version} was not promoted{f'; {former} stays champion' if former else ''}"


def rollback(reason: str, to: str, name: str, say: Callable[[str], None]) -> None:
    """Make a former champion the champion again."""
    registry = open_registry(name)
    version, last = champion.rollback(registry, reason, to)
    replaced = registry.find(last.version_md5)
    former = f"version {replaced.version}" if replaced else f"md5 {last.version_md5}"
    say(f"{registry.name} version {version.version} is champion again, replacing {former}")
    say("notice: commit registry.jsonl, because a clone gets its history from this file")
