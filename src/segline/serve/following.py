"""The version that answers: a new holder of the alias is loaded beside the old one, and only then takes its place."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np

from segline.track.packaging import encode
from segline.track.registry import Answer, Registry, RegistryError, load_model, parse_address
from segline.track.store import Store
from segline.track.tags import image_form

RETRY = 60  # seconds until a version that could not be loaded is tried again
SIDE = 64  # px of the image that a version answers before it is trusted


@dataclass(frozen=True)
class Serving:
    """A version that is loaded and has answered."""

    name: str
    number: str
    tags: Mapping[str, str]
    answer: "Model"


class Model(Protocol):
    """A loaded model, as `track.answers.Loaded` is one."""

    def __call__(self, image: bytes, *, views: int = 0, probabilities: bool = False) -> Answer: ...


class Follower:
    """Holds the version at an address; `check`, called every few seconds, keeps it the one that holds the alias.

    `check` is for one thread at a time; the attributes may be read from any.
    """

    serving: Serving
    aliases: tuple[str, ...]
    """Of the version that answers, when last looked at."""
    checked: str
    """When that was: UTC, ISO 8601."""
    problem: str | None
    """Why the version that answers may not be the one that should: for clients, so without names of files."""

    def __init__(self, store: Store, address: str, say: Callable[[str], None], *, trust: bool = False) -> None:
        """Load the version at `address`; `say` is told when another takes its place, or cannot.

        `trust`: the user vouches for versions of which registry.jsonl has no line.

        Raises
        ------
        RegistryError
            The address is none, or there is no such version.
        """
        self.store, self.address = store, address
        self.name, self._alias, self._number = parse_address(address)
        self._say, self._trust = say, trust
        self._failed: tuple[str, float] | None = None
        self._said: tuple[str, str] | None = None
        self.serving = self._load(self._wanted())
        self._looked_at()

    def check(self) -> None:
        """Follow the alias, if it has moved; whatever goes wrong, the old version stays and `problem` says why."""
        wanted = self._look()
        if wanted in (None, self.serving.number):
            return
        if self._failed is None or self._failed[0] != wanted or time.monotonic() - self._failed[1] > RETRY:
            self._follow(wanted)

    def _look(self) -> str | None:
        """The number of the version that is to answer; None where the registry cannot be asked."""
        try:
            wanted = self._wanted()
            if wanted == self.serving.number:
                self._looked_at()
        except Exception as error:  # no reason to stop answering
            self._trouble("the registry cannot be asked", error)
            return None
        return wanted

    def _follow(self, wanted: str) -> None:
        try:
            new = self._load(wanted)
        except Exception as error:  # nor is a version that is damaged
            self._failed = (wanted, time.monotonic())
            self._trouble(f"version {wanted} holds @{self._alias} but cannot be loaded", error)
            return
        self._say(f"{self.name}: version {new.number} answers, after version {self.serving.number}")
        self.serving = new
        self._look()

    def _wanted(self) -> str:
        """The number of the version that is to answer."""
        if not self._alias:
            return str(self._number)
        version = Registry(self.store, self.name).holder(self._alias)
        if version is None:
            raise RegistryError(f"{self.address}: no version holds this alias; `segline ui` shows what there is")
        return str(version.version)

    def _load(self, number: str) -> Serving:
        """The version of this number, after it has answered a blank image."""
        answer = load_model(self.store, f"models:/{self.name}/{number}", trust=self._trust, alias=self._alias)
        tags = dict(self.store.client.get_model_version(self.name, number).tags)
        if form := image_form(tags):
            channels, dtype = form
            answer(encode(np.zeros((SIDE, SIDE, channels), dtype)))
        return Serving(self.name, number, tags, answer)

    def _looked_at(self) -> None:
        version = self.store.client.get_model_version(self.name, self.serving.number)
        self.aliases = tuple(sorted(version.aliases))
        self.checked = datetime.now(UTC).isoformat(timespec="seconds")
        self.problem = self._said = None

    def _trouble(self, problem: str, error: Exception) -> None:
        """Note the problem; the error, which may name files, is for the log alone."""
        if (problem, str(error)) != self._said:
            self._say(f"{self.name}: {problem} ({error}); version {self.serving.number} goes on answering")
        self._said = (problem, str(error))
        self.problem = f"{problem}; the server's log says why"
