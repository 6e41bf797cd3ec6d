"""Compute what a lesson compares but does not train itself, such as repeats over seeds, and record it.

    python tools/results.py              list the experiments
    python tools/results.py unet_stages  run an experiment, or resume it, and write assets/results/unet_stages.json
    python tools/results.py real/nuclei  the same, on real images; README.md shows these results in a table

An experiment is the function `main` of tools/experiments/<name>.py; the first line of its docstring describes it. It
takes a folder, trains each of its runs in a folder of its own below it, so that an interrupted experiment resumes, and
returns a dictionary:

    metric    what exactly the values are
    split     how the images were split
    settings  the numbers of the experiment
    data      the folder of the data set
    images    the number of images of each split
    values    the results, of any form that JSON can hold

and, if it is one of tools/experiments/real/, also

    value      the main result
    spread     the largest minus the smallest value over several runs, if there are several
    published  a dictionary: the published value, its source, and what differs; None if none was found

It runs on the bundled sample in the demo profile. If the module has a constant NEEDS, the names of real data sets, it
runs in the full profile, and only if these data sets are there. lesson.results(name) reads the record in a notebook.
"""

import argparse
import ast
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import records

ROOT = Path(__file__).parents[1]


def find_experiments() -> dict[str, str]:
    """Return the description of each experiment, by name."""
    found = {}
    folder = ROOT / "tools" / "experiments"
    for path in sorted(folder.rglob("[a-z]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == "main":
                name = path.relative_to(folder).with_suffix("").as_posix()
                found[name] = (ast.get_docstring(node) or "").split("\n")[0]
    return found


def record_path(name: str) -> Path:
    """Return the path of the record of an experiment."""
    return ROOT / "assets" / "results" / f"{name}.json"


def print_list(experiments: dict[str, str]) -> None:
    """Print a line for each experiment."""
    width = max(map(len, experiments), default=0)
    for name, description in experiments.items():
        print(f"{name:<{width}}  {'recorded ' if record_path(name).is_file() else 'no record'}  {description}")


def missing_data(needs: Sequence[str]) -> list[str]:
    """Return the data sets that are neither downloaded nor to be taken from SEGLIB_DATA."""
    from seglib.datasets.download import find

    return [name for name in needs if not os.environ.get("SEGLIB_DATA") and not find(name)]


def run(name: str, description: str, main: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Run an experiment and return its record."""
    from seglib import lesson
    from seglib.runs import package_versions

    folder = ROOT / "runs" / "results" / name
    record = main(folder)
    data = record["data"]
    record["data"] = {"name": data.name, "images": record.pop("images"), "fingerprint": lesson.fingerprint(data)}
    record |= {
        "machine": lesson.machine(),
        "versions": package_versions(),
        "minutes": round(lesson.training_seconds(folder) / 60, 1),
    }
    return {"name": name, "description": description, "profile": os.environ["SEGLIB_PROFILE"], **record}


def main() -> int:
    """Run the experiment that the command line names, or list all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="of an experiment (default: list all)")
    name = parser.parse_args().name
    experiments = find_experiments()
    if name not in experiments:
        if name:
            print(f"there is no experiment {name!r}. The experiments are:")
        print_list(experiments)
        return 2 if name else 0
    module = runpy.run_path(str(ROOT / "tools" / "experiments" / f"{name}.py"))
    needs = module.get("NEEDS", ())
    if missing := missing_data(needs):
        print(f"{name} needs real data that are not there. Download them first (data/README.md says what they are):")
        print(*(f"  python -m seglib.datasets get {data_set}" for data_set in missing), sep="\n")
        return 2
    os.environ["SEGLIB_PROFILE"] = "full" if needs else "demo"
    if not needs:
        os.environ.pop("SEGLIB_DATA", None)  # it would replace the sample
    try:
        record = run(name, experiments[name], module["main"])
    except KeyboardInterrupt:
        print("\nInterrupted. The last checkpoint is kept: run the command again to resume.")
        return 130
    from seglib.files import write_json

    write_json(record_path(name), record)
    if name.startswith("real/"):
        records.write_tables(ROOT)
    print(f"{record_path(name).relative_to(ROOT)}: {record['minutes']} minutes of training")
    return 0


if __name__ == "__main__":
    sys.exit(main())
