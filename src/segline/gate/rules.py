"""What a model must reach before it may become champion: floors, and to lose nothing against the champion."""

import math
from collections.abc import Iterator, Mapping, Sequence

from segline.params import Gate
from segline.score import paired
from segline.score.judge import Score
from segline.text import visible
from segline.track.verdict import Check, Verdict, at_least, at_most

FORM = ("classes", "channels", "dtype")  # tags that say what a model takes and what it answers
SHOWN = 5  # groups that are named in one line


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
