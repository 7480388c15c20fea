"""segline: a pipeline from raw images to a registered segmentation model."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segline.library import Dataset, Segmentation, Segmenter, load, read_dataset

__all__ = ["Dataset", "Segmentation", "Segmenter", "load", "read_dataset"]

# Set environment variables that switch off telemetry, update checks and progress bars of libraries.
# A variable that the user has set keeps its value.
# This code comes first, because the libraries read these variables when they are imported.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}.items():
    os.environ.setdefault(_name, _value)

# Threads of matrix libraries wait for each other in a busy loop, and go to sleep only after a set time, the spin time.
# The libraries' default spin time is so long that training runs at half speed while another program uses the CPU.
# benchmarks/bench_spin.py measures the training speed with a short spin time and with the default spin time.
# The benchmark makes both measurements on an idle machine and on a machine that runs other programs.
# OpenMP libraries read the variables below only once, when the libraries are loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU: rounds of a busy loop, a few microseconds
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # Intel and LLVM: milliseconds


def __getattr__(name: str) -> Any:
    """Import the Python interface at its first use, so that the command line starts quickly."""
    if name in __all__:
        from segline import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*globals(), *__all__])
