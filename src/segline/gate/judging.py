"""The gate is asked: a challenger and the champion answer the test images, each by its own code, and are judged."""

from segline import params
from segline.gate import rules, selfcheck
from segline.gate.heldout import HeldOut, HeldOutError
from segline.score import judge as judge_images
from segline.score.judge import Score
from segline.text import visible
from segline.track.answers import Loaded, load_model
from segline.track.registry import VERSION_TAG, ModelVersion, Registry, RegistryError
from segline.track.verdict import Check, Verdict

FEW = 2  # of the smallest test images, for the checks of a model by itself
SHORT = 8  # letters of an md5


def judge(
    registry: Registry, challenger: ModelVersion, champion: ModelVersion | None, *, trust: bool = False
) -> Verdict:
    """The verdict on `challenger`; without a champion by the floors and the checks of a model by itself alone.

    What cannot be decided, and why, is part of the verdict; nothing is raised for it.

    Parameters
    ----------
    trust : the user vouches for a challenger of which registry.jsonl has no line.
    """
    facts = {"challenger": _known_as(challenger), "champion": _known_as(champion) if champion else "none yet"}
    verdict = Verdict((), (), facts)
    if champion:
        verdict += rules.same_form(challenger.tags, champion.tags, "champion")
    try:
        held_out = HeldOut.open(params.read(params.Runtime).progress)
        verdict += _about(held_out, champion)
        verdict += rules.same_form(challenger.tags, held_out.form, "test images")
        if verdict.undecided:
            return verdict
        return verdict + _judge(registry, load(registry, challenger, trust=trust), challenger, champion, held_out)
    except (HeldOutError, RegistryError) as error:
        return verdict + Verdict((), (str(error),))


def load(registry: Registry, version: ModelVersion, *, trust: bool = False) -> Loaded:
    """The model of a version; RegistryError where it may not be trusted."""
    return load_model(registry.store, f"models:/{registry.name}/{version.version}", trust=trust)


def _judge(
    registry: Registry, model: Loaded, challenger: ModelVersion, champion: ModelVersion | None, held_out: HeldOut
) -> Verdict:
    settings = params.read(params.Gate)
    if learned := held_out.learned_by(model):
        reason = f"the challenger learned from {len(learned)} of these test images, such as {learned[0]}"
        return Verdict((), (f"{reason}; train it on the splits as they are now",))
    try:
        ours = held_out.scores(registry, challenger, model)
    except HeldOutError as error:
        return Verdict((Check("test images answered", None, len(held_out.names), passed=False, detail=str(error)),))
    verdict = rules.floors(judge_images.total(ours, held_out.prepared.dataset.classes), settings)
    if champion:
        verdict += _against(registry, champion, ours, held_out, settings)
    return verdict + selfcheck.check(model, held_out.smallest(FEW), settings)


def _against(
    registry: Registry, champion: ModelVersion, ours: list[Score], held_out: HeldOut, settings: params.Gate
) -> Verdict:
    """The challenger's scores against those of the champion."""
    model = load(registry, champion)
    verdict = rules.compare(held_out.scores(registry, champion, model), ours, held_out.groups, settings)
    if learned := held_out.learned_by(model):
        verdict += Verdict((), (), {"head start": f"the champion learned from {len(learned)} of these images"})
    return verdict


def _about(held_out: HeldOut, champion: ModelVersion | None) -> Verdict:
    """What the test is."""
    facts = {"test.md5": held_out.md5, "images": str(len(held_out.names))}
    if champion and champion.tags.get("test.md5") != held_out.md5:
        facts["note"] = "the champion was not registered on these test images; it is scored on them now"
    return Verdict((), (), facts)


def _known_as(version: ModelVersion) -> str:
    return f"version {version.version} ({visible(version.tags.get(VERSION_TAG, 'no md5')[:SHORT])})"
