"""Install what Google Colab lacks for the course, and nothing else: torch and numpy stay the versions they are."""

import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def missing(requirements: str) -> list[str]:
    """The lines of a requirements file whose package is not installed, in whatever version."""
    lines = [line.split("#")[0].strip() for line in requirements.splitlines()]
    return [line for line in lines if line and not is_installed(re.split(r"[<>=!~;\[ ]", line)[0])]


def is_installed(package: str) -> bool:
    """Whether a distribution is there."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def main() -> None:
    """Install the missing ones, with torch and numpy pinned to what is there."""
    wanted = missing((Path(__file__).parents[1] / "requirements.txt").read_text())
    if not wanted:
        return
    print("Installing", ", ".join(wanted))
    pins = "\n".join(f"{name}=={version(name)}" for name in ("torch", "numpy") if is_installed(name))
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "pins.txt"
        constraints.write_text(pins)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints), *wanted]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
