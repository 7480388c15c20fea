"""The registry: versions of a model, their aliases, and the history that MLflow does not keep."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import load_model as load_pyfunc

from segline.track import lineage
from segline.track.gate import Verdict
from segline.track.runs import Run
from segline.track.shipping import Parts, check, pack
from segline.track.store import Store

VERSION_TAG = "version.md5"
CHALLENGER = "challenger"
CHAMPION = "champion"
HISTORY = "registry.jsonl"
MAX_DESCRIPTION = 5000  # characters that MLflow's table has room for


class RegistryError(ValueError):
    """A model that cannot be registered; the message says what to change."""


@dataclass(frozen=True)
class Promotion:
    """One line of registry.jsonl: an alias was given to a version."""

    time: str
    name: str
    alias: str
    version_md5: str
    model_md5: str
    commit: str
    dirty: str
    who: str
    reason: str


@dataclass(frozen=True)
class Registered:
    """What registration led to; ``created`` is False when the version was there already."""

    name: str
    version: str
    aliases: tuple[str, ...]
    created: bool


class Registry:
    """The versions of one model."""

    def __init__(self, store: Store, name: str) -> None:
        """`name` is the registered model's.

        Raises
        ------
        RegistryError
            MLflow takes no such name.
        """
        if not name.strip() or set("/:") & set(name):
            raise RegistryError(f"registration.name = {name!r}: a registered model needs a name without / and :")
        self.store = store
        self.client = store.client
        self.name = name

    def register(
        self, parts: Parts, run: Run, verdict: Verdict, tags: Mapping[str, str], description: str = ""
    ) -> Registered:
        """Make a version of `parts`, unless there is one of the same md5, and call it challenger.

        It becomes champion, too, when there is none and it passes the floors. What goes on is the same however often
        and from however many processes it is called.
        """
        with self.store.place.lock("registry"):
            self._ensure_model()
            version = self.find(parts.md5)
            created = version is None
            if version is None:
                version = self._log(parts, run, {**tags, "gate": json.dumps(verdict.as_dict())}, description)
            self.client.set_registered_model_alias(self.name, CHALLENGER, version.version)
            if verdict.passed and self.holder(CHAMPION) is None:
                self._promote(version, CHAMPION, "first model that passes the floors")
            now = self.client.get_model_version(self.name, version.version)
        return Registered(self.name, str(now.version), tuple(sorted(now.aliases)), created)

    def find(self, md5: str) -> ModelVersion | None:
        """The version of this md5."""
        found = self.client.search_model_versions(f"name = '{_quoted(self.name)}' and tags.`{VERSION_TAG}` = '{md5}'")
        return found[0] if found else None

    def holder(self, alias: str) -> ModelVersion | None:
        """The version that holds an alias."""
        try:
            return self.client.get_model_version_by_alias(self.name, alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def history(self) -> list[Promotion]:
        """Who was promoted, oldest first."""
        return [each for each in read_history(self._history_file) if each.name == self.name]

    @property
    def _history_file(self) -> Path:
        # With the store, not with the checkout: a queued experiment's clone is deleted when it ends.
        return self.store.place.root / HISTORY

    def _ensure_model(self) -> None:
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _log(self, parts: Parts, run: Run, tags: dict[str, str], description: str) -> ModelVersion:
        """Log the model as an output of its run, and make a version of it."""
        # MLflow allows fewer characters here than in the name of a registered model.
        name = re.sub(r"[^\w -]", "_", self.name)
        logged = self.client.create_logged_model(
            self.store.experiment_id, name, run.id, {VERSION_TAG: parts.md5}, model_type="segmentation"
        )
        metadata = Model(
            artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=run.id, model_id=logged.model_id
        )
        try:
            with TemporaryDirectory() as folder:
                pack(parts, Path(folder), metadata)
                check(Path(folder), parts)
                self.client.log_model_artifacts(logged.model_id, folder)
        except BaseException:
            self.client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        self.client.finalize_logged_model(logged.model_id, "READY")
        self.client.log_outputs(run.id, [LoggedModelOutput(logged.model_id, step=0)])
        with self.store.current():
            version = self.client.create_model_version(
                self.name,
                f"models:/{logged.model_id}",
                run.id,
                {VERSION_TAG: parts.md5, "code.md5": parts.code_md5, **tags},
                description=_cut(description),
                model_id=logged.model_id,
            )
        # The page links a logged model to its versions by this tag.
        links = json.dumps([{"name": self.name, "version": str(version.version)}])
        self.client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": links})
        return version

    def _promote(self, version: ModelVersion, alias: str, reason: str) -> None:
        """Give `alias` to a version and write it down.

        Written down first: killed in between, the next registration sets the alias, and no promotion goes unrecorded.
        """
        held = [each for each in self.history() if each.alias == alias]
        if not held or held[-1].version_md5 != version.tags[VERSION_TAG]:
            commit = lineage.git()
            line = Promotion(
                time=datetime.now(UTC).isoformat(timespec="seconds"),
                name=self.name,
                alias=alias,
                version_md5=version.tags[VERSION_TAG],
                model_md5=version.tags.get("model.md5", ""),
                commit=commit["git.commit"],
                dirty=commit["git.dirty"],
                who=lineage.who(),
                reason=reason,
            )
            with self._history_file.open("a") as stream:
                stream.write(json.dumps(asdict(line), ensure_ascii=False) + "\n")
        self.client.set_registered_model_alias(self.name, alias, version.version)


def read_history(file: Path) -> list[Promotion]:
    """The lines of registry.jsonl, oldest first.

    Raises
    ------
    RegistryError
        A line is not as segline writes it.
    """
    if not file.is_file():
        return []
    promotions = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        try:
            content: dict[str, Any] = json.loads(line)
            promotions.append(Promotion(**content))
        except (ValueError, TypeError) as error:
            raise RegistryError(f"{file}, line {number}: {error}; restore the line from git") from None
    return promotions


def _quoted(name: str) -> str:
    return name.replace("'", "''")


def _cut(description: str) -> str:
    if len(description) <= MAX_DESCRIPTION:
        return description
    return description[: MAX_DESCRIPTION - 60] + "\n\n... (the whole is data/reports/model_card.md)"


class Answer(NamedTuple):
    """What a registered model makes of an image."""

    labels: bytes
    """PNG of class ids."""
    instances: bytes | None
    """Image file of instance ids; None from a model of a segline that did not know them."""


def load_model(store: Store, address: str) -> Callable[[bytes], Answer]:
    """A function from an encoded image to what the model at, say, ``models:/cells@champion`` makes of it.

    It answers by the code that it carries, not by segline's.

    Raises
    ------
    RegistryError
        There is no such model; also raised by the answer, for an image that does not suit it.
    """
    try:
        with store.current():
            model = load_pyfunc(address)
    except MlflowException as error:
        raise RegistryError(f"{address}: {error.message}; `segline ui` shows what there is") from error

    knows = model.metadata.get_params_schema() is not None  # type: ignore[no-untyped-call]
    params = {"instances": True} if knows else None

    def answer(image: bytes) -> Answer:
        try:
            answers: Any = model.predict(pd.DataFrame({"image": [image]}, dtype=object), params=params)
        except MlflowException as error:
            raise RegistryError(error.message) from error
        return Answer(answers["labels"][0], answers["instances"][0] if knows else None)

    return answer
