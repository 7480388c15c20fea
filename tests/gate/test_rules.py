"""Apply the rules of the gate to metrics and counts made by hand."""

import json

import numpy as np
import pytest

from segline.gate.rules import compare, floors, refusals, same_interface
from segline.params import Gate
from segline.score.judge import Score
from segline.track.verdict import Verdict, at_least, at_most

GATE = Gate(min_mean_iou=0.7, max_pixel_error=0.1)


@pytest.mark.parametrize(
    ("figures", "passed"),
    [
        ({"mean_iou": 0.8, "pixel_error": 0.05}, (True, True)),
        ({"mean_iou": 0.7, "pixel_error": 0.1}, (True, True)),
        ({"mean_iou": 0.6999, "pixel_error": 0.05}, (False, True)),
        ({"mean_iou": 0.8, "pixel_error": 0.1001}, (True, False)),
        ({"mean_iou": float("nan"), "pixel_error": 0.05}, (False, True)),
        ({"mean_iou": None, "pixel_error": None}, (False, False)),
        ({}, (False, False)),
        ({"mean_iou": 1, "pixel_error": 0, "v_rand": 0.1}, (True, True)),
    ],
)
def test_floors_are_inclusive_and_fail_missing_metrics(
    figures: dict[str, float | None], passed: tuple[bool, bool]
) -> None:
    verdict = floors(figures, GATE)
    assert tuple(check.passed for check in verdict.checks) == passed
    assert verdict.passed == all(passed)


def test_verdict_is_strict_json() -> None:
    verdict = floors({"mean_iou": float("nan"), "pixel_error": 0.05}, GATE)
    content = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert content["passed"] is False
    assert content["checks"][0] == {
        "name": "mean_iou", "value": None, "limit": 0.7, "passed": False, "bound": ">=", "detail": "",
        "setting": "gate.min_mean_iou",
    }  # fmt: skip
    assert Verdict.from_dict(content) == verdict
    # The format of an earlier version of segline.
    old = {"passed": True, "checks": [{"name": "mean_iou", "value": 0.8, "limit": 0.7, "passed": True}]}
    assert Verdict.from_dict(old).passed


def test_verdict_word_and_exit_code() -> None:
    good, bad = floors({"mean_iou": 1, "pixel_error": 0}, GATE), floors({}, GATE)
    unknown = Verdict((), ("why | not",), {"images": "3"})
    assert [(verdict.word, verdict.exit_code) for verdict in (good, bad, unknown)] == [
        ("passed", 0), ("failed", 1), ("cannot decide", 2),
    ]  # fmt: skip
    both = good + bad
    assert both.checks == good.checks + bad.checks
    assert not both.passed
    assert (bad + unknown).exit_code == 2
    assert (good + unknown).facts == {"images": "3"}


def test_a_verdict_is_a_table_of_markdown() -> None:
    text = (floors({"mean_iou": 0.8}, GATE) + Verdict((), ("why | not",), {"images": "3"})).markdown()
    assert text == (
        "## Gate: cannot decide\n\n- why \\| not\n\n"
        "| check | value | limit | | |\n|---|---|---|---|---|\n"
        "| mean_iou | 0.8000 | >= 0.7000 | passed |  |\n"
        "| pixel_error | - | <= 0.1000 | **failed** |  |\n\nimages 3\n"
    )


def test_refusals_name_rule_value_limit_and_setting() -> None:
    verdict = floors({"mean_iou": 0.44}, Gate()) + compare(images(0.9, 0.9), images(0.8, 0.8), "ab", Gate())
    verdict += Verdict((at_most("batch: answers that differ", 1, 0, "1 of 3"), at_least("lineage", 1, 1, "commit 0")))
    low, unknown, gain, batch = refusals(verdict)
    assert low == "mean_iou 0.44 is below the minimum 0.5 (gate.min_mean_iou)"
    assert unknown == "pixel_error is not known, so the maximum 0.5 cannot be checked (gate.max_pixel_error)"
    assert gain.startswith(
        "gain in mean_iou, lower bound -0.1 is below the minimum -0.01 (gate.margin): "
        "challenger 0.8000, champion 0.9000, gain -0.1000 "
    )
    assert batch == "batch: answers that differ: 1 of 3"


def images(*shares: float) -> list[Score]:
    """Return scores of images with 1,000 foreground pixels, of which the given shares are predicted."""
    return [Score(np.array([[0, 0], [1000 - round(1000 * share), round(1000 * share)]])) for share in shares]


@pytest.mark.parametrize(
    ("champion", "challenger", "groups", "passed"),
    [
        (images(0.8, 0.8), images(0.9, 0.9), "ab", True),
        (images(0.8, 0.8), images(0.8, 0.8), "ab", True),
        (images(0.8, 0.8), images(0.79, 0.79), "ab", True),  # on the margin
        (images(0.8, 0.8), images(0.789, 0.789), "ab", False),
        (images(0.8, 0.8), images(0.9, 0.7), "ab", False),  # equal on average, but the interval is wide
        (images(*[0.8] * 9), images(*[0.9] * 7, 0.76, 0.76), "aaaaaaabb", True),
        (images(*[0.8] * 9), images(*[0.9] * 7, 0.74, 0.74), "aaaaaaabb", False),  # one group loses too much
        (images(*[0.8] * 9), images(*[0.9] * 7, 0.74, 0.74), "aaaaaaabc", True),  # groups of one image do not count
    ],
)
def test_compare_fails_a_loss_above_the_margin(
    champion: list[Score], challenger: list[Score], groups: str, passed: bool
) -> None:
    # The computed end of the interval may differ from the margin by a rounding error.
    gate = Gate(margin=0.01 + 1e-12, group_margin=0.05)
    verdict = compare(champion, challenger, groups, gate)
    assert verdict.undecided == ()
    assert verdict.passed == passed


def test_groups_that_lose_are_named() -> None:
    groups = [f"slide {number // 2}" for number in range(20)]
    verdict = compare(images(*[0.9] * 20), images(*[0.9] * 4, *[0.5] * 14, 0.4, 0.4), groups, GATE)
    check = verdict.checks[-1]
    assert check.value == pytest.approx(-0.5)
    assert check.detail.startswith(
        "group slide 9 is the worst of 10 groups; groups with too low a gain: slide 9 -0.5000, slide 2 "
    )
    assert check.detail.endswith(" ...")


def test_compare_cannot_decide_without_enough_images_and_metrics() -> None:
    assert "min_images requires 2" in compare(images(0.9), images(0.9), "a", GATE).undecided[0]
    (reason,) = compare(images(1, 1), images(1, 1), "ab", Gate(metric="seg")).undecided
    assert reason == (
        "gate.metric = seg is unknown for at least one of the two models; "
        "set gate.metric to one of: mean_iou, pixel_error"
    )
    nothing = [Score(np.array([[9, 0], [0, 0]]))] * 2
    assert not compare(nothing, nothing, "ab", GATE).passed  # a metric that is not known fails


def test_models_with_different_interfaces_are_not_compared() -> None:
    tags = {"classes": "{}", "channels": "1", "dtype": "uint8", "dataset": "a"}
    assert same_interface(tags, {**tags, "dataset": "b"}, "champion") == Verdict(())
    (reason,) = same_interface(tags, {**tags, "dtype": "uint16"}, "champion").undecided
    assert "the value of dtype is uint8 for the challenger, but uint16 for the champion" in reason
    assert same_interface(tags, {}, "champion").exit_code == 2
