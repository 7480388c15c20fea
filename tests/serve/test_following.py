"""The follower with a registry whose alias moves, whose versions fail, and which becomes unreachable."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from segline.model.images import decode
from segline.serve import following
from segline.serve.following import Follower
from segline.track.registry import Answer, RegistryError


class MemoryRegistry:
    """A registry in memory, in place of MLflow's."""

    def __init__(self) -> None:
        self.champion: str | None = "1"
        self.broken: set[str] = set()
        self.reachable = True
        self.loaded: list[str] = []
        self.images: list[bytes] = []
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
            self.images.append(image)
            return Answer(number.encode())

        return answer


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    registry = MemoryRegistry()
    monkeypatch.setattr(following, "load_model", registry.load)
    monkeypatch.setattr(following, "Registry", lambda *_: registry)
    return registry


@pytest.fixture
def messages() -> list[str]:
    return []


def follow(registry: MemoryRegistry, messages: list[str], address: str = "models:/cells@champion") -> Follower:
    store: Any = registry
    return Follower(store, address, messages.append)


def test_a_version_must_answer_a_blank_image_before_it_is_used(registry: MemoryRegistry, messages: list[str]) -> None:
    follower = follow(registry, messages)
    assert (follower.serving.name, follower.serving.number, follower.aliases) == ("cells", "1", ("champion",))
    (image,) = registry.images
    pixels = decode(image)
    assert (pixels.shape[2], pixels.dtype, pixels.max()) == (3, np.uint16, 0)


def test_the_alias_is_followed(registry: MemoryRegistry, messages: list[str]) -> None:
    follower = follow(registry, messages)
    old = follower.serving
    follower.check()
    assert registry.loaded == ["1"] and messages == []
    registry.champion = "2"
    follower.check()
    assert follower.serving.answer(b"").labels == b"2"
    assert old.answer(b"").labels == b"1"
    assert follower.serving.tags["version.md5"] == "2222"
    assert messages == ["cells: version 2 replaces version 1"]


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_answering(
    registry: MemoryRegistry, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = follow(registry, messages)
    registry.champion, registry.broken = "2", {"2"}
    for _ in range(3):
        follower.check()
    assert registry.loaded == ["1", "2"], "a failed version must not be retried at every check"
    assert follower.serving.number == "1"
    problem = "version 2 holds @champion but cannot be loaded"
    assert follower.problem == f"{problem}; the server's log gives the reason", "the error may name files"
    assert messages == [f"cells: {problem} (models:/cells/2: its files were altered); version 1 continues to answer"]
    registry.champion = "3"
    follower.check()
    assert (follower.serving.number, follower.problem) == ("3", None)
    registry.champion, registry.broken = "2", set()
    follower.check()
    assert follower.serving.number == "3"
    monkeypatch.setattr(following, "RETRY", 0)
    follower.check()
    assert (follower.serving.number, follower.problem) == ("2", None)


def test_a_version_that_does_not_answer_is_not_used(
    registry: MemoryRegistry, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = follow(registry, messages)

    def load(*_: object, **__: object) -> Callable[[bytes], Answer]:
        def answer(_: bytes) -> Answer:
            raise KeyError("weights")

        return answer

    monkeypatch.setattr(following, "load_model", load)
    registry.champion = "2"
    follower.check()
    assert (follower.serving.number, "weights" in messages[-1]) == ("1", True)


def test_an_unreachable_registry_leaves_the_version_answering(registry: MemoryRegistry, messages: list[str]) -> None:
    follower = follow(registry, messages)
    registry.reachable = False
    for _ in range(3):
        follower.check()
    assert follower.serving.number == "1"
    assert follower.problem == "the registry cannot be read; the server's log gives the reason"
    assert len(messages) == 1 and "no route to host" in messages[0]
    registry.reachable = True
    follower.check()
    assert follower.problem is None


def test_an_alias_without_a_version(registry: MemoryRegistry, messages: list[str]) -> None:
    follower = follow(registry, messages)
    registry.champion = None
    follower.check()
    assert follower.problem is not None and "no version holds this alias" in messages[-1]
    with pytest.raises(RegistryError, match="no version holds this alias"):
        follow(registry, messages)


def test_a_number_is_not_followed(registry: MemoryRegistry, messages: list[str]) -> None:
    follower = follow(registry, messages, "models:/cells/2")
    assert follower.aliases == ()
    registry.champion = "2"
    follower.check()
    assert (follower.serving.number, follower.aliases) == ("2", ("champion",))
    registry.champion = "3"
    follower.check()
    assert follower.serving.number == "2"


@pytest.mark.parametrize(
    "address", ["cells@champion", "models:/cells", "models:/cells@", "models:/a/b@c", "models:/m-1"]
)
def test_invalid_addresses_are_refused(registry: MemoryRegistry, messages: list[str], address: str) -> None:
    with pytest.raises(RegistryError, match=f"^{re.escape(address)} is not a model URI"):
        follow(registry, messages, address)
