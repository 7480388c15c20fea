"""Judge a challenger and the champion on the current test images; each model predicts with its own code."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

import segline.score
from segline import files, params, progress
from segline.data import truth
from segline.data.dataset import IGNORE
from segline.data.prepared import PREPARED, Prepared
from segline.gate import rules, selfcheck
from segline.model.images import decode
from segline.score import judge as judge_images
from segline.score.judge import Score
from segline.score.overlay import RGB, overlay
from segline.text import visible
from segline.track import identity, lineage, packaging, tags
from segline.track.answers import Answer, Loaded, load_model
from segline.track.registry import IMAGES, VERSION_TAG, ModelVersion, Registry, RegistryError
from segline.track.verdict import Check, Verdict

SCORES = "scores"  # folder in mlruns that caches the scores of each version on each test split
SMALLEST = 2  # number of test images for the self-check; the smallest images are used
SHORT = 8  # number of md5 digits that a message shows


class HeldOutError(ValueError):
    """Raised if the test images are missing or a version fails to predict them."""

    exit_code = 2


@dataclass(frozen=True)
class HeldOut:
    """The test split of data/prepared.

    ``md5`` identifies the content of the split. ``mode`` selects the progress display.
    """

    prepared: Prepared
    md5: str
    mode: progress.Mode

    @classmethod
    def open(cls, mode: progress.Mode) -> Self:
        """Open the test split; raise HeldOutError if the split is missing or incomplete."""
        missing = f"there are no test images in {PREPARED}; run `dvc pull` or `dvc repro prepare`"
        try:
            prepared = Prepared.open()
            md5 = lineage.combined_md5(truth.md5s(prepared))
        except (ValueError, OSError) as error:
            raise HeldOutError(f"{missing} ({error})") from error
        if not prepared.names("test"):
            raise HeldOutError(missing)
        return cls(prepared, md5, mode)

    @cached_property
    def names(self) -> list[str]:
        """Names of the test images."""
        return self.prepared.names("test")

    @cached_property
    def groups(self) -> list[str]:
        """Name of the group of each test image."""
        manifest = self.prepared.manifest
        return [str(group) for group in manifest.loc[manifest["split"] == "test", "group"]]

    @property
    def interface(self) -> dict[str, str]:
        """Classes, number of channels and dtype of the test images, in the same form as in the tags of a version."""
        statistics = self.prepared.statistics
        return tags.interface(self.prepared.dataset.classes, statistics.channels, statistics.dtype)

    def encoded(self, name: str) -> bytes:
        """Return the test image `name`, encoded as an image file."""
        return packaging.encode(self.prepared.image(name))

    def smallest(self, count: int) -> list[bytes]:
        """Return the `count` smallest test images, each encoded as an image file."""
        names = sorted(self.names, key=lambda name: (self.prepared.image(name).size, name))
        return [self.encoded(name) for name in names[:count]]

    def scores(self, registry: Registry, version: ModelVersion, model: Loaded) -> list[Score]:
        """Predict all test images with `model`, which was loaded from `version`, and score the predictions.

        The scores are cached in mlruns/scores; the cache key holds the md5s of version, images and scoring code.

        Raises
        ------
        HeldOutError
            The model fails on an image.
        """
        key = {"version": model.md5, "test": self.md5, "code": _scoring_md5()}
        cache = registry.store.place.folder / SCORES / f"{lineage.combined_md5(key)}.json"
        if (cached := _cached(cache, len(self.names))) is not None:
            return cached
        title = f"{registry.name} version {version.version}: score"
        scores = [self._score(name, model, version) for name in progress.track(self.names, title, self.mode)]
        files.write_bytes(cache, json.dumps([score.as_dict() for score in scores]).encode())
        return scores

    def learned_by(self, model: Loaded) -> list[str]:
        """Return the test images that were used for training or validation of `model`, according to its image list."""
        image_list, manifest = model.folder / IMAGES, self.prepared.manifest
        if not image_list.exists() or "md5" not in manifest:
            return []
        try:
            table = files.read_table(image_list)
            learned = set(table.loc[table["split"] != "test", "md5"])
        except (ValueError, KeyError) as error:
            raise HeldOutError(
                f"the image list {IMAGES} of the version cannot be read ({error}); register the model again"
            ) from error
        return manifest.loc[(manifest["split"] == "test") & manifest["md5"].isin(learned), "image"].tolist()

    def picture(self, name: str, answer: Answer) -> RGB:
        """Draw a test image with the outlines of a prediction, and tint the wrongly predicted pixels."""
        return self._overlay(name, _labels(answer), _objects(answer))

    def true_picture(self, name: str) -> RGB:
        """Draw a test image with the outlines of the ground truth."""
        classes = self.prepared.classes(name)
        return self._overlay(name, np.where(classes == IGNORE, 0, classes), self.prepared.instances(name))

    def _overlay(self, name: str, labels: npt.NDArray[np.uint8], objects: npt.NDArray[np.int32] | None) -> RGB:
        has_instances = self.prepared.dataset.labels == "instances"
        true = self.prepared.classes(name)
        return overlay(self.prepared.image(name), labels, true, IGNORE, objects=objects if has_instances else None)

    def _score(self, name: str, model: Loaded, version: ModelVersion) -> Score:
        try:
            answer = model(self.encoded(name))
            return truth.score(self.prepared, name, _labels(answer), _objects(answer))
        except Exception as error:  # the code in the package may raise any error
            raise HeldOutError(
                f"version {version.version} fails on test image {name}: {type(error).__name__}: {error}"
            ) from error


def judge(
    registry: Registry, challenger: ModelVersion, champion: ModelVersion | None, *, trust: bool = False
) -> Verdict:
    """Judge a challenger by minimum values of its metrics, a self-check and, if there is a champion, a comparison.

    If the gate cannot decide, no error is raised, and the verdict holds the reasons.

    Parameters
    ----------
    trust : accept a challenger without a line in registry.jsonl, on the user's responsibility.
    """
    facts = {"challenger": _label(challenger), "champion": _label(champion) if champion else "none yet"}
    verdict = Verdict((), (), facts)
    if champion:
        verdict += rules.same_interface(challenger.tags, champion.tags, "champion")
    try:
        held_out = HeldOut.open(params.read(params.Runtime).progress)
        verdict += _facts(held_out, champion)
        verdict += rules.same_interface(challenger.tags, held_out.interface, "test images")
        if verdict.undecided:
            return verdict
        model = load(registry, challenger, trust=trust)
        return verdict + _judge(registry, model, challenger, champion, held_out)
    except (HeldOutError, RegistryError) as error:
        return verdict + Verdict((), (str(error),))


def load(registry: Registry, version: ModelVersion, *, trust: bool = False) -> Loaded:
    """Load the model of a version; raise RegistryError if the version is not trusted."""
    return load_model(registry.store, f"models:/{registry.name}/{version.version}", trust=trust)


def _judge(
    registry: Registry, model: Loaded, challenger: ModelVersion, champion: ModelVersion | None, held_out: HeldOut
) -> Verdict:
    settings = params.read(params.Gate)
    if learned := held_out.learned_by(model):
        reason = f"the challenger learned from {len(learned)} of these test images, such as {learned[0]}"
        return Verdict((), (f"{reason}; train the challenger again on the current splits",))
    try:
        scores = held_out.scores(registry, challenger, model)
    except HeldOutError as error:
        return Verdict((Check("test images answered", None, len(held_out.names), passed=False, detail=str(error)),))
    verdict = rules.floors(judge_images.total(scores, held_out.prepared.dataset.classes), settings)
    if champion:
        verdict += _against(registry, champion, scores, held_out, settings)
    return verdict + selfcheck.check(model, held_out.smallest(SMALLEST), settings)


def _against(
    registry: Registry, champion: ModelVersion, scores: list[Score], held_out: HeldOut, settings: params.Gate
) -> Verdict:
    """Compare the challenger's scores with the champion's scores on the same images."""
    model = load(registry, champion)
    verdict = rules.compare(held_out.scores(registry, champion, model), scores, held_out.groups, settings)
    if learned := held_out.learned_by(model):
        verdict += Verdict((), (), {"head start": f"the champion learned from {len(learned)} of these test images"})
    return verdict


def _facts(held_out: HeldOut, champion: ModelVersion | None) -> Verdict:
    """Return a verdict that contains no checks, only facts about the test images."""
    facts = {"test.md5": held_out.md5, "images": str(len(held_out.names))}
    if champion and champion.tags.get("test.md5") != held_out.md5:
        facts["note"] = (
            "the champion was registered with other test images, but is scored here on the current test images"
        )
    return Verdict((), (), facts)


def _label(version: ModelVersion) -> str:
    return f"version {version.version} ({visible(version.tags.get(VERSION_TAG, 'no md5')[:SHORT])})"


def _cached(file: Path, count: int) -> list[Score] | None:
    """Read cached scores; return None if the file is missing, is damaged, or does not hold exactly `count` scores."""
    if not file.exists():
        return None
    try:
        scores = [Score.from_dict(record) for record in files.read_json(file, loose=True)]
    except (files.FileError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return scores if len(scores) == count else None


def _labels(answer: Answer) -> npt.NDArray[np.uint8]:
    return decode(answer.labels)[..., 0]


def _objects(answer: Answer) -> npt.NDArray[np.int32] | None:
    return None if answer.instances is None else decode(answer.instances)[..., 0].astype(np.int32)


def _scoring_md5() -> str:
    """Return one digest of the code that computes scores: segline.score, segline.model and segline.data.truth."""
    rooms = {room.name: identity.of_folder(room) for room in (Path(segline.score.__file__).parent, packaging.ROOM)}
    return lineage.combined_md5({**rooms, "truth": identity.of_source(Path(truth.__file__).read_bytes())})
