"""Rules of the gate: minimum metrics for every model, and the comparison of a challenger with the champion."""

import math
from collections.abc import Iterator, Mapping, Sequence

from segline.params import Gate
from segline.score import bootstrap
from segline.score.judge import Score
from segline.text import visible
from segline.track.verdict import Check, Verdict, at_least, at_most

INTERFACE = ("classes", "channels", "dtype")  # tags that describe the input and the output of a model
SHOWN = 5  # number of groups that a message names


def floors(metrics: Mapping[str, float | None], gate: Gate) -> Verdict:
    """Check that mean_iou reaches the minimum in `gate`, and that pixel_error does not exceed the maximum.

    A metric that is missing, null or nan fails. A value equal to its limit passes.
    """
    return Verdict(
        (
            at_least("mean_iou", metrics.get("mean_iou"), gate.min_mean_iou, setting="gate.min_mean_iou"),
            at_most("pixel_error", metrics.get("pixel_error"), gate.max_pixel_error, setting="gate.max_pixel_error"),
        )
    )


def same_interface(challenger: Mapping[str, str], other: Mapping[str, str], other_name: str) -> Verdict:
    """Compare the tags of two models; both must accept the same kind of images and predict the same classes.

    Parameters
    ----------
    challenger, other : tags of the two models.
    other_name : name of the other model in the reasons, for example "champion".
    """
    values = {
        name: tuple(visible(tags.get(name, "not known"))[:200] for tags in (challenger, other)) for name in INTERFACE
    }
    return Verdict(
        (),
        tuple(
            f"the value of {name} is {challenger_value} for the challenger, but {other_value} for the {other_name}; "
            f"models with different {name} cannot be compared, so give one model another registration.name"
            for name, (challenger_value, other_value) in values.items()
            if challenger_value != other_value
        ),
    )


def compare(champion: Sequence[Score], challenger: Sequence[Score], groups: Sequence[str], gate: Gate) -> Verdict:
    """Check that the challenger is not worse than the champion, on all test images and on each group of images.

    Parameters
    ----------
    champion, challenger
        Scores of the two models on the same images.
    groups
        Name of the group that each image belongs to.
    """
    if reasons := tuple(_undecidable(champion, challenger, gate)):
        return Verdict((), reasons)
    result = bootstrap.compare(
        champion, challenger, gate.metric, resamples=gate.resamples, confidence=gate.confidence, seed=gate.seed
    )
    detail = (
        f"challenger {result.second.value:.4f}, champion {result.first.value:.4f}, gain {result.gain.value:+.4f} "
        f"({gate.confidence:.0%} interval {result.gain.low:+.4f} to {result.gain.high:+.4f})"
    )
    all_images = at_least(
        f"gain in {gate.metric}, lower bound", result.gain.low, -gate.margin, detail, setting="gate.margin"
    )
    return Verdict((all_images, *_worst_group(champion, challenger, groups, gate)))


def refusals(verdict: Verdict) -> list[str]:
    """Return one reason for each failed check, with value, limit and setting."""
    return [_refusal(check) for check in verdict.checks if not check.passed]


def _refusal(check: Check) -> str:
    detail = f": {check.detail}" if check.detail else ""
    if detail and not check.setting:  # a fixed limit explains less than the detail
        return f"{check.name}{detail}"
    limit = f"{'minimum' if check.bound == '>=' else 'maximum'} {check.limit:g}"
    relation = "below" if check.bound == ">=" else "above"
    setting = f" ({check.setting})" if check.setting else ""
    if check.value is None:
        return f"{check.name} is not known, so the {limit} cannot be checked{setting}{detail}"
    return f"{check.name} {check.value:.6g} is {relation} the {limit}{setting}{detail}"


def _undecidable(champion: Sequence[Score], challenger: Sequence[Score], gate: Gate) -> Iterator[str]:
    """Yield each reason why the scores cannot show which of the two models is better."""
    if len(challenger) < gate.min_images:
        yield f"there are {len(challenger)} test images, but gate.min_images requires {gate.min_images}"
    available = [
        name for name in bootstrap.METRICS if bootstrap.known(champion, name) and bootstrap.known(challenger, name)
    ]
    if gate.metric not in available:
        yield (
            f"gate.metric = {gate.metric} is unknown for at least one of the two models; set gate.metric to one of: "
            f"{', '.join(available)}"
        )


def _worst_group(
    champion: Sequence[Score], challenger: Sequence[Score], groups: Sequence[str], gate: Gate
) -> list[Check]:
    """Check the group of images on which the challenger's gain over the champion is lowest.

    A group is skipped if it is too small or its gain is unknown. If all groups are skipped, the list is empty.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    gains = {
        group: bootstrap.gain([champion[i] for i in indices], [challenger[i] for i in indices], gate.metric)
        for group, indices in members.items()
        if len(indices) >= gate.min_group_images
    }
    order = sorted((gain, group) for group, gain in gains.items() if not math.isnan(gain))
    if not order:
        return []
    losers = [f"{group} {gain:+.4f}" for gain, group in order if gain < -gate.group_margin]
    detail = f"group {order[0][1]} is the worst of {len(order)} groups"
    if len(losers) > 1:
        detail += f"; groups with too low a gain: {', '.join(losers[:SHOWN])}{' ...' if len(losers) > SHOWN else ''}"
    name = f"gain in {gate.metric}, worst group"
    return [at_least(name, order[0][0], -gate.group_margin, detail, setting="gate.group_margin")]
