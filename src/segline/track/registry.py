"""Registry of one model, with the versions, aliases and history of this model."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from segline import names
from segline.track import history, intact, lineage, trust, versions
from segline.track.answers import Answer, load_model, parse_address
from segline.track.history import CHALLENGER, CHAMPION, HISTORY, PREVIOUS, Promotion, RegistryError, read_history
from segline.track.packaging import Parts
from segline.track.recording import Run
from segline.track.store import Store
from segline.track.tags import is_md5
from segline.track.trust import IMAGES
from segline.track.verdict import Verdict
from segline.track.versions import VERSION_TAG

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "IMAGES",
    "PREVIOUS",
    "VERSION_TAG",
    "Answer",
    "Md5s",
    "ModelVersion",
    "Registered",
    "Registry",
    "RegistryError",
    "load_model",
    "parse_address",
    "read_history",
]

MANY = 10_000  # maximum number of versions that MLflow lists at once


class Md5s(NamedTuple):
    """MD5 of a version and MD5 of its weights, both computed from files."""

    version: str
    model: str

    @classmethod
    def of(cls, parts: Parts) -> Self:
        """Compute the md5 of the version made from `parts`, and the md5 of the version's weights."""
        return cls(parts.md5, lineage.model_md5(parts.model))


@dataclass(frozen=True)
class Registered:
    """Result of a registration; ``created`` is False if the version existed already."""

    name: str
    version: str
    aliases: tuple[str, ...]
    created: bool
    md5s: Md5s


class Registry:
    """The registered versions of one model."""

    def __init__(self, store: Store, name: str) -> None:
        """Open the registry for the model `name`.

        Raises
        ------
        RegistryError
            The name is not valid for a registered model.
        """
        try:
            self.name = names.check_model(name, "registration.name:")
        except names.NamingError as error:
            raise RegistryError(str(error)) from None
        self.store = store
        self.client = store.client

    def register(
        self,
        parts: Parts,
        run: Run,
        verdict: Verdict,
        tags: Mapping[str, str],
        description: str = "",
        *,
        records: Mapping[str, bytes] | None = None,
        metrics: Mapping[str, float] | None = None,
        alias: bool = True,
    ) -> Registered:
        """Make a version from `parts`, or find the version with the same md5; set @challenger to this version.

        Repeated and simultaneous calls have the same result as one call.

        Parameters
        ----------
        tags : tags that describe the origin of the version.
        description : text for the version on MLflow's page.
        records : additional files to keep with the version (name -> content).
        metrics : test metrics, by which MLflow's page of models ranks the versions.
        alias : if False, @challenger is not set; callers that set aliases from the history pass False.
        """
        records = records or {}
        with self.store.place.lock("registry"):
            self._ensure_model()
            self.settle()
            parts = parts.as_recorded({line.version_md5 for line in self.history()})
            version = self.find(parts.md5)
            created = version is None
            if version is None:
                logged, md5s = versions.log(self.store, self.name, parts, run, records)
                # Add the line to registry.jsonl first, so that every version has a line even if this process is killed.
                self.record(Md5s.of(parts), "registered")
                all_tags = {**tags, "gate": json.dumps(verdict.as_dict()), intact.FILES_TAG: json.dumps(md5s)}
                version = versions.enter(
                    self.store, self.name, parts, run, logged, tags=all_tags, description=description
                )
            else:
                self.record(Md5s.of(parts), "registered")
                versions.update_origin(self.store, version, tags, records)
            if alias:
                self.client.set_registered_model_alias(self.name, CHALLENGER, version.version)
            versions.log_metrics(self.store, version, run, metrics or {}, tags)
            number = str(version.version)
            return Registered(self.name, number, self.aliases(number), created, Md5s.of(parts))

    def find(self, md5: str) -> ModelVersion | None:
        """Return the version whose tag holds this md5; None if there is no such version."""
        if not is_md5(md5):
            return None
        matches = self.client.search_model_versions(f"name = {_quoted(self.name)} and tags.`{VERSION_TAG}` = '{md5}'")
        if len(matches) > 1:  # several matches mean that somebody edited a tag
            matches.sort(key=lambda version: (not trust.is_sound(self.store, version), int(version.version)))
        return matches[0] if matches else None

    def holder(self, alias: str) -> ModelVersion | None:
        """Return the version to which `alias` points; None if the alias does not exist."""
        try:
            return self.client.get_model_version_by_alias(self.name, alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def aliases(self, number: str) -> tuple[str, ...]:
        """Return the sorted aliases of the version with this number."""
        return tuple(sorted(self.client.get_model_version(self.name, number).aliases))

    def versions(self) -> list[ModelVersion]:
        """Return all versions with their aliases, newest first."""
        versions = self.client.search_model_versions(f"name = {_quoted(self.name)}", max_results=MANY)
        holders: dict[str, object] = self.client.get_registered_model(self.name).aliases if versions else {}
        for version in versions:  # MLflow's search returns versions without their aliases
            version.aliases = [alias for alias, number in holders.items() if str(number) == str(version.version)]
        return sorted(versions, key=lambda version: int(version.version), reverse=True)

    def version(self, which: str) -> ModelVersion:
        """Find a version by `which`: a version number, an alias with or without @, or the start of an md5.

        Raises
        ------
        RegistryError
            There is no such version, or the md5s of several versions start with `which`.
        """
        versions = self.versions()
        alias = which.removeprefix("@")
        tests: tuple[Callable[[ModelVersion], bool], ...] = (
            lambda version: str(version.version) == which,
            lambda version: alias in version.aliases,
            lambda version: len(which) >= 4 and version.tags.get(VERSION_TAG, "").startswith(which),
        )
        for test in tests:
            if matches := [version for version in versions if test(version)]:
                if len(matches) > 1:
                    candidates = ", ".join(str(version.version) for version in matches)
                    raise RegistryError(
                        f"the md5s of versions {candidates} of {self.name} start with {which}; give more digits"
                    )
                return matches[0]
        numbers = [str(version.version) for version in versions]
        known = ", ".join([*numbers, *(f"@{alias}" for version in versions for alias in version.aliases)])
        raise RegistryError(f"{self.name} has no version {which}; its versions and aliases are {known or 'none'}")

    def run(self, version: ModelVersion) -> MlflowRun | None:
        """Return the MLflow run that made a version; None if the run was deleted."""
        try:
            return self.client.get_run(version.run_id or "")
        except MlflowException:
            return None

    def history(self) -> list[Promotion]:
        """Return the lines of registry.jsonl about this model, oldest first."""
        return [line for line in read_history(self.history_file) if line.name == self.name]

    @property
    def history_file(self) -> Path:
        """Path of the project's registry.jsonl."""
        # Use the project folder: the working directory may be a clone that DVC deletes after a queued experiment.
        return self.store.place.root / HISTORY

    def record(self, md5s: Md5s, reason: str) -> None:
        """Add a line about a version to registry.jsonl, unless the file already has a line about this version.

        The caller must hold the lock `registry`.
        """
        if md5s.version not in {line.version_md5 for line in self.history()}:
            history.append(self.history_file, self._line(md5s, CHALLENGER, "register", reason))

    def settle(self) -> None:
        """Complete a change of the champion that a killed process left unfinished.

        The caller must hold the lock `registry`.
        """
        if history.move_is_marked(self.store.place.folder):
            for name in {line.name for line in read_history(self.history_file)}:
                Registry(self.store, name).set_aliases()
            history.clear_mark(self.store.place.folder)

    def set_champion(
        self, md5s: Md5s, action: str, reason: str, *, commit: str | None = None, forced: bool = False
    ) -> None:
        """Record a new champion in registry.jsonl, then set the aliases.

        The caller must hold the lock `registry`. If this process is killed after it has written the line, the next
        command sets the aliases.

        Parameters
        ----------
        commit : commit that the version was made from; if None, the checked-out commit is recorded, unless there
            are uncommitted changes.
        """
        line = self._line(md5s, CHAMPION, action, reason, commit, forced=forced)
        history.mark_move(self.store.place.folder)
        try:
            history.append(self.history_file, line)
            self.set_aliases()
        except RegistryError:  # the line was not written, so there is nothing to complete
            history.clear_mark(self.store.place.folder)
            raise
        history.clear_mark(self.store.place.folder)

    def set_aliases(self) -> None:
        """Set @champion and @previous as the history says; delete an alias whose version is not in the store."""
        held = history.champions(self.history())
        for alias, place in ((CHAMPION, -1), (PREVIOUS, -2)):
            version = self.find(held[place]) if len(held) >= -place else None
            if version is not None:
                self.client.set_registered_model_alias(self.name, alias, version.version)
            elif self.holder(alias) is not None:
                self.client.delete_registered_model_alias(self.name, alias)

    def _ensure_model(self) -> None:
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _line(
        self, md5s: Md5s, alias: str, action: str, reason: str, commit: str | None = None, *, forced: bool = False
    ) -> Promotion:
        if commit is None:
            state = lineage.git()
            commit = state["git.commit"] if state["git.dirty"] == "false" else ""
        return Promotion(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            name=self.name,
            alias=alias,
            version_md5=md5s.version,
            model_md5=md5s.model,
            commit=commit if re.fullmatch("[0-9a-f]{7,64}", commit) else "",
            dirty="false" if commit else "true",
            who=lineage.who()[:100],
            reason=reason,
            action=action,
            forced=forced,
        )


def _quoted(name: str) -> str:
    """Quote a name for an MLflow filter; the filter accepts single and double quotes but no escapes."""
    return f'"{name}"' if "'" in name else f"'{name}'"
