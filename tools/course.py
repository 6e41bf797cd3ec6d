"""Run the lessons from first cell to last, each in a fresh kernel, and say how it went.

    python tools/course.py            all of them
    python tools/course.py 02         those whose number is given
    python tools/course.py --keep 02  and keep the outputs: in notebooks/, assets/ and README.md

The executed notebooks and their HTML go to runs/course/, what they train to runs/course/trained/: in the tiny profile
anew each time; in the longer ones a run that was interrupted goes on, and a finished one is shown. A lesson that fails
does not stop the others; the exit status is then 1. Where SEGLIB_PROFILE is not set, all of them run in the tiny
profile, and those that are named in the one that suits the machine.
"""

import argparse
import base64
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, ExecutePreprocessor

from seglib.lesson import choose_profile

ROOT = Path(__file__).parents[1]
OUT = ROOT / "runs" / "course"
RESULTS = ROOT / "assets" / "results"
MARKS = "<!-- measured: begin -->\n", "<!-- measured: end -->"
CELL_TIMEOUT = 6 * 3600  # seconds: a cell that trains on real data may take its time


@dataclass
class Outcome:
    """How a lesson went."""

    lesson: str
    seconds: float
    headline: str
    error: str = ""
    where: str = "none"


def run_lesson(path: Path, keep: bool) -> Outcome:
    """Execute one notebook, write it and its HTML to runs/course/, and tell how it went."""
    work = OUT / "trained" / path.stem
    profile = os.environ["SEGLIB_PROFILE"]
    own_data = bool(os.environ.get("SEGLIB_DATA"))
    if profile == "tiny" and not own_data:
        shutil.rmtree(work / "tiny", ignore_errors=True)  # a finished run would be found and not trained again
    os.environ["SEGLIB_RUNS"] = str(work.parent)
    shown = path.stem + (f"-{profile}" if profile != "tiny" else "") + ("-data" if own_data else "")
    notebook = nbformat.read(path, as_version=4)
    executor = ExecutePreprocessor(timeout=CELL_TIMEOUT, kernel_name="python3", record_timing=False)
    executor.extra_arguments = ["--IPKernelApp.log_level=40"]  # else it warns of its own connection to this process
    error, started = "", time.perf_counter()
    try:
        executor.preprocess(notebook, {"metadata": {"path": str(path.parent)}})
    except CellExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    except (CellTimeoutError, DeadKernelError) as failure:
        error = str(failure)
    seconds = time.perf_counter() - started
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})  # drops what a progress bar wrote over
    write(notebook, OUT / f"{shown}.ipynb")
    html, _ = HTMLExporter().from_notebook_node(notebook)
    (OUT / f"{shown}.html").write_text(html, encoding="utf-8")
    result = read_result(work, f"{profile}-*" if own_data else profile)
    if keep and not error and result:
        write(notebook, path)
        keep_results(path.stem, notebook, result)
    headline = f"{result['metric']} {result['value']:.3f}" if result else "none"
    return Outcome(path.stem, seconds, headline, error, f"runs/course/{shown}.html")


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook without what changes from machine to machine."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "colab": {"provenance": []},
            "accelerator": "GPU",
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def read_result(work: Path, folder: str) -> dict:
    """What the lesson itself names as its result, with profile, device and seconds; empty if there is none."""
    for file in work.glob(f"{folder}/result.json"):
        return json.loads(file.read_text())
    return {}


def keep_results(lesson: str, notebook: nbformat.NotebookNode, result: dict) -> None:
    """Keep a lesson's result and the figure it has for README.md, and bring README.md's table up to date."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{lesson}_{result['profile']}.json").write_text(json.dumps(result, indent=1) + "\n")
    for cell in notebook.cells:
        if "readme" in cell.metadata.get("tags", ()):
            pictures = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
            (ROOT / "assets" / f"{lesson}.png").write_bytes(base64.b64decode(pictures[0]))
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(before + MARKS[0] + measured_table() + MARKS[1] + after, encoding="utf-8")


def measured_table() -> str:
    """README.md's table of what was measured, from assets/results/."""
    lines = ["| lesson | profile | machine | seconds | result |", "|---|---|---|---|---|"]
    for file in sorted(RESULTS.glob("[0-9][0-9]_*.json")):
        result = json.loads(file.read_text())
        lesson = file.stem.removesuffix(f"_{result['profile']}")
        shown = f"{result['metric']} {result['value']:.3f}"
        lines.append(f"| {lesson} | {result['profile']} | {result['device']} | {result['seconds']:.0f} | {shown} |")
    return "\n".join(lines) + "\n"


def print_table(outcomes: list[Outcome]) -> None:
    """Lesson, seconds, headline metric, where to look."""
    rows = [("lesson", "seconds", "result", "where to look")]
    for outcome in outcomes:
        shown = "FAILED" if outcome.error else outcome.headline
        rows.append((outcome.lesson, f"{outcome.seconds:.0f}", shown, outcome.where))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> int:
    """Run the lessons that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", help="lesson numbers, 02 say; none: all")
    parser.add_argument("--keep", action="store_true", help="keep the outputs in notebooks/, assets/ and README.md")
    arguments = parser.parse_args()
    # The whole course is the quick one; a lesson that is named runs as it would in Jupyter.
    os.environ.setdefault("SEGLIB_PROFILE", choose_profile()[0] if arguments.numbers and not arguments.keep else "tiny")
    if arguments.keep and os.environ.get("SEGLIB_DATA"):
        print("--keep is for the bundled sample: other people's photographs do not belong in the repository")
        return 2
    paths = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    numbers = [number.zfill(2) for number in arguments.numbers]
    chosen = [path for path in paths if not numbers or path.name[:2] in numbers]
    unknown = set(numbers) - {path.name[:2] for path in chosen}
    if unknown or not chosen:
        print(f"no lesson {', '.join(sorted(unknown))}; there are {', '.join(path.stem for path in paths)}")
        return 2
    outcomes = []
    for number, path in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {path.stem}, profile {os.environ['SEGLIB_PROFILE']} ...", flush=True)
        try:
            outcomes.append(run_lesson(path, arguments.keep))
        except Exception as error:  # a notebook that is no notebook, say: the others are run all the same
            outcomes.append(Outcome(path.stem, 0, "none", f"{type(error).__name__}: {error}"))
        print(f"      {outcomes[-1].seconds:.0f} s", flush=True)
        if outcomes[-1].error:
            print(f"      FAILED; as far as it got, it is in {outcomes[-1].where}\n{outcomes[-1].error}")
    print()
    print_table(outcomes)
    return int(any(outcome.error for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
