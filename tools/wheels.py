"""Check that pip finds every pin for each supported Python and platform; print a Markdown table.

python tools/wheels.py    # ten minutes; downloads metadata only
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLATFORMS = {
    "Linux x86-64": [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 17, 12, 5)] + ["manylinux2014_x86_64"],
    "Linux arm64": [f"manylinux_2_{minor}_aarch64" for minor in (31, 28, 27, 26, 17)] + ["manylinux2014_aarch64"],
    "macOS arm64": [f"macosx_{major}_0_arm64" for major in (14, 13, 12, 11)],
}
PURE_SOURCES = ("antlr4-python3-runtime",)  # without wheels, but also without compiled code
LEFT_OUT = ("torch",)  # its CPU builds for Linux are on a package index of their own


def main() -> None:
    """Print the table; exit with status 1 if a pin is not found."""
    versions = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    print("| Python | " + " | ".join(PLATFORMS) + " |\n|---|" + "---|" * len(PLATFORMS))
    failed = False
    for version in versions:
        results = [resolve(version, tags) for tags in PLATFORMS.values()]
        failed |= any(result != "all" for result in results)
        print(f"| {version} | " + " | ".join(results) + " |", flush=True)
    sys.exit(failed)


def resolve(version: str, platforms: list[str]) -> str:
    """Return "all" if pip finds a wheel for every pin, else the name of the first pin without one."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text("\n".join(pin for pin in all_pins() if not pin.startswith(tuple(f"{n}==" for n in LEFT_OUT))))
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
        command += ["--only-binary", ":all:", *(f"--no-binary={name}" for name in PURE_SOURCES)]
        command += ["--python-version", version, *(f"--platform={platform}" for platform in platforms)]
        command += ["--target", folder, "--requirement", str(pins)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return "all"
    missing = re.search(r"No matching distribution found for (\S+)", done.stderr)
    if missing is None:
        raise SystemExit(done.stderr)
    return f"no {missing[1]}"


def all_pins() -> list[str]:
    """Return the pins of requirements.txt and requirements-dev.txt."""
    texts = ((ROOT / name).read_text() for name in ("requirements.txt", "requirements-dev.txt"))
    return re.findall(r"^[\w.-]+(?:\[\w+\])?==[\w.]+", "".join(texts), re.MULTILINE)


if __name__ == "__main__":
    main()
