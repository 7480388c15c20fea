"""The version that answers, against a registry whose alias moves, fails and comes back."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from segline.model.images import decode
from segline.serve import following
from segline.serve.following import Follower
from segline.track.registry import Answer, RegistryError


class Registered:
    """A registry in memory, in the place of MLflow's."""

    def __init__(self) -> None:
        self.champion: str | None = "1"
        self.broken: set[str] = set()
        self.reachable = True
        self.loaded: list[str] = []
        self.asked: list[bytes] = []
        self.client = self

    def get_model_version(self, name: str, number: str) -> SimpleNamespace:
        if not self.reachable:
            raise ConnectionError("no route to host")
        aliases = ["champion"] if number == self.champion else []
        tags = {"version.md5": number * 4, "channels": "3", "dtype": "uint16"}
        return SimpleNamespace(name=name, version=int(number), aliases=aliases, tags=tags)

    def holder(self, alias: str) -> SimpleNamespace | None:
        assert alias == "champion"
        return None if self.champion is None else self.get_model_version("cells", self.champion)

    def load(self, _: object, address: str, **__: object) -> Callable[[bytes], Answer]:
        number = address.removeprefix("models:/cells/")
        self.loaded.append(number)
        if number in self.broken:
            raise RegistryError(f"{address}: its files were altered")

        def answer(image: bytes) -> Answer:
            self.asked.append(image)
            return Answer(number.encode())

        return answer


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Registered:
    made = Registered()
    monkeypatch.setattr(following, "load_model", made.load)
    monkeypatch.setattr(following, "Registry", lambda *_: made)
    return made


@pytest.fixture
def said() -> list[str]:
    return []


def follow(registered: Registered, said: list[str], address: str = "models:/cells@champion") -> Follower:
    store: Any = registered
    return Follower(store, address, said.append)


def test_a_version_answers_a_blank_image_first(registered: Registered, said: list[str]) -> None:
    follower = follow(registered, said)
    assert (follower.serving.name, follower.serving.number, follower.aliases) == ("cells", "1", ("champion",))
    (image,) = registered.asked
    pixels = decode(image)
    assert (pixels.shape[2], pixels.dtype, pixels.max()) == (3, np.uint16, 0)


def test_the_alias_is_followed(registered: Registered, said: list[str]) -> None:
    follower = follow(registered, said)
    old = follower.serving
    follower.check()
    assert registered.loaded == ["1"] and said == []
    registered.champion = "2"
    follower.check()
    assert follower.serving.answer(b"").labels == b"2"
    assert old.answer(b"").labels == b"1"
    assert follower.serving.tags["version.md5"] == "2222"
    assert said == ["cells: version 2 answers, after version 1"]


def test_a_version_that_cannot_be_loaded(
    registered: Registered, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = follow(registered, said)
    registered.champion, registered.broken = "2", {"2"}
    for _ in range(3):
        follower.check()
    assert registered.loaded == ["1", "2"], "it is not tried every few seconds"
    assert follower.serving.number == "1"
    problem = "version 2 holds @champion but cannot be loaded"
    assert follower.problem == f"{problem}; the server's log says why", "an error may name files"
    assert said == [f"cells: {problem} (models:/cells/2: its files were altered); version 1 goes on answering"]
    registered.champion = "3"
    follower.check()
    assert (follower.serving.number, follower.problem) == ("3", None)
    registered.champion, registered.broken = "2", set()
    follower.check()
    assert follower.serving.number == "3"
    monkeypatch.setattr(following, "RETRY", 0)
    follower.check()
    assert (follower.serving.number, follower.problem) == ("2", None)


def test_a_version_that_does_not_answer_is_not_taken(
    registered: Registered, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = follow(registered, said)

    def dumb(*_: object, **__: object) -> Callable[[bytes], Answer]:
        def answer(_: bytes) -> Answer:
            raise KeyError("weights")

        return answer

    monkeypatch.setattr(following, "load_model", dumb)
    registered.champion = "2"
    follower.check()
    assert (follower.serving.number, "weights" in said[-1]) == ("1", True)


def test_a_registry_that_is_gone_for_a_while(registered: Registered, said: list[str]) -> None:
    follower = follow(registered, said)
    registered.reachable = False
    for _ in range(3):
        follower.check()
    assert follower.serving.number == "1"
    assert follower.problem == "the registry cannot be asked; the server's log says why"
    assert len(said) == 1 and "no route to host" in said[0]
    registered.reachable = True
    follower.check()
    assert follower.problem is None


def test_an_alias_that_nobody_holds_any_more(registered: Registered, said: list[str]) -> None:
    follower = follow(registered, said)
    registered.champion = None
    follower.check()
    assert follower.problem is not None and "no version holds this alias" in said[-1]
    with pytest.raises(RegistryError, match="no version holds this alias"):
        follow(registered, said)


def test_a_number_is_not_followed(registered: Registered, said: list[str]) -> None:
    follower = follow(registered, said, "models:/cells/2")
    assert follower.aliases == ()
    registered.champion = "2"
    follower.check()
    assert (follower.serving.number, follower.aliases) == ("2", ("champion",))
    registered.champion = "3"
    follower.check()
    assert follower.serving.number == "2"


@pytest.mark.parametrize(
    "address", ["cells@champion", "models:/cells", "models:/cells@", "models:/a/b@c", "models:/m-1"]
)
def test_addresses_that_are_none(registered: Registered, said: list[str], address: str) -> None:
    with pytest.raises(RegistryError, match="--model"):
        follow(registered, said, address)
