"""Prepare a Google Colab runtime for the course. Each notebook's set-up cell runs this file in its own kernel.

Packages that Colab lacks are installed. Everything that Colab has stays at its version.
"""

import importlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]


def compare(requirements: str) -> tuple[list[str], list[str]]:
    """Return the lines of a requirements file whose package is missing, and a sentence for each other version."""
    missing, others = [], []
    for line in (line.split("#")[0].strip() for line in requirements.splitlines()):
        if not line:
            continue
        requirement = Requirement(line)
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            missing.append(line)
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            others.append(f"{requirement.name} {installed} is installed, but the course needs {requirement.specifier}.")
    return missing, others


def installed_versions() -> list[str]:
    """Return a pin for every installed package, as pip's constraints."""
    pins = set()
    for distribution in distributions():
        name = distribution.metadata["Name"]
        try:
            pins.add(f"{name}=={Version(distribution.version)}")
        except (InvalidVersion, TypeError):  # a package that pip does not know either
            continue
    return sorted(pins)


def install(packages: list[str]) -> None:
    """Install packages without changing those that are there. Raises RuntimeError with what to do if that fails."""
    print("Installing", ", ".join(packages))
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "installed.txt"
        constraints.write_text("\n".join(installed_versions()), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints), *packages]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = " ".join([line for line in lines if line.startswith("ERROR")][-1:] or lines[-1:])
        raise RuntimeError(
            f"{', '.join(packages)} could not be installed ({reason}). Is there a network? Restart the session (menu "
            "Runtime) and run this cell again."
        )
    importlib.invalidate_caches()


def main() -> None:
    """Install what is missing, make seglib importable, also by commands, and change to the folder of the notebooks."""
    missing, others = compare((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    for sentence in others:
        print(f"{sentence} If something fails, choose the newest runtime version (menu Runtime, Change runtime type).")
    if missing:
        install(missing)
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))  # for !python -m seglib.predict
    os.chdir(ROOT / "notebooks")


if __name__ == "__main__":
    main()
