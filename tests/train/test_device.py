from typing import Any

import pytest
import torch

from segline.params import Augment, Model, Runtime, Train, Tuned
from segline.train import device


def tuned(model: dict[str, Any] | None = None, **train: Any) -> Tuned:
    return Tuned(model=Model(**(model or {})), augment=Augment(), train=Train(**train))


def cpu_with(monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(features, True))


def test_auto_chooses_a_device_and_sets_the_threads() -> None:
    before = torch.get_num_threads()
    try:
        assert device.choose(Runtime(threads=1)) in ("cpu", "cuda:0", "mps")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_missing_device_is_refused_with_a_list_of_devices() -> None:
    with pytest.raises(
        device.DeviceError,
        match=r"runtime.device = 'cuda:77'.*this machine has no such device; choose from auto, .*cpu",
    ):
        device.choose(Runtime(device="cuda:77", threads=torch.get_num_threads()))


@pytest.mark.parametrize(
    ("amp", "features", "words"),
    [
        ("off", (), None),
        ("bf16", ("avx512_bf16",), None),
        ("bf16", ("amx_bf16",), None),
        ("bf16", ("avx2",), "set train.amp to 'off'"),
        ("fp16", ("avx512_bf16",), "set train.amp to 'bf16'"),
        ("fp16", (), "set train.amp to 'off'"),
        ("fp16", ("avx512_fp16",), None),
    ],
)
def test_an_emulated_precision_gives_a_warning(
    monkeypatch: pytest.MonkeyPatch, amp: Any, features: tuple[str, ...], words: str | None
) -> None:
    cpu_with(monkeypatch, *features)
    warning = device.precision_warning(amp, "cpu")
    assert warning is None if words is None else words in (warning or "")


def test_mps_refuses_bf16() -> None:
    with pytest.raises(device.DeviceError, match=r"set train\.amp to 'fp16' or 'off'"):
        device.precision_warning("bf16", "mps")


def test_batch_norm_over_a_single_tile_gives_a_warning() -> None:
    assert "train.batch_size = 1" in device.warnings(tuned({"norm": "batch"}, batch_size=1), "cpu")[0]
    assert device.warnings(tuned({"norm": "none"}, batch_size=1), "cpu") == []
    assert device.warnings(tuned({"norm": "batch"}, batch_size=2), "cpu") == []
