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
