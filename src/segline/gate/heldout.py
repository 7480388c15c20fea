"""The test images as they are now, and what is counted on them when a registered version answers by its own code."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

import segline.score
from segline import files, progress
from segline.data import truth
from segline.data.dataset import IGNORE
from segline.data.prepared import PREPARED, Prepared
from segline.model.images import decode
from segline.score.judge import Score
from segline.score.overlay import RGB, overlay
from segline.track import identity, lineage, packaging
from segline.track.answers import Answer, Loaded
from segline.track.registry import IMAGES, ModelVersion, Registry

SCORES = "scores"  # in mlruns: what was counted with a version on a test split


class HeldOutError(ValueError):
    """The test images, or a version's answers to them, cannot be had; the message says why."""

    exit_code = 2


@dataclass(frozen=True)
class HeldOut:
    """The test split of data/prepared; ``md5`` is of its content, ``mode`` how progress is shown."""

    prepared: Prepared
    md5: str
    mode: progress.Mode

    @classmethod
    def open(cls, mode: progress.Mode) -> Self:
        """The test split; HeldOutError where it is missing or not whole."""
        again = f"there are no test images in {PREPARED}; `dvc pull` or `dvc repro prepare` brings them"
        try:
            prepared = Prepared.open()
            md5 = lineage.combined_md5(truth.md5s(prepared))
        except (ValueError, OSError) as error:
            raise HeldOutError(f"{again} ({error})") from error
        if not prepared.names("test"):
            raise HeldOutError(again)
        return cls(prepared, md5, mode)

    @cached_property
    def names(self) -> list[str]:
        """The images."""
        return self.prepared.names("test")

    @cached_property
    def groups(self) -> list[str]:
        """The group of each."""
        manifest = self.prepared.manifest
        return [str(group) for group in manifest.loc[manifest["split"] == "test", "group"]]

    @property
    def form(self) -> dict[str, str]:
        """Classes, channels and type, as the tags of a version have them."""
        statistics = self.prepared.statistics
        classes = json.dumps(self.prepared.dataset.classes)
        return {"classes": classes, "channels": str(statistics.channels), "dtype": statistics.dtype}

    def encoded(self, name: str) -> bytes:
        """An image, as the bytes of a file."""
        return packaging.encode(self.prepared.image(name))

    def smallest(self, many: int) -> list[bytes]:
        """So many images that are quickly answered."""
        names = sorted(self.names, key=lambda name: (self.prepared.image(name).size, name))
        return [self.encoded(name) for name in names[:many]]

    def scores(self, registry: Registry, version: ModelVersion, model: Loaded) -> list[Score]:
        """What is counted on each image when `model`, which is that version, answers.

        It is kept in mlruns/scores: the same version on the same images is asked once.

        Raises
        ------
        HeldOutError
            It does not answer one of them.
        """
        made = {"version": model.md5, "test": self.md5, "code": _scoring_md5()}
        kept = registry.store.place.folder / SCORES / f"{lineage.combined_md5(made)}.json"
        if (known := _kept(kept, len(self.names))) is not None:
            return known
        what = f"{registry.name} version {version.version}: score"
        scores = [self._score(name, model, version) for name in progress.track(self.names, what, self.mode)]
        files.write_bytes(kept, json.dumps([one.as_dict() for one in scores]).encode())
        return scores

    def learned_by(self, model: Loaded) -> list[str]:
        """The test images that a model learned from or was chosen by, as far as its record of images says."""
        record, manifest = model.folder / IMAGES, self.prepared.manifest
        if not record.exists() or "md5" not in manifest:
            return []
        try:
            table = files.read_table(record)
            known = set(table.loc[table["split"] != "test", "md5"])
        except (ValueError, KeyError) as error:
            raise HeldOutError(f"{IMAGES} of the version cannot be read ({error}); register it again") from error
        return manifest.loc[(manifest["split"] == "test") & manifest["md5"].isin(known), "image"].tolist()

    def picture(self, name: str, answer: Answer) -> RGB:
        """The image, its answer outlined and what is wrong in it tinted."""
        return self._overlay(name, _labels(answer), _objects(answer))

    def true_picture(self, name: str) -> RGB:
        """The image, its truth outlined."""
        classes = self.prepared.classes(name)
        return self._overlay(name, np.where(classes == IGNORE, 0, classes), self.prepared.instances(name))

    def _overlay(self, name: str, labels: npt.NDArray[np.uint8], objects: npt.NDArray[np.int32] | None) -> RGB:
        alike = self.prepared.dataset.labels == "instances"
        true = self.prepared.classes(name)
        return overlay(self.prepared.image(name), labels, true, IGNORE, objects=objects if alike else None)

    def _score(self, name: str, model: Loaded, version: ModelVersion) -> Score:
        try:
            answer = model(self.encoded(name))
            return truth.score(self.prepared, name, _labels(answer), _objects(answer))
        except Exception as error:  # whatever the code in its package raises
            raise HeldOutError(
                f"version {version.version} does not answer test image {name}: {type(error).__name__}: {error}"
            ) from error


def _kept(file: Path, count: int) -> list[Score] | None:
    """The scores in a file; None where there are none, or others than are wanted: they are counted again then."""
    if not file.exists():
        return None
    try:
        scores = [Score.from_dict(one) for one in files.read_json(file, loose=True)]
    except (files.FileError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return scores if len(scores) == count else None


def _labels(answer: Answer) -> npt.NDArray[np.uint8]:
    return decode(answer.labels)[..., 0]


def _objects(answer: Answer) -> npt.NDArray[np.int32] | None:
    return None if answer.instances is None else decode(answer.instances)[..., 0].astype(np.int32)


def _scoring_md5() -> str:
    """Return the identity of the code that scores."""
    rooms = {room.name: identity.of_folder(room) for room in (Path(segline.score.__file__).parent, packaging.ROOM)}
    return lineage.combined_md5({**rooms, "truth": identity.of_source(Path(truth.__file__).read_bytes())})
