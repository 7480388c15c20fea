"""The registry: versions of a model, their aliases, and the history that MLflow does not keep."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from segline import names
from segline.track import history, intact, lineage, trust, unfinished, versions
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
    "Made",
    "ModelVersion",
    "Registered",
    "Registry",
    "RegistryError",
    "load_model",
    "parse_address",
    "read_history",
]

MANY = 10_000  # versions that MLflow lists at once


@dataclass(frozen=True)
class Registered:
    """What registration led to; ``created`` is False when the version was there already."""

    name: str
    version: str
    aliases: tuple[str, ...]
    created: bool


class Made(NamedTuple):
    """The md5 of a version and that of its weights, both computed from files."""

    md5: str
    model_md5: str


class Registry:
    """The versions of one model."""

    def __init__(self, store: Store, name: str) -> None:
        """`name` is the registered model's.

        Raises
        ------
        RegistryError
            No registered model can have such a name.
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
        alias: bool = True,
    ) -> Registered:
        """Make a version of `parts`, unless there is one of the same md5, and call it challenger.

        It becomes champion, too, when there is none and it passes the floors. What goes on is the same however often
        and from however many processes it is called.

        Parameters
        ----------
        tags : what the version says of its making.
        description : shown on MLflow's page.
        records : more files to keep with the version, by name.
        alias : False leaves all aliases where they are: the history says where they belong.
        """
        kept = records or {}
        with self.store.place.lock("registry"):
            self._ensure_model()
            self.settle()
            parts = parts.as_recorded({line.version_md5 for line in self.history()})
            version = self.find(parts.md5)
            created = version is None
            made = Made(parts.md5, lineage.model_md5(parts.model))
            if version is None:
                logged, md5s = versions.log(self.store, self.name, parts, run, kept)
                self.record(made, "registered")  # before the version: none is ever without its line
                judged = {**tags, "gate": json.dumps(verdict.as_dict()), intact.FILES_TAG: json.dumps(md5s)}
                version = versions.enter(
                    self.store, self.name, parts, run, logged, tags=judged, description=description
                )
            else:
                self.record(made, "registered")
                versions.tell_anew(self.store, version, tags, kept)
            if alias:
                self.client.set_registered_model_alias(self.name, CHALLENGER, version.version)
            if alias and self.holder(CHAMPION) is None:
                self._first(made, verdict)
            now = self.client.get_model_version(self.name, version.version)
        return Registered(self.name, str(now.version), tuple(sorted(now.aliases)), created)

    def find(self, md5: str) -> ModelVersion | None:
        """The version of this md5."""
        if not is_md5(md5):
            return None
        found = self.client.search_model_versions(f"name = {_quoted(self.name)} and tags.`{VERSION_TAG}` = '{md5}'")
        if len(found) > 1:  # somebody edited a tag
            found.sort(key=lambda version: (not trust.is_sound(self.store, version), int(version.version)))
        return found[0] if found else None

    def holder(self, alias: str) -> ModelVersion | None:
        """The version that holds an alias."""
        try:
            return self.client.get_model_version_by_alias(self.name, alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def versions(self) -> list[ModelVersion]:
        """All versions, the newest first, with their aliases."""
        found = self.client.search_model_versions(f"name = {_quoted(self.name)}", max_results=MANY)
        holders: dict[str, object] = self.client.get_registered_model(self.name).aliases if found else {}
        for version in found:  # a search leaves them out
            version.aliases = [alias for alias, number in holders.items() if str(number) == str(version.version)]
        return sorted(found, key=lambda version: int(version.version), reverse=True)

    def version(self, which: str) -> ModelVersion:
        """The version that `which` names: its number, an alias with or without @, or the start of its md5.

        Raises
        ------
        RegistryError
            There is none, or an md5's start fits several.
        """
        held = self.versions()
        alias = which.removeprefix("@")
        tests: tuple[Callable[[ModelVersion], bool], ...] = (
            lambda version: str(version.version) == which,
            lambda version: alias in version.aliases,
            lambda version: len(which) >= 4 and version.tags.get(VERSION_TAG, "").startswith(which),
        )
        for test in tests:
            if found := [version for version in held if test(version)]:
                if len(found) > 1:
                    numbers = ", ".join(str(version.version) for version in found)
                    raise RegistryError(f"{which} could be versions {numbers} of {self.name}; give more of the md5")
                return found[0]
        known = ", ".join([*(str(each.version) for each in held), *(f"@{a}" for each in held for a in each.aliases)])
        raise RegistryError(f"{self.name} has no version {which}; there are {known or 'none'}")

    def run(self, version: ModelVersion) -> MlflowRun | None:
        """The run that made a version; None where it is gone."""
        try:
            return self.client.get_run(version.run_id or "")
        except MlflowException:
            return None

    def history(self) -> list[Promotion]:
        """Who was promoted, oldest first."""
        return [each for each in read_history(self.history_file) if each.name == self.name]

    @property
    def history_file(self) -> Path:
        """registry.jsonl of the project."""
        # With the store, not with the checkout: a queued experiment's clone is deleted when it ends.
        return self.store.place.root / HISTORY

    def _ensure_model(self) -> None:
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _first(self, made: "Made", verdict: Verdict) -> None:
        """Make a version champion where there has been none; or again, where only its alias is gone."""
        held = history.champions(self.history())
        if held and held[-1] == made.md5:
            self.set_aliases()
        elif not held and verdict.passed:
            self.set_champion(made, "promote", "first model that passes the floors")

    def record(self, made: "Made", reason: str) -> None:
        """Write to registry.jsonl, once, that a version is one of ours; the caller holds the lock."""
        if made.md5 not in {line.version_md5 for line in self.history()}:
            history.append(self.history_file, self._line(made, CHALLENGER, "register", reason))

    def settle(self) -> None:
        """Finish what a process that was killed had begun; the caller holds the lock."""
        if unfinished.is_marked(self.store.place.folder):
            for name in {line.name for line in read_history(self.history_file)}:
                Registry(self.store, name).set_aliases()
            unfinished.clear(self.store.place.folder)

    def set_champion(
        self, made: "Made", action: str, reason: str, *, commit: str | None = None, forced: bool = False
    ) -> None:
        """Write down that a version becomes @champion, then set the aliases; the caller holds the lock.

        The line of registry.jsonl is the promotion; if this process is killed, the next one sets the aliases after it.

        Parameters
        ----------
        commit : whose content made the version; None: this checkout's, if it is clean.
        """
        line = self._line(made, CHAMPION, action, reason, commit, forced=forced)
        unfinished.mark(self.store.place.folder)
        try:
            history.append(self.history_file, line)
            self.set_aliases()
        except RegistryError:  # the line could not be written: there is nothing to finish
            unfinished.clear(self.store.place.folder)
            raise
        unfinished.clear(self.store.place.folder)

    def _line(
        self, made: "Made", alias: str, action: str, reason: str, commit: str | None = None, *, forced: bool = False
    ) -> Promotion:
        if commit is None:
            state = lineage.git()
            commit = state["git.commit"] if state["git.dirty"] == "false" else ""
        return Promotion(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            name=self.name,
            alias=alias,
            version_md5=made.md5,
            model_md5=made.model_md5,
            commit=commit if re.fullmatch("[0-9a-f]{7,64}", commit) else "",
            dirty="false" if commit else "true",
            who=lineage.who()[:100],
            reason=reason,
            action=action,
            forced=forced,
        )

    def set_aliases(self) -> None:
        """Set @champion and @previous as the history has them, as far as the versions are here."""
        held = history.champions(self.history())
        for alias, place in ((CHAMPION, -1), (PREVIOUS, -2)):
            version = self.find(held[place]) if len(held) >= -place else None
            if version is not None:
                self.client.set_registered_model_alias(self.name, alias, version.version)
            elif self.holder(alias) is not None:
                self.client.delete_registered_model_alias(self.name, alias)


def _quoted(name: str) -> str:
    """`name` in a filter of MLflow's, which knows both quotes and no escape."""
    return f'"{name}"' if "'" in name else f"'{name}'"
