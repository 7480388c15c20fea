"""The gate on figures and counts made by hand."""

import json

import numpy as np
import pytest

from segline.gate.rules import compare, floors, same_form
from segline.params import Gate
from segline.score.judge import Score
from segline.track.verdict import Verdict

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
def test_floors(figures: dict[str, float | None], passed: tuple[bool, bool]) -> None:
    verdict = floors(figures, GATE)
    assert tuple(check.passed for check in verdict.checks) == passed
    assert verdict.passed == all(passed)


def test_verdict_is_strict_json() -> None:
    verdict = floors({"mean_iou": float("nan"), "pixel_error": 0.05}, GATE)
    content = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert content["passed"] is False
    assert content["checks"][0] == {
        "name": "mean_iou", "value": None, "limit": 0.7, "passed": False, "bound": ">=", "detail": "",
    }  # fmt: skip
    assert Verdict.from_dict(content) == verdict
    # As an earlier segline wrote it.
    old = {"passed": True, "checks": [{"name": "mean_iou", "value": 0.8, "limit": 0.7, "passed": True}]}
    assert Verdict.from_dict(old).passed


def test_words_and_exit_codes() -> None:
    good, bad = floors({"mean_iou": 1, "pixel_error": 0}, GATE), floors({}, GATE)
    unknown = Verdict((), ("why | not",), {"images": "3"})
    assert [(each.word, each.exit_code) for each in (good, bad, unknown)] == [
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
        "| check | value | asked for | | |\n|---|---|---|---|---|\n"
        "| mean_iou | 0.8000 | >= 0.7000 | holds |  |\n"
        "| pixel_error | - | <= 0.1000 | **fails** |  |\n\nimages 3\n"
    )


def images(*shares: float) -> list[Score]:
    """Images of 1,000 foreground pixels, of which such shares are found."""
    return [Score(np.array([[0, 0], [1000 - round(1000 * share), round(1000 * share)]])) for share in shares]


@pytest.mark.parametrize(
    ("champion", "challenger", "groups", "passed"),
    [
        (images(0.8, 0.8), images(0.9, 0.9), "ab", True),
        (images(0.8, 0.8), images(0.8, 0.8), "ab", True),
        (images(0.8, 0.8), images(0.79, 0.79), "ab", True),  # on the margin
        (images(0.8, 0.8), images(0.789, 0.789), "ab", False),
        (images(0.8, 0.8), images(0.9, 0.7), "ab", False),  # on average the same, but that is not sure
        (images(*[0.8] * 9), images(*[0.9] * 7, 0.76, 0.76), "aaaaaaabb", True),
        (images(*[0.8] * 9), images(*[0.9] * 7, 0.74, 0.74), "aaaaaaabb", False),  # one group loses too much
        (images(*[0.8] * 9), images(*[0.9] * 7, 0.74, 0.74), "aaaaaaabc", True),  # which are no groups
    ],
)
def test_against_the_champion(champion: list[Score], challenger: list[Score], groups: str, passed: bool) -> None:
    # An end that is computed to be the margin may be beside it by a rounding.
    gate = Gate(margin=0.01 + 1e-12, group_margin=0.05)
    verdict = compare(champion, challenger, groups, gate)
    assert verdict.undecided == ()
    assert verdict.passed == passed


def test_groups_that_lose_are_named() -> None:
    groups = [f"slide {number // 2}" for number in range(20)]
    verdict = compare(images(*[0.9] * 20), images(*[0.9] * 4, *[0.5] * 14, 0.4, 0.4), groups, GATE)
    check = verdict.checks[-1]
    assert check.value == pytest.approx(-0.5)
    assert check.detail.startswith("slide 9 is the worst of 10 groups; too much is lost by slide 9 -0.5000, slide 2 ")
    assert check.detail.endswith(" ...")


def test_what_decides_nothing() -> None:
    assert "min_images asks for 2" in compare(images(0.9), images(0.9), "a", GATE).undecided[0]
    (reason,) = compare(images(1, 1), images(1, 1), "ab", Gate(metric="seg")).undecided
    assert reason.endswith("take mean_iou, pixel_error")
    nothing = [Score(np.array([[9, 0], [0, 0]]))] * 2
    assert not compare(nothing, nothing, "ab", GATE).passed  # what cannot be shown does not hold


def test_only_models_of_one_form_compete() -> None:
    tags = {"classes": "{}", "channels": "1", "dtype": "uint8", "dataset": "a"}
    assert same_form(tags, {**tags, "dataset": "b"}, "champion") == Verdict(())
    (reason,) = same_form(tags, {**tags, "dtype": "uint16"}, "champion").undecided
    assert "dtype of the challenger: uint8, of the champion: uint16" in reason
    assert same_form(tags, {}, "champion").exit_code == 2
