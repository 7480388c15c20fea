"""Follow an alias: load a new version while the old one answers, and switch after a successful test prediction."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np

from segline.track.answers import folder_of, load_folder
from segline.track.packaging import encode
from segline.track.registry import Answer, Registry, RegistryError, load_model, parse_address
from segline.track.store import Store, open_store
from segline.track.tags import VERSION_MD5, image_form, interface

RETRY = 60  # seconds until a version that failed to load is tried again
SIDE = 64  # px per side of the blank image that a version must predict before it is used


@dataclass(frozen=True)
class Serving:
    """A loaded model version that is ready to answer requests."""

    name: str
    number: str
    tags: Mapping[str, str]
    answer: "LoadedModel"


class LoadedModel(Protocol):
    """A model that predicts images, such as `track.answers.Loaded`."""

    def __call__(self, image: bytes, *, views: int = 0, probabilities: bool = False) -> Answer: ...


class ServedFolder:
    """A model folder that stays in use until the server ends. This class has the attributes of `Follower`."""

    aliases: tuple[str, ...] = ()
    problem = None

    def __init__(self, folder: Path) -> None:
        """Load the model folder, and test it on a blank image.

        Raises
        ------
        RegistryError
            The folder is not a model folder, or is incomplete or altered.
        """
        answer = load_folder(folder)
        description = answer.description
        statistics = description["statistics"]
        channels, dtype = statistics["channels"], statistics["dtype"]
        tags = {VERSION_MD5: answer.md5, **interface(description["classes"], channels, dtype)}
        answer(encode(np.zeros((SIDE, SIDE, channels), dtype)))
        self.name = self.address = folder.resolve().name  # clients must not see the whole path
        self.serving = Serving(self.name, answer.md5[:8], tags, answer)
        self.check()

    def check(self) -> None:
        """Only record the time of the check: a model folder has no alias that could move to another version."""
        self.checked = datetime.now(UTC).isoformat(timespec="seconds")


class Follower:
    """The loaded model version that an address names. If an alias in the address moves, `check` loads the new version.

    Only one thread at a time may call `check`; any thread may read the attributes.
    """

    serving: Serving
    aliases: tuple[str, ...]
    """Aliases of the version in use, as of the last successful check."""
    checked: str
    """Time of the last successful check: UTC, ISO 8601."""
    problem: str | None
    """Reason why the version in use may no longer hold the alias, or None. Clients see it, so it names no files."""

    def __init__(self, store: Store, address: str, say: Callable[[str], None], *, trust: bool = False) -> None:
        """Load the model version that `address` names.

        Parameters
        ----------
        say : called with a message when another version replaces the one in use, and when a check fails.
        trust : also load versions without a line in registry.jsonl; the user vouches for them.

        Raises
        ------
        RegistryError
            The address is invalid, or there is no such version.
        """
        self.store, self.address = store, address
        self.name, self._alias, self._number = parse_address(address)
        self._say, self._trust = say, trust
        self._failed: tuple[str, float] | None = None
        self._reported: tuple[str, str] | None = None
        self.serving = self._load(self._current_number())
        self._note_success()

    def check(self) -> None:
        """Switch to the version that holds the alias; on any error keep the old version and set `problem`."""
        number = self._look_up()
        if number in (None, self.serving.number):
            return
        if self._failed is None or self._failed[0] != number or time.monotonic() - self._failed[1] > RETRY:
            self._switch_to(number)

    def _look_up(self) -> str | None:
        """Return the number of the version that should be in use; None if the registry cannot be read."""
        try:
            number = self._current_number()
            if number == self.serving.number:
                self._note_success()
        except Exception as error:  # an unreachable registry must not stop the server
            self._note_problem("the registry cannot be read", error)
            return None
        return number

    def _switch_to(self, number: str) -> None:
        try:
            new = self._load(number)
        except Exception as error:  # a damaged version must not stop the server
            self._failed = (number, time.monotonic())
            self._note_problem(f"version {number} holds @{self._alias} but cannot be loaded", error)
            return
        self._say(f"{self.name}: version {new.number} replaces version {self.serving.number}")
        self.serving = new
        self._look_up()

    def _current_number(self) -> str:
        """Return the number of the version that the address names at present."""
        if not self._alias:
            return str(self._number)
        version = Registry(self.store, self.name).holder(self._alias)
        if version is None:
            raise RegistryError(f"{self.address}: no version holds this alias; `segline models list` shows the aliases")
        return str(version.version)

    def _load(self, number: str) -> Serving:
        """Load a version, and test it on a blank image with the channels and data type of its training images."""
        answer = load_model(self.store, f"models:/{self.name}/{number}", trust=self._trust, alias=self._alias)
        tags = dict(self.store.client.get_model_version(self.name, number).tags)
        if form := image_form(tags):
            channels, dtype = form
            answer(encode(np.zeros((SIDE, SIDE, channels), dtype)))
        return Serving(self.name, number, tags, answer)

    def _note_success(self) -> None:
        version = self.store.client.get_model_version(self.name, self.serving.number)
        self.aliases = tuple(sorted(version.aliases))
        self.checked = datetime.now(UTC).isoformat(timespec="seconds")
        self.problem = self._reported = None

    def _note_problem(self, problem: str, error: Exception) -> None:
        """Set `problem`, and log each new `error` once. Clients see only `problem`, because `error` may name files."""
        if (problem, str(error)) != self._reported:
            self._say(f"{self.name}: {problem} ({error}); version {self.serving.number} continues to answer")
        self._reported = (problem, str(error))
        self.problem = f"{problem}; the server's log gives the reason"


ServedModel = Follower | ServedFolder


def load_served(address: str, say: Callable[[str], None], *, trust: bool) -> ServedModel:
    """Load the model to serve: a registered version, or a model folder. The parameters are those of `Follower`."""
    if folder := folder_of(address):
        return ServedFolder(folder)
    return Follower(open_store(), address, say, trust=trust)
