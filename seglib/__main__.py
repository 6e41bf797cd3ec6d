"""The commands of seglib: `seglib predict` and `seglib datasets`, also as `python -m seglib`."""

import sys
from importlib import import_module

__all__ = ["main"]

_COMMANDS = {
    "predict": ("seglib.predict", "predict photographs with a trained model"),
    "datasets": ("seglib.datasets.__main__", "download data sets; check and convert your own"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit status: 2 for one that is not known."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in _COMMANDS:
        return import_module(_COMMANDS[command][0]).main(rest)
    print("usage: seglib COMMAND ...\n")
    for name, (_, text) in _COMMANDS.items():
        print(f"  {name:<10} {text}: seglib {name} --help")
    return 0 if command in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main())
