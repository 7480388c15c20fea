"""What a gate decided about a version: the checks, whether they passed, and why it could not decide."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Check:
    """What was measured, what is asked for, and whether it holds."""

    name: str
    value: float | None
    limit: float
    passed: bool
    bound: Literal[">=", "<="] = ">="
    detail: str = ""
    """How the value came about, in words."""


@dataclass(frozen=True)
class Verdict:
    """All checks; a model passes when every one holds and nothing kept the gate from judging.

    ``undecided`` are the reasons why it cannot be judged, ``facts`` what was judged, such as the md5s of both models.
    """

    checks: tuple[Check, ...]
    undecided: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return not self.undecided and all(check.passed for check in self.checks)

    @property
    def exit_code(self) -> int:
        """0: passed, 1: failed, 2: cannot be decided."""
        return 2 if self.undecided else int(not self.passed)

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        return ("passed", "failed", "cannot decide")[self.exit_code]

    def __add__(self, other: "Verdict") -> "Verdict":
        """Both together."""
        return Verdict(self.checks + other.checks, self.undecided + other.undecided, {**self.facts, **other.facts})

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        checks = [asdict(check) for check in self.checks]
        return {"passed": self.passed, "checks": checks, "undecided": [*self.undecided], "facts": {**self.facts}}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`; also of what earlier seglines wrote."""
        checks = tuple(Check(**check) for check in content.get("checks", ()))
        return cls(checks, tuple(content.get("undecided", ())), content.get("facts", {}))

    def markdown(self) -> str:
        """A table to be read, as Markdown."""
        rows = [
            f"| {_plain(check.name)} | {_digits(check.value)} | {check.bound} {_digits(check.limit)} | "
            f"{'holds' if check.passed else '**fails**'} | {_plain(check.detail)} |"
            for check in self.checks
        ]
        if rows:
            rows = ["| check | value | asked for | | |", "|---|---|---|---|---|", *rows]
        reasons = [f"- {_plain(reason)}" for reason in self.undecided]
        facts = [", ".join(f"{name} {_plain(value)}" for name, value in self.facts.items())]
        parts = [[f"## Gate: {self.word}"], reasons, rows, facts]
        return "\n\n".join(filter(None, ("\n".join(part) for part in parts))) + "\n"


def at_least(name: str, value: float | None, limit: float, detail: str = "") -> Check:
    """A check of a value that must reach `limit`."""
    known = _number(value)
    return Check(name, known, limit, known is not None and known >= limit, ">=", detail)


def at_most(name: str, value: float | None, limit: float, detail: str = "") -> Check:
    """A check of a value that must not go beyond `limit`."""
    known = _number(value)
    return Check(name, known, limit, known is not None and known <= limit, "<=", detail)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _plain(text: str) -> str:
    """Text that stays in its cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
