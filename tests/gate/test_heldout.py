"""Judge models with known answers: each is a threshold, on images where thresholds differ in known pixels."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segline.gate import heldout
from segline.gate.heldout import HeldOut
from segline.model.images import decode, encode_png
from segline.track.answers import load_model
from segline.track.registry import ModelVersion, Registry
from segline.track.store import open_store
from segline.track.verdict import Check, Verdict

Version = Callable[[str], ModelVersion]


@pytest.fixture
def judge(version: Version) -> Callable[..., Verdict]:
    """Judge one model of MODELS, with another as champion."""

    def call(challenger: str, champion: str | None) -> Verdict:
        former = version(champion) if champion else None
        verdict = heldout.judge(Registry(open_store(), "cells"), version(challenger), former)
        assert Verdict.from_dict(json.loads(json.dumps(verdict.as_dict(), allow_nan=False))) == verdict
        assert verdict.markdown().startswith(f"## Gate: {verdict.word}")
        return verdict

    return call


def failed(verdict: Verdict) -> list[str]:
    assert verdict.undecided == ()
    return [check.name for check in verdict.checks if not check.passed]


def check(verdict: Verdict, name: str) -> Check:
    return next(check for check in verdict.checks if check.name == name)


@pytest.mark.parametrize(
    ("challenger", "champion", "fails"),
    [
        ("perfect", "worse", []),
        ("perfect", "false on a", []),
        ("other code", "perfect", []),
        ("perfect", "perfect", []),
        ("slightly worse", "perfect", []),  # no pixel lies between the thresholds
        ("perfect", "upside down", []),
        ("worse", "perfect", ["gain in mean_iou, worst group"]),
        ("misses on b", "false on a", ["gain in mean_iou, worst group"]),
        ("upside down", "perfect", ["mean_iou", "pixel_error", "gain in mean_iou, lower bound"]),
    ],
)
def test_better_and_equal_models_pass_and_worse_ones_fail(
    judge: Callable[..., Verdict], challenger: str, champion: str, fails: list[str]
) -> None:
    verdict = judge(challenger, champion)
    assert set(fails) <= set(failed(verdict))
    assert bool(failed(verdict)) == bool(fails)
    assert verdict.exit_code == int(bool(fails))


def test_first_model_is_judged_without_a_champion(judge: Callable[..., Verdict]) -> None:
    verdict = judge("perfect", None)
    assert verdict.exit_code == 0
    assert not any("gain" in check.name for check in verdict.checks)
    assert failed(judge("upside down", None)) == ["mean_iou", "pixel_error"]


def test_a_model_that_is_worse_in_one_group_fails(judge: Callable[..., Verdict]) -> None:
    verdict = judge("misses on b", "false on a")
    assert failed(verdict) == ["gain in mean_iou, worst group"]
    assert check(verdict, "gain in mean_iou, lower bound").value > 0
    assert "group b is the worst of 2 groups" in check(verdict, "gain in mean_iou, worst group").detail


def test_a_loss_up_to_the_margin_passes(judge: Callable[..., Verdict], judged: Path) -> None:
    """A loss just below the margin passes, a loss just above it fails."""
    verdict = judge("false on a", "perfect")
    loss = -check(verdict, "gain in mean_iou, lower bound").value
    for margin, passed in ((loss + 0.001, True), (loss - 0.001, False)):
        (judged / "params.yaml").write_text(
            f"gate: {{margin: {margin}, group_margin: 1}}\nruntime: {{progress: 'off'}}\n"
        )
        assert judge("false on a", "perfect").passed == passed


def test_each_model_answers_with_its_own_code(judge: Callable[..., Verdict], version: Version) -> None:
    detail = check(judge("perfect", "upside down"), "gain in mean_iou, lower bound").detail
    assert detail.startswith("challenger 1.0000, champion 0.0000, gain +1.0000")
    store = open_store()
    models = [load_model(store, f"models:/cells/{version(name).version}") for name in ("perfect", "upside down")]
    pixels = np.array([[20, 230, 20], [230, 20, 230]], np.uint8)
    for _ in range(2):  # alternating
        answers = [decode(model(encode_png(pixels)).labels)[..., 0] for model in models]
        assert np.array_equal(answers[0], pixels > 128)
        assert np.array_equal(answers[1], pixels <= 128)


@pytest.mark.parametrize("name", ["other classes", "other channels"])
def test_models_with_another_interface_are_not_judged(judge: Callable[..., Verdict], name: str) -> None:
    for verdict in (judge(name, "perfect"), judge("perfect", name), judge(name, None)):
        assert verdict.exit_code == 2
        assert name.split()[1] in " ".join(verdict.undecided)


@pytest.mark.parametrize(
    ("owner", "file"),
    [
        ("perfect", "artifacts/model/weights.safetensors"),
        ("perfect", "artifacts/example/labels.png"),
        ("worse", "artifacts/model/weights.safetensors"),
        ("worse", "MLmodel"),
    ],
)
def test_a_missing_file_leaves_the_gate_undecided(
    judge: Callable[..., Verdict], version: Version, package: Callable[[ModelVersion], Path], owner: str, file: str
) -> None:
    (package(version(owner)) / file).unlink()
    verdict = judge("perfect", "worse")
    assert verdict.exit_code == 2
    assert len(verdict.undecided) == 1


def test_missing_test_images_leave_the_gate_undecided(judge: Callable[..., Verdict], judged: Path) -> None:
    (judged / "data" / "prepared" / "classes" / "a1.npy").unlink()
    assert "a1.npy" in judge("perfect", "worse").undecided[0]
    manifest = judged / "data" / "prepared" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",test,", ",train,"))
    assert "dvc pull" in judge("perfect", "worse").undecided[0]
    shutil.rmtree(judged / "data")
    assert judge("perfect", None).exit_code == 2


def test_too_few_images_or_a_missing_metric_leave_the_gate_undecided(
    judge: Callable[..., Verdict], judged: Path
) -> None:
    for setting in ("min_images: 12", "metric: v_rand"):
        (judged / "params.yaml").write_text(f"gate: {{{setting}}}\nruntime: {{progress: 'off'}}\n")
        verdict = judge("perfect", "worse")
        assert verdict.exit_code == 2
        assert setting.split(":")[0] in verdict.undecided[0]
        assert judge("perfect", None).passed
    (judged / "params.yaml").write_text("gate: {metric: ap_50, min_images: 11}\nruntime: {progress: 'off'}\n")
    assert check(judge("perfect", "worse"), "gain in ap_50, lower bound").passed


def test_both_models_are_scored_again_on_other_test_images(
    judge: Callable[..., Verdict], judged: Path, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare two models whose ranking depends on the images."""
    scored: list[str] = []
    score = HeldOut._score
    monkeypatch.setattr(HeldOut, "_score", lambda self, name, *rest: scored.append(name) or score(self, name, *rest))
    before = judge("false on a", "misses on b")
    assert len(scored) == 2 * 11
    assert judge("false on a", "misses on b") == before
    assert len(scored) == 2 * 11  # the scores were cached
    manifest = judged / "data" / "prepared" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",test,a", ",train,a"))
    after = judge("false on a", "misses on b")
    assert len(scored) == 2 * 11 + 2 * 3
    assert after.facts["test.md5"] != before.facts["test.md5"]
    name = "gain in mean_iou, lower bound"
    assert check(before, name).value < 0 <= check(after, name).value
    assert "scored here on the current test images" in after.facts["note"]
    client = Registry(open_store(), "cells").client
    client.set_model_version_tag("cells", version("misses on b").version, "test.md5", after.facts["test.md5"])
    assert "note" not in judge("false on a", "misses on b").facts


def test_a_model_that_learned_from_test_images_is_not_judged(judge: Callable[..., Verdict]) -> None:
    verdict = judge("learned from the test", None)
    assert verdict.exit_code == 2
    assert "learned from 1 of these test images, such as a1" in verdict.undecided[0]
    verdict = judge("perfect", "learned from the test")
    assert verdict.exit_code == 0
    assert "learned from 1 of these test images" in verdict.facts["head start"]
    assert "head start" not in judge("perfect", "other code").facts


@pytest.mark.parametrize(
    ("name", "fails"),
    [
        ("not batched", ["batch: answers that differ"]),
        ("even only", ["odd size: answers at full size"]),
        ("fails", ["test images answered"]),
    ],
)
def test_faulty_models_fail(judge: Callable[..., Verdict], name: str, fails: list[str]) -> None:
    assert failed(judge(name, None)) == fails
