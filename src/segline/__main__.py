"""`python -m segline ...`: how dvc.yaml starts a stage."""

import sys

try:
    from segline.cli import main
except ModuleNotFoundError as error:
    if (error.name or "").startswith("segline"):
        raise
    sys.exit(f"{error} for {sys.executable}; activate the environment first: . .venv/bin/activate (make venv makes it)")

if __name__ == "__main__":
    main()
