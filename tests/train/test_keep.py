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
    [
        ("mean_iou", 1, [4]),
        ("mean_iou", 3, [4, 2, 3]),
        ("mean_iou", 9, [4, 2, 3, 1]),
        ("loss", 2, [4, 2]),
        ("last", 2, [4, 3]),
    ],
)
def test_the_best_epochs_are_kept_and_ties_go_to_the_earlier(
    training: Callable[..., Any], tmp_path: Path, monitor: str, keep_best: int, expected: list[int]
) -> None:
    tiny = training(monitor=monitor, keep_best=keep_best)
    kept = Kept(tmp_path, tiny.settings)
    for epoch in EPOCHS:
        tiny.state.epoch = epoch.epoch
        assert kept.offer(epoch, tiny.state) is None
    assert [epoch.epoch for epoch in kept.best] == expected
    assert {file.name for file in tmp_path.iterdir()} == {f"epoch-{number:05d}" for number in (4, *expected)}
    assert kept.weights == tmp_path / f"epoch-{expected[0]:05d}" / "weights.safetensors"
    named = kept.named()
    assert {name: path.name[-1] for name, path in named.items()} == {"last": "4"} | {
        f"best-{number:05d}": str(number) for number in expected
    }


def test_a_mean_iou_of_nan_counts_as_1(training: Callable[..., Any]) -> None:
    assert better(training().settings, EPOCHS[3]) == 1


def train_to_the_end(tiny: Any, kept: Kept, stop: Deferred, say: Callable[[str], None] = str.strip) -> list[Epoch]:
    """Train to the end with `kept`; return the epochs."""
    moments = kept.keep(loop.moments(tiny.state, tiny.tiles, tiny.validation, tiny.settings), tiny.state, stop, say)
    return [moment for moment in moments if isinstance(moment, Epoch)]


def without_speed(epochs: list[Epoch]) -> list[tuple[float, ...]]:
    """Return the metrics except the speed."""
    return [(e.epoch, e.loss, e.validation_loss, e.learning_rate, e.momentum) for e in epochs]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("moment", range(16))
def test_a_training_stopped_at_any_moment_resumes_to_the_same_result(
    training: Callable[..., Any], tmp_path: Path, moment: int, optimizer: str
) -> None:
    """Four epochs with three steps and a validation batch have 20 moments; the network has dropout and batch norm."""
    whole, first, second = (training(optimizer=optimizer, learning_rate=0.003) for _ in range(3))
    expected = whole.run()
    kept = Kept(tmp_path, first.settings)

    def train_and_stop(stop: Deferred) -> None:
        moments = loop.moments(first.state, first.tiles, first.validation, first.settings)
        for number, _ in enumerate(kept.keep(moments, first.state, stop, str.strip)):
            if number == moment:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as exit_info, Deferred() as stop:
        train_and_stop(stop)
    assert exit_info.value.code == 143
    again = Kept(tmp_path, second.settings)
    assert again.load(second.state)
    train_to_the_end(second, again, Deferred())
    assert without_speed(again.epochs) == without_speed(expected)
    assert again.best[0].epoch == max(expected, key=lambda e: (e.validation_mean_iou, -e.epoch)).epoch
    assert all((a == b).all() for a, b in zip(whole.weights().values(), second.weights().values(), strict=True))


def test_checkpoints_are_saved_within_a_long_epoch(
    training: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "INTERVAL", 0)
    tiny = training()
    kept = Kept(tmp_path, tiny.settings)
    moments = loop.moments(tiny.state, tiny.tiles, tiny.validation, tiny.settings)
    moments = kept.keep(moments, tiny.state, Deferred(), str.strip)
    names = [max(folder.name for folder in tmp_path.iterdir()) for moment in moments if isinstance(moment, Step)]
    assert names[:5] == [*(f"epoch-00000-step-{n:06d}" for n in (1, 2, 3, 3)), "epoch-00001-step-000001"]


def full_disk(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next `times` checkpoints fail within their second file."""
    remaining, save_file = [times], checkpoint.save_file

    def save(tensors: dict[str, Any], file: Path) -> None:
        if remaining[0] and file.name == checkpoint.OPTIMIZER:
            remaining[0] -= 1
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(tensors, file)

    monkeypatch.setattr(checkpoint, "save_file", save)


def test_on_a_full_disk_training_continues_and_keeps_the_best_epochs(
    training: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, uninterrupted = training(keep_best=2), training(keep_best=2)
    expected = uninterrupted.run()
    full_disk(2, monkeypatch)
    monkeypatch.setattr(keep, "better", lambda _, epoch: -epoch.epoch)  # the best epochs are those that cannot be saved
    kept, messages = Kept(tmp_path, tiny.settings), list[str]()
    assert without_speed(train_to_the_end(tiny, kept, Deferred(), messages.append)) == without_speed(expected)
    assert len(messages) == 2
    assert all("No space left on device" in line and "epoch-00001" in line for line in messages)
    assert {folder.name for folder in tmp_path.iterdir()} == {"epoch-00001", "epoch-00002", "epoch-00004"}
    fresh = training(keep_best=2)
    checkpoint.load(kept.weights.parent, fresh.state)
    assert fresh.state.losses == [expected[0].loss]
    assert list(fresh.run())[-1].loss == expected[-1].loss


def test_on_a_full_disk_the_former_checkpoint_stays_and_no_partial_one_is_read(
    training: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = training()
    kept = Kept(tmp_path, tiny.settings)
    moments = kept.keep(
        loop.moments(tiny.state, tiny.tiles, tiny.validation, tiny.settings), tiny.state, Deferred(), str.strip
    )
    while not isinstance(next(moments), Epoch):
        pass
    full_disk(99, monkeypatch)
    list(moments)
    assert [folder.name for folder in tmp_path.iterdir()] == ["epoch-00001"]
    if kept.best[0].epoch > 1:
        with pytest.raises(KeepError, match="No space left on device"):
            _ = kept.weights
    again = Kept(tmp_path, tiny.settings)
    assert again.load(training().state)
    assert [epoch.epoch for epoch in again.epochs] == [1]


def test_partial_checkpoints_of_a_killed_process_are_skipped(training: Callable[..., Any], tmp_path: Path) -> None:
    tiny = training()
    kept = Kept(tmp_path, tiny.settings)
    tiny.step_epochs(1)
    tiny.state.epoch = 1
    kept.offer(EPOCHS[0], tiny.state)
    shutil.copytree(tmp_path / "epoch-00001", tmp_path / ".epoch-00002.partial")
    for number, missing in ((2, checkpoint.WEIGHTS), (3, checkpoint.REST)):  # killed while it removed them
        shutil.copytree(tmp_path / "epoch-00001", tmp_path / f"epoch-0000{number}")
        (tmp_path / f"epoch-0000{number}" / missing).unlink()
    again = Kept(tmp_path, tiny.settings)
    assert again.load(training().state)
    assert again.epochs == EPOCHS[:1]
    assert [folder.name for folder in tmp_path.iterdir()] == ["epoch-00001"]
    assert not Kept(tmp_path / "empty", tiny.settings).load(training().state)


def test_metrics_that_are_nan_or_infinite_are_restored(training: Callable[..., Any], tmp_path: Path) -> None:
    tiny = training()
    tiny.state.epoch, tiny.state.validation_losses = 4, [math.inf, math.nan]
    Kept(tmp_path, tiny.settings, epochs=[]).offer(EPOCHS[3], tiny.state)
    again, fresh = Kept(tmp_path, tiny.settings), training()
    assert again.load(fresh.state)
    assert math.isnan(again.epochs[0].validation_mean_iou)
    assert fresh.state.validation_losses[0] == math.inf
    assert math.isnan(fresh.state.validation_losses[1])


@pytest.fixture
def saved(training: Callable[..., Any], tmp_path: Path) -> Path:
    """Folder of a training after its first epoch."""
    tiny = training()
    tiny.state.epoch = 1
    Kept(tmp_path, tiny.settings).offer(EPOCHS[0], tiny.state)
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
def test_a_training_does_not_resume_from_a_damaged_state(name: str, saved: Path, training: Callable[..., Any]) -> None:
    file = saved / "epoch-00001" / "state.json"
    content = json.loads(file.read_text())
    (field,), value = STATES[name]
    content[field] = value
    file.write_text(json.dumps(content))
    fresh = training()
    assert not Kept(saved, fresh.settings).load(fresh.state)
    assert fresh.state.epoch == 0


def test_a_checkpoint_of_another_training_is_refused(saved: Path, training: Callable[..., Any]) -> None:
    file = saved / "epoch-00001" / "state.json"
    content = json.loads(file.read_text())
    content["optimizer"]["param_groups"][0]["lr"] = "x"
    file.write_text(json.dumps(content))
    fresh = training()
    with pytest.raises(
        KeepError,
        match=r"epoch-00001: the checkpoint does not fit .* lr is 'x', not.*; remove .* from the",
    ):
        Kept(saved, fresh.settings).load(fresh.state)


def test_links_and_foreign_folders_are_not_touched(saved: Path, training: Callable[..., Any]) -> None:
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
