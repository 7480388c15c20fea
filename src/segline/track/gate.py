"""What a model must reach before it may become champion: floors, and to lose nothing against the champion."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from segline.params import Gate
from segline.score import paired
from segline.score.judge import Score
from segline.text import visible

FORM = ("classes", "channels", "dtype")  # tags that say what a model takes and what it answers
SHOWN = 5  # groups that are named in one line


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


def floors(figures: Mapping[str, float | None], gate: Gate) -> Verdict:
    """Judge the `figures` of test.json by the floors of `gate`.

    A figure that is missing, null or not a number fails: what cannot be shown does not hold. A value on the limit
    passes.
    """
    return Verdict(
        (
            at_least("mean_iou", figures.get("mean_iou"), gate.min_mean_iou),
            at_most("pixel_error", figures.get("pixel_error"), gate.max_pixel_error),
        )
    )


def at_least(name: str, value: float | None, limit: float, detail: str = "") -> Check:
    """A check of a value that must reach `limit`."""
    known = _number(value)
    return Check(name, known, limit, known is not None and known >= limit, ">=", detail)


def at_most(name: str, value: float | None, limit: float, detail: str = "") -> Check:
    """A check of a value that must not go beyond `limit`."""
    known = _number(value)
    return Check(name, known, limit, known is not None and known <= limit, "<=", detail)


def same_form(challenger: Mapping[str, str], other: Mapping[str, str], named: str) -> Verdict:
    """Whether a model takes the same images and tells the same classes, by its tags, as what is `named` does."""
    forms = {name: tuple(visible(tags.get(name, "not known"))[:200] for tags in (challenger, other)) for name in FORM}
    return Verdict(
        (),
        tuple(
            f"{name} of the challenger: {ours}, of the {named}: {theirs}; such models do not compete, give one of them "
            "another registration.name"
            for name, (ours, theirs) in forms.items()
            if ours != theirs
        ),
    )


def compare(champion: Sequence[Score], challenger: Sequence[Score], groups: Sequence[str], gate: Gate) -> Verdict:
    """Judge whether the challenger loses against the champion: on all images, and on those of any group.

    Parameters
    ----------
    champion, challenger
        What was counted on the same images.
    groups
        Of each image.
    """
    if reasons := tuple(_why_not(champion, challenger, gate)):
        return Verdict((), reasons)
    result = paired.compare(
        champion, challenger, gate.metric, resamples=gate.resamples, confidence=gate.confidence, seed=gate.seed
    )
    words = (
        f"{result.second.value:.4f}, champion {result.first.value:.4f}: {result.gain.value:+.4f} "
        f"({gate.confidence:.0%} interval {result.gain.low:+.4f} to {result.gain.high:+.4f})"
    )
    whole = at_least(f"gain in {gate.metric}, lower bound", result.gain.low, -gate.margin, words)
    return Verdict((whole, *_worst_group(champion, challenger, groups, gate)))


def _why_not(champion: Sequence[Score], challenger: Sequence[Score], gate: Gate) -> Iterator[str]:
    """Why these scores decide nothing."""
    if len(challenger) < gate.min_images:
        yield f"there are {len(challenger)} test images, gate.min_images asks for {gate.min_images}"
    counted = [name for name in paired.METRICS if paired.known(champion, name) and paired.known(challenger, name)]
    if gate.metric not in counted:
        yield f"gate.metric = {gate.metric} is not counted on these images with both models; take {', '.join(counted)}"


def _worst_group(
    champion: Sequence[Score], challenger: Sequence[Score], groups: Sequence[str], gate: Gate
) -> list[Check]:
    """The check of the group that loses most; none where no group has images enough."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    gains = {
        group: paired.gain([champion[i] for i in inside], [challenger[i] for i in inside], gate.metric)
        for group, inside in members.items()
        if len(inside) >= gate.min_group_images
    }
    order = sorted((gain, group) for group, gain in gains.items() if not math.isnan(gain))
    if not order:
        return []
    losers = [f"{group} {gain:+.4f}" for gain, group in order if gain < -gate.group_margin]
    words = f"{order[0][1]} is the worst of {len(order)} groups"
    if len(losers) > 1:
        words += f"; too much is lost by {', '.join(losers[:SHOWN])}{' ...' if len(losers) > SHOWN else ''}"
    return [at_least(f"gain in {gate.metric} of a group", order[0][0], -gate.group_margin, words)]


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _plain(text: str) -> str:
    """Text that stays in its cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
