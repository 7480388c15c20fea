"""Choose the torch device, and check that it supports the precision `train.amp`."""

import torch

from segline.params import Amp, Runtime, Tuned
from segline.process import keep_freed_memory

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
CPU_FEATURES = {"bf16": ("avx512_bf16", "amx_bf16", "bf16"), "fp16": ("avx512_fp16", "amx_fp16", "fp16")}


class DeviceError(ValueError):
    """This machine lacks the chosen device, or the device does not support the chosen precision."""


def choose(runtime: Runtime) -> str:
    """Return the torch device that the settings in `runtime` select.

    Also set torch's number of threads, if given, and make malloc keep freed memory.

    Raises
    ------
    DeviceError
        The machine lacks the device; the message lists the devices that it has.
    """
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    keep_freed_memory()
    present = ["cpu"]
    if torch.cuda.is_available():
        present = [f"cuda:{i}" for i in range(torch.cuda.device_count())] + present
    if torch.backends.mps.is_available():
        present = ["mps", *present]
    if runtime.device == "auto":
        return present[0]
    if runtime.device in present or (runtime.device == "cuda" and "cuda:0" in present):
        return runtime.device
    raise DeviceError(
        f"params.yaml: runtime.device = {runtime.device!r}: this machine has no such device; choose from "
        f"auto, {', '.join(present)}"
    )


def warnings(tuned: Tuned, device: str) -> list[str]:
    """Return warnings about training on `device` with the settings in `tuned`.

    Raises
    ------
    DeviceError
        The device does not support the precision `train.amp`.
    """
    messages = [warning] if (warning := precision_warning(tuned.train.amp, device)) else []
    if tuned.model.norm == "batch" and tuned.train.batch_size == 1:
        messages.append(
            "train.batch_size = 1 with model.norm = batch: training normalizes with the statistics of one tile, "
            "but prediction with the statistics of many tiles; set model.norm to 'none', or "
            "train.batch_size to 2 or more"
        )
    return messages


def precision_warning(amp: Amp, device: str) -> str | None:
    """Return a warning if `device` only emulates the precision `amp`; else None.

    Raises
    ------
    DeviceError
        The device does not support this precision at all.
    """
    if amp == "off":
        return None
    if device == "mps" and amp == "bf16":
        raise DeviceError(
            "params.yaml: train.amp = 'bf16': mps does not support bf16; set train.amp to 'fp16' or 'off'"
        )
    if device.startswith("cuda"):
        if amp == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            return _warning(amp, torch.cuda.get_device_name(device), "fp16")
        return None
    capabilities = torch.cpu.get_capabilities()
    if device == "cpu" and not any(capabilities.get(feature) for feature in CPU_FEATURES[amp]):
        instead = "bf16" if amp == "fp16" and precision_warning("bf16", device) is None else "off"
        return _warning(amp, "this CPU", instead)
    return None


def _warning(amp: str, device: str, instead: str) -> str:
    return (
        f"train.amp = '{amp}': {device} only emulates {amp}, which is slower than 'off'; set train.amp to '{instead}'"
    )
