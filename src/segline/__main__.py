"""Entry point of `python -m segline ...`, the command with which dvc.yaml starts each stage."""

import sys

try:
    from segline.cli import main
except ModuleNotFoundError as error:
    if (error.name or "").startswith("segline"):
        raise
    sys.exit(
        f"{error} in {sys.executable}; activate the environment with `. .venv/bin/activate`; if there is no "
        "environment, create it with `make venv`"
    )

if __name__ == "__main__":
    main()
