"""segline: from raw images to a registered segmentation model."""

import os

# Switch off telemetry, update checks and progress bars of libraries: before any library is imported, and only if the
# user has not set these variables.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}.items():
    os.environ.setdefault(_name, _value)

# Threads of a matrix library spin while they wait for each other. By default they spin so long that one other busy
# program halves the speed of a training; a short spin costs nothing on an idle machine (benchmarks/bench_spin.py).
# OpenMP libraries read these variables only once, when they are loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU: rounds of a busy loop, a few microseconds
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # Intel and LLVM: milliseconds
