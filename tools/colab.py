"""Prepare a Google Colab runtime for the course. Each notebook's set-up cell runs this file in its own kernel.

Packages that Colab lacks are installed. torch and numpy stay at the versions that Colab has.
"""

import importlib
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]


def missing_packages(requirements: str) -> list[str]:
    """Return the lines of a requirements file whose package is not installed in any version."""
    lines = [line.split("#")[0].strip() for line in requirements.splitlines()]
    return [line for line in lines if line and not is_installed(re.split(r"[<>=!~;\[ ]", line)[0])]


def is_installed(package: str) -> bool:
    """Return whether a package is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def install(packages: list[str]) -> None:
    """Install packages without changing the versions of torch and numpy."""
    print("Installing", ", ".join(packages))
    pins = "\n".join(f"{name}=={version(name)}" for name in ("torch", "numpy") if is_installed(name))
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "pins.txt"
        constraints.write_text(pins, encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints), *packages]
        subprocess.run(command, check=True)
    importlib.invalidate_caches()


def main() -> None:
    """Install what is missing, make seglib importable and change to the folder of the notebooks."""
    packages = missing_packages((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    if packages:
        install(packages)
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    os.chdir(ROOT / "notebooks")


if __name__ == "__main__":
    main()
