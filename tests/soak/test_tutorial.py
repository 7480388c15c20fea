"""A user follows docs/tutorial.md: every command works, and prints what the page shows."""

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.checkout import Project

pytestmark = pytest.mark.soak

# A block of the page: its language, the name under which the user saves it, and its content.
BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"\b[0-9a-f]{8,}\b|\d[\d.:-]*")  # digests and numbers differ between machines
PORT = "8000"
USER = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "test"), ("EMAIL", "test@segline.invalid"))
}


def shape(line: str) -> str:
    """Return a line without its numbers, spaces and table rules."""
    return re.sub(r"[\s━─]+", " ", VARIABLE.sub("#", line)).strip()


class User:
    """A user with an empty folder, who leaves the server running in another terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.working = folder
        self.output = ""  # of the commands in the last block
        self.wrong: list[str] = []  # output on the page that no command printed
        self.server: subprocess.Popen[bytes] | None = None
        self.port = PORT

    def follow(self, page: str) -> None:
        """Save the files of the page, run its commands, and compare their output with the output on the page.

        On the page, "..." stands for lines that are left out.
        """
        for language, name, content in BLOCK.findall(page):
            if name:
                (self.working / name).write_text(content)
            elif language == "sh":
                self.output = ""
                for command in content.splitlines():
                    self.enter(command)
            else:
                assert language == "text", content
                printed = {shape(line) for line in self.output.splitlines()}
                shown = [line for line in content.splitlines() if line != "..."]
                self.wrong += [line for line in shown if shape(line) not in printed]

    def enter(self, command: str) -> None:
        """Run one command, add its output to that of the block, and print both."""
        start = time.monotonic()
        if command.startswith("cd "):
            self.working /= command.removeprefix("cd ")
            output = ""
        elif command.startswith("segline serve "):
            output = self.serve(command)
        else:
            command = command.replace(f":{PORT}/", f":{self.port}/")
            output = Project(self.working).run("bash", "-c", command, COLUMNS="100", **USER)
        print(f"$ {command}  # {time.monotonic() - start:.1f} s\n{output}", flush=True)  # noqa: T201
        self.output += output

    def serve(self, command: str) -> str:
        """Start the server on a free port, wait until it answers, and return its output."""
        assert command.endswith(f"--port {PORT}")
        log = self.folder / "serve.log"
        self.server = Project(self.working).start(log, *command.split()[:-1], "0")
        limit = time.monotonic() + 120
        while "curl" not in (text := log.read_text()):
            assert self.server.poll() is None and time.monotonic() < limit, text
            time.sleep(0.1)
        self.port = text.split("http://127.0.0.1:")[1].split()[0]
        return text


@pytest.fixture(scope="module")
def user(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user who has followed the page to its end."""
    user = User(tmp_path_factory.mktemp("tutorial"))
    try:
        user.follow((repository / "docs" / "tutorial.md").read_text())
        yield user
    finally:
        if user.server:
            user.server.terminate()
            user.server.wait(60)


def test_the_commands_print_what_the_page_shows(user: User) -> None:
    assert user.wrong == []


def test_the_first_model_becomes_champion_and_the_second_replaces_it(user: User) -> None:
    text = (user.folder / "project" / "registry.jsonl").read_text()
    moves = [json.loads(line) for line in text.splitlines()]
    assert [move["alias"] for move in moves] == ["challenger", "champion"] * 2
    first, champion, second, promoted = (move["version_md5"] for move in moves)
    assert first == champion != second == promoted


def test_label_images_and_objects_of_new_images_are_written(user: User) -> None:
    for stem in ("16", "17"):
        labels = np.asarray(Image.open(user.folder / "labels" / f"{stem}.png"))
        objects = np.asarray(Image.open(user.folder / "labels" / f"{stem}_instances.png"))
        assert labels.shape == (160, 160) and set(np.unique(labels)) == {0, 1}
        assert np.array_equal(objects > 0, labels > 0)
        assert 10 < objects.max() < 80
        assert (user.folder / "labels" / f"{stem}_overlay.png").is_file()


def test_the_server_answers_with_the_bytes_of_the_predicted_file(user: User) -> None:
    answer = (user.folder / "answer.png").read_bytes()
    assert answer.startswith(b"\x89PNG\r\n")
    assert answer == (user.folder / "labels" / "16.png").read_bytes()


def test_the_server_follows_the_promotion(user: User) -> None:
    limit = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{user.port}/version", timeout=60) as answer:
            if json.load(answer)["version"] == "2":
                return
        assert time.monotonic() < limit
        time.sleep(0.5)


def test_the_project_is_committed_at_the_end(user: User) -> None:
    assert Project(user.working).run("git", "status", "--porcelain") == ""
