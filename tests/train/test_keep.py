import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segline.process import Deferred
from segline.train import checkpoint, keep, loop
from segline.train.keep import KeepError, Kept, better
from segline.train.loop import Epoch, Step


def epoch(number: int, loss: float, mean_iou: float) -> Epoch:
    return Epoch(number, 1.0, loss, mean_iou, 0.1, 2, 0.01, 0.9, 1.0)


EPOCHS = [epoch(1, 3.0, 0.2), epoch(2, 1.0, 0.9), epoch(3, 2.0, 0.9), epoch(4, 0.5, math.nan)]


@pytest.mark.parametrize(
    ("monitor", "keep_best", "expected"),
    [("mean_iou", 1, [4]), ("mean_iou", 3, [4, 2, 3]), ("mean_iou", 9, [4, 2, 3, 1]), ("loss", 2, [4, 2])],
)
def test_the_best_are_kept_and_the_earlier_of_equals(
    training: Callable[..., Any], tmp_path: Path, monitor: str, keep_best: int, expected: list[int]
) -> None:
    one = training(monitor=monitor, keep_best=keep_best)
    kept = Kept(tmp_path, one.settings)
    for each in EPOCHS:
        one.state.epoch = each.epoch
        assert kept.offer(each, one.state) is None
    assert [each.epoch for each in kept.best] == expected
    assert {file.name for file in tmp_path.iterdir()} == {f"epoch-{number:05d}" for number in (4, *expected)}
    assert kept.weights == tmp_path / f"epoch-{expected[0]:05d}" / "weights.safetensors"
    named = kept.named()
    assert {name: path.name[-1] for name, path in named.items()} == {"last": "4"} | {
        f"best-{number:05d}": str(number) for number in expected
    }


def test_no_foreground_and_none_found_is_right(training: Callable[..., Any]) -> None:
    assert better(training().settings, EPOCHS[3]) == 1


def kept_to_the_end(one: Any, kept: Kept, stop: Deferred, say: Callable[[str], None] = str.strip) -> list[Epoch]:
    """The epochs of a training that `kept` keeps."""
    moments = kept.keep(loop.moments(one.state, one.tiles, one.validation, one.settings), one.state, stop, say)
    return [moment for moment in moments if isinstance(moment, Epoch)]


def figures(epochs: list[Epoch]) -> list[tuple[float, ...]]:
    """All but the speed."""
    return [(e.epoch, e.loss, e.validation_loss, e.learning_rate, e.momentum) for e in epochs]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("moment", range(16))
def test_a_training_ended_at_any_moment_goes_on_to_the_same_end(
    training: Callable[..., Any], tmp_path: Path, moment: int, optimizer: str
) -> None:
    """Four epochs of three steps and a validation batch are 20 moments; the network has dropout and batch norm."""
    whole, first, second = (training(optimizer=optimizer, learning_rate=0.003) for _ in range(3))
    expected = whole.run()
    kept = Kept(tmp_path, first.settings)

    def ended(stop: Deferred) -> None:
        moments = loop.moments(first.state, first.tiles, first.validation, first.settings)
        for number, _ in enumerate(kept.keep(moments, first.state, stop, str.strip)):
            if number == moment:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as left, Deferred() as stop:
        ended(stop)
    assert left.value.code == 143
    again = Kept(tmp_path, second.settings)
    assert again.load(second.state)
    kept_to_the_end(second, again, Deferred())
    assert figures(again.epochs) == figures(expected)
    assert again.best[0].epoch == max(expected, key=lambda e: (e.validation_mean_iou, -e.epoch)).epoch
    assert all((a == b).all() for a, b in zip(whole.weights().values(), second.weights().values(), strict=True))


def test_within_a_long_epoch_it_is_saved_from_time_to_time(
    training: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "SECONDS", 0)
    one = training()
    kept = Kept(tmp_path, one.settings)
    moments = loop.moments(one.state, one.tiles, one.validation, one.settings)
    moments = kept.keep(moments, one.state, Deferred(), str.strip)
    seen = [max(folder.name for folder in tmp_path.iterdir()) for moment in moments if isinstance(moment, Step)]
    assert seen[:5] == [*(f"epoch-00000-step-{n:06d}" for n in (1, 2, 3, 3)), "epoch-00001-step-000001"]


def full_disk(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next `times` checkpoints are cut off in the midst of their second file."""
    left, save_file = [times], checkpoint.save_file

    def save(tensors: dict[str, Any], file: Path) -> None:
        if left[0] and file.name == checkpoint.OPTIMIZER:
            left[0] -= 1
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(tensors, file)

    monkeypatch.setattr(checkpoint, "save_file", save)


def test_on_a_full_disk_training_goes_on_and_the_best_is_not_lost(
    training: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, undisturbed = training(keep_best=2), training(keep_best=2)
    expected = undisturbed.run()
    full_disk(2, monkeypatch)
    monkeypatch.setattr(keep, "better", lambda _, epoch: -epoch.epoch)  # the best are those that cannot be saved
    kept, said = Kept(tmp_path, one.settings), list[str]()
    assert figures(kept_to_the_end(one, kept, Deferred(), said.append)) == figures(expected)
    assert len(said) == 2
    assert all("No space left on device" in line and "epoch-00001" in line for line in said)
    assert {folder.name for folder in tmp_path.iterdir()} == {"epoch-00001", "epoch-00002", "epoch-00004"}
    fresh = training(keep_best=2)
    checkpoint.load(kept.weights.parent, fresh.state)
    assert fresh.state.losses == [expected[0].loss]
    assert list(fresh.run())[-1].loss == expected[-1].loss


def test_what_was_there_stays_when_the_disk_is_full_and_no_half_is_read(
    training: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = training()
    kept = Kept(tmp_path, one.settings)
    moments = kept.keep(
        loop.moments(one.state, one.tiles, one.validation, one.settings), one.state, Deferred(), str.strip
    )
    while not isinstance(next(moments), Epoch):
        pass
    full_disk(99, monkeypatch)
    list(moments)
    assert [folder.name for folder in tmp_path.iterdir()] == ["epoch-00001"]
    if kept.best[0].epoch > 1:
        with pytest.raises(KeepError, match="No space left on device"):
            _ = kept.weights
    again = Kept(tmp_path, one.settings)
    assert again.load(training().state)
    assert [each.epoch for each in again.epochs] == [1]


def test_what_a_killed_process_left_half_done_is_passed_over(training: Callable[..., Any], tmp_path: Path) -> None:
    one = training()
    kept = Kept(tmp_path, one.settings)
    one.step_epochs(1)
    one.state.epoch = 1
    kept.offer(EPOCHS[0], one.state)
    shutil.copytree(tmp_path / "epoch-00001", tmp_path / ".epoch-00002.partial")
    for number, missing in ((2, checkpoint.WEIGHTS), (3, checkpoint.REST)):  # while they were removed
        shutil.copytree(tmp_path / "epoch-00001", tmp_path / f"epoch-0000{number}")
        (tmp_path / f"epoch-0000{number}" / missing).unlink()
    again = Kept(tmp_path, one.settings)
    assert again.load(training().state)
    assert again.epochs == EPOCHS[:1]
    assert [folder.name for folder in tmp_path.iterdir()] == ["epoch-00001"]
    assert not Kept(tmp_path / "empty", one.settings).load(training().state)


def test_figures_that_are_no_numbers_come_back(training: Callable[..., Any], tmp_path: Path) -> None:
    one = training()
    one.state.epoch, one.state.validation_losses = 4, [math.inf, math.nan]
    Kept(tmp_path, one.settings, epochs=[]).offer(EPOCHS[3], one.state)
    again, fresh = Kept(tmp_path, one.settings), training()
    assert again.load(fresh.state)
    assert math.isnan(again.epochs[0].validation_mean_iou)
    assert fresh.state.validation_losses[0] == math.inf
    assert math.isnan(fresh.state.validation_losses[1])


@pytest.fixture
def saved(training: Callable[..., Any], tmp_path: Path) -> Path:
    """The folder of a training after its first epoch."""
    one = training()
    one.state.epoch = 1
    Kept(tmp_path, one.settings).offer(EPOCHS[0], one.state)
    return tmp_path


STATES: dict[str, tuple[tuple[str, ...], object]] = {
    "epoch is negative": (("epoch",), -1),
    "epoch is text": (("epoch",), "1"),
    "epoch is no number": (("epoch",), None),
    "step is huge": (("step",), 2**40),
    "seconds are text": (("seconds",), "x"),
    "losses are no list": (("losses",), 7),
    "a loss is a list": (("losses",), [[1.0]]),
    "epochs lack fields": (("epochs",), [{"epoch": 1}]),
    "epochs are others": (("epoch",), 3),
    "a file elsewhere": (("files",), ["../weights.safetensors", "optimizer.safetensors"]),
    "an absolute file": (("files",), ["/etc/passwd"]),
    "no optimizer": (("optimizer",), []),
}


@pytest.mark.parametrize("name", STATES)
def test_a_damaged_state_is_not_gone_on_with(name: str, saved: Path, training: Callable[..., Any]) -> None:
    file = saved / "epoch-00001" / "state.json"
    content = json.loads(file.read_text())
    (field,), value = STATES[name]
    content[field] = value
    file.write_text(json.dumps(content))
    fresh = training()
    assert not Kept(saved, fresh.settings).load(fresh.state)
    assert fresh.state.epoch == 0


def test_tensors_of_another_training_are_named(saved: Path, training: Callable[..., Any]) -> None:
    file = saved / "epoch-00001" / "state.json"
    content = json.loads(file.read_text())
    content["optimizer"]["param_groups"][0]["lr"] = "x"
    file.write_text(json.dumps(content))
    fresh = training()
    with pytest.raises(KeepError, match=r"epoch-00001: it does not fit .* lr is 'x'; remove .* starts afresh"):
        Kept(saved, fresh.settings).load(fresh.state)


def test_links_and_folders_of_others_are_left_alone(saved: Path, training: Callable[..., Any]) -> None:
    mine = saved.parent / "mine"
    mine.mkdir()
    (mine / "text").touch()
    (saved / ".x.partial").symlink_to(mine)
    (saved / "epoch-00009").symlink_to(mine)
    (saved / "epoch-notes").mkdir()
    fresh = training()
    assert Kept(saved, fresh.settings).load(fresh.state)
    assert fresh.state.epoch == 1
    assert (mine / "text").exists()
    assert (saved / "epoch-notes").exists()
