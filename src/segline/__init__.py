"""segline: from raw images to a registered segmentation model."""

import os

# No telemetry, no update checks, no bar for copying three files: set here alone, before any of those packages can be
# imported, and only where nobody has set it otherwise.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}.items():
    os.environ.setdefault(_name, _value)

# The threads of a matrix library spin while they wait for each other. By default they spin for so long that one other
# busy program halves the speed of a training; a short spin costs nothing on an idle machine (benchmarks/bench_spin.py).
# The OpenMP libraries read these variables once, when they are loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU: rounds of a busy loop, a few microseconds
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # Intel and LLVM: milliseconds
