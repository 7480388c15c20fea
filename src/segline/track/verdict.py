"""Verdict of the gate on a version: checks with values and limits, and reasons why the gate could not decide."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Check:
    """A measured value compared with its limit."""

    name: str
    value: float | None
    limit: float
    passed: bool
    bound: Literal[">=", "<="] = ">="
    detail: str = ""
    """Explanation of the measured value, in words."""
    setting: str = ""
    """Name of the setting in params.yaml that gives the limit; empty if the limit is fixed."""


@dataclass(frozen=True)
class Verdict:
    """Result of all checks of a version. The version passes if every check passes and nothing is undecided.

    ``undecided`` holds the reasons why the gate cannot decide. ``facts`` describes the compared models and test images.
    """

    checks: tuple[Check, ...]
    undecided: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True if every check passed and nothing is undecided."""
        return not self.undecided and all(check.passed for check in self.checks)

    @property
    def exit_code(self) -> int:
        """Exit code of a command: 0 passed, 1 failed, 2 undecided."""
        return 2 if self.undecided else int(not self.passed)

    @property
    def word(self) -> str:
        """Word for the verdict: passed, failed or cannot decide."""
        return ("passed", "failed", "cannot decide")[self.exit_code]

    def __add__(self, other: "Verdict") -> "Verdict":
        """Combine two verdicts into one verdict that has the checks, reasons and facts of both verdicts."""
        return Verdict(self.checks + other.checks, self.undecided + other.undecided, {**self.facts, **other.facts})

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as a dict that can be stored as JSON."""
        checks = [asdict(check) for check in self.checks]
        return {"passed": self.passed, "checks": checks, "undecided": [*self.undecided], "facts": {**self.facts}}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Build a verdict from the result of `as_dict`; dicts of earlier segline releases may lack keys."""
        checks = tuple(Check(**check) for check in content.get("checks", ()))
        return cls(checks, tuple(content.get("undecided", ())), content.get("facts", {}))

    def markdown(self) -> str:
        """Return the verdict as a Markdown section with a table of the checks."""
        rows = [
            f"| {_one_line(check.name)} | {_digits(check.value)} | {check.bound} {_digits(check.limit)} | "
            f"{'passed' if check.passed else '**failed**'} | {_one_line(check.detail)} |"
            for check in self.checks
        ]
        if rows:
            rows = ["| check | value | limit | | |", "|---|---|---|---|---|", *rows]
        reasons = [f"- {_one_line(reason)}" for reason in self.undecided]
        facts = [", ".join(f"{name} {_one_line(value)}" for name, value in self.facts.items())]
        parts = [[f"## Gate: {self.word}"], reasons, rows, facts]
        return "\n\n".join(filter(None, ("\n".join(part) for part in parts))) + "\n"


def at_least(name: str, value: float | None, limit: float, detail: str = "", setting: str = "") -> Check:
    """Check that a value is at least `limit`; the check fails if the value is missing or nan."""
    number = _number(value)
    return Check(name, number, limit, number is not None and number >= limit, ">=", detail, setting)


def at_most(name: str, value: float | None, limit: float, detail: str = "", setting: str = "") -> Check:
    """Check that a value is at most `limit`; the check fails if the value is missing or nan."""
    number = _number(value)
    return Check(name, number, limit, number is not None and number <= limit, "<=", detail, setting)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _one_line(text: str) -> str:
    """Escape a text so that it fits into one cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
