"""Check a real network, packed and loaded, without comparison; tests/gate/test_heldout.py checks faulty models."""

from pathlib import Path

import pytest

from segline.gate import selfcheck
from segline.model.images import decode
from segline.params import Gate
from segline.track import packaging
from segline.track.answers import Answer, Loaded, load_model
from segline.track.history import RegistryError
from segline.track.packaging import Parts
from segline.track.recording import StartedRun
from segline.track.registry import Registry
from segline.track.store import Store
from segline.track.verdict import Verdict


@pytest.fixture
def model(store: Store, parts: Parts, run: StartedRun) -> Loaded:
    """Load the network from the registry."""
    Registry(store, "cells").register(parts, run, Verdict(()), {})
    return load_model(store, "models:/cells/1")


def test_a_sound_model_passes(model: Loaded, parts: Parts) -> None:
    pixels = decode(parts.example)
    images = [packaging.encode(pixels[:16, :20]), packaging.encode(pixels[:1, :1])]
    verdict = selfcheck.check(model, images, Gate())
    assert verdict.passed, verdict.markdown()
    assert [check.name.split(":")[0] for check in verdict.checks] == ["example", "example", "batch", "odd size"]
    assert verdict.checks[-1].detail == "31 x 45 px"  # of 33 x 47


def test_a_slow_or_large_model_fails(model: Loaded, project: Path) -> None:
    generous = selfcheck.check(model, [], Gate(max_seconds=1000, max_megabytes=1000))
    assert generous.passed
    assert [check.name for check in generous.checks if check.limit == 1000] == [
        "seconds to answer the example", "megabytes",
    ]  # fmt: skip
    tight = selfcheck.check(model, [], Gate(max_seconds=1e-9, max_megabytes=1e-3))
    assert [check.name for check in tight.checks if not check.passed] == ["seconds to answer the example", "megabytes"]
    assert tight.checks[-1].value == pytest.approx(model.size / 1e6)
    package = next(project.glob("mlruns/artifacts/**/MLmodel")).parent
    assert model.size == sum(file.stat().st_size for file in package.rglob("*") if file.is_file())


def test_images_in_one_call_are_answered_as_alone(model: Loaded, parts: Parts) -> None:
    small = packaging.encode(decode(parts.example)[:8, :8])
    assert model.each([parts.example, small]) == [model(parts.example), model(small)]
    assert model.example.image == parts.example
    assert model.example.answer == Answer(parts.answer, parts.instances)
    (model.folder / "artifacts" / "example" / "image").unlink()
    with pytest.raises(RegistryError, match="register the model again"):
        _ = model.example


def test_an_answer_that_differs_from_the_stored_one_fails(model: Loaded, parts: Parts) -> None:
    inverted = packaging.encode_png((decode(parts.answer)[..., 0] == 0).astype("uint8"))
    (model.folder / "artifacts" / "example" / "labels.png").write_bytes(inverted)
    verdict = selfcheck.check(model, [], Gate())
    assert [check.name for check in verdict.checks if not check.passed] == ["example: pixels that differ"]
