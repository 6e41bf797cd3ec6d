"""Run the lessons, each in a fresh kernel, and report the results.

    python tools/course.py            all lessons and appendices
    python tools/course.py 02 a1      a lesson and an appendix
    python tools/course.py --keep 02  also keep the outputs: in notebooks/, assets/ and README.md

The executed notebooks and their HTML are written to runs/course/, the training runs to runs/course/trained/. The tiny
profile trains from scratch each time. The longer profiles resume an interrupted run and show a finished one. If a
lesson fails, the others still run, and the exit status is 1. Without SEGLIB_PROFILE, --keep uses the demo profile, the
whole course uses the tiny profile, and a lesson that is named runs in the profile that suits the machine.
"""

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import records
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, ExecutePreprocessor

ROOT = Path(__file__).parents[1]
OUTPUT_DIR = ROOT / "runs" / "course"
CELL_TIMEOUT = 6 * 3600  # seconds; training on real data may take hours


@dataclass
class LessonReport:
    """The result of running one lesson.

    Attributes:
        lesson: the notebook's name, "02_unet_binary".
        seconds: how long it ran.
        result: its main metric with the value, "test IoU 0.459"; the metric alone if the lesson trains no network.
        error: why it failed; empty if it did not.
        html: the path of the executed notebook as HTML.
    """

    lesson: str
    seconds: float
    result: str = "none"
    error: str = ""
    html: str = "none"


def run_lesson(path: Path, keep: bool) -> LessonReport:
    """Execute a notebook and write it, with its outputs, to runs/course/.

    Args:
        path: the notebook.
        keep: also write the outputs to notebooks/, assets/ and README.md, unless the lesson fails.
    """
    profile = os.environ["SEGLIB_PROFILE"]
    own_data = bool(os.environ.get("SEGLIB_DATA"))
    trained = OUTPUT_DIR / "trained" / path.stem
    runs = f"{profile}-{Path(os.environ['SEGLIB_DATA']).resolve().name}" if own_data else profile
    always_anew = profile == "tiny" and not own_data
    if always_anew:
        shutil.rmtree(trained / "tiny", ignore_errors=True)
    os.environ["SEGLIB_RUNS"] = str(trained.parent)
    for file in trained.glob(f"{runs}/result.json"):  # of an earlier run
        file.unlink()

    notebook = nbformat.read(path, as_version=4)
    started = time.perf_counter()
    error = execute(notebook, path.parent)
    seconds = time.perf_counter() - started

    name = path.stem + (f"-{profile}" if profile != "tiny" else "") + ("-data" if own_data else "")
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})  # keeps only the end of a progress bar
    write_notebook(notebook, OUTPUT_DIR / f"{name}.ipynb")
    html, _ = HTMLExporter().from_notebook_node(notebook)
    (OUTPUT_DIR / f"{name}.html").write_text(html, encoding="utf-8")

    record = read_record(trained, runs)
    if keep and not error and not record:
        error = "the outputs are not kept, because the lesson wrote no record: its last code cell calls lesson.record"
    elif keep and not error:
        write_notebook(notebook, path)
        keep_results(path.stem, notebook, record)
    if always_anew and not error:
        delete_checkpoints(trained / "tiny")
    value = record.get("value")
    result = record.get("metric", "none") + ("" if value is None else f" {value:.3f}")
    return LessonReport(path.stem, seconds, result, error, f"runs/course/{name}.html")


def execute(notebook: nbformat.NotebookNode, folder: Path) -> str:
    """Execute all cells of a notebook in `folder`. Return the error that stopped it, or ""."""
    executor = ExecutePreprocessor(timeout=CELL_TIMEOUT, kernel_name="python3", record_timing=False)
    executor.extra_arguments = ["--IPKernelApp.log_level=40"]  # the kernel warns about its connection otherwise
    try:
        executor.preprocess(notebook, {"metadata": {"path": str(folder)}})
    except CellExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except (CellTimeoutError, DeadKernelError) as error:
        return str(error)
    return ""


def write_notebook(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook without the metadata that depend on the machine."""
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "colab": {"provenance": []},
    }
    if "accelerator" in notebook.metadata:  # asks Colab for a GPU
        metadata["accelerator"] = notebook.metadata["accelerator"]
    notebook.metadata = nbformat.from_dict(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def delete_checkpoints(folder: Path) -> None:
    """Delete the checkpoints that only serve to resume. Models and histories stay."""
    for checkpoints in folder.glob("**/last"):
        shutil.rmtree(checkpoints)


def read_record(folder: Path, profile: str) -> records.Record:
    """Return what `lesson.record` wrote. Empty if it wrote nothing.

    Args:
        folder: the lesson's folder of training runs.
        profile: the name, or a pattern for the name, of the profile's folder.
    """
    for file in folder.glob(f"{profile}/result.json"):
        return json.loads(file.read_text(encoding="utf-8"))
    return {}


def keep_results(lesson: str, notebook: nbformat.NotebookNode, record: records.Record) -> None:
    """Write a lesson's record and its picture for README.md to assets/, and update the tables in README.md."""
    records.keep_record(lesson, record, ROOT)
    records.keep_picture(lesson, notebook, ROOT)
    records.write_tables(ROOT)


def run_lessons(paths: list[Path], keep: bool) -> list[LessonReport]:
    """Run lessons one after the other and print their progress."""
    reports = []
    for number, path in enumerate(paths, 1):
        print(f"[{number}/{len(paths)}] {path.stem}, profile {os.environ['SEGLIB_PROFILE']} ...", flush=True)
        try:
            report = run_lesson(path, keep)
        except Exception as error:  # a broken notebook file, for example; the other lessons still run
            report = LessonReport(path.stem, 0, error=f"{type(error).__name__}: {error}")
        print(f"      {report.seconds:.0f} s", flush=True)
        if report.error:
            print(f"      FAILED. Outputs up to the error: {report.html}\n{report.error}")
        reports.append(report)
    return reports


def print_table(reports: list[LessonReport]) -> None:
    """Print lesson, seconds, result and HTML file of each report."""
    rows = [("lesson", "seconds", "result", "see")]
    for report in reports:
        rows.append((report.lesson, f"{report.seconds:.0f}", "FAILED" if report.error else report.result, report.html))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def find_lessons() -> list[Path]:
    """Return all notebooks of the course: the lessons, then the appendices."""
    folder = ROOT / "notebooks"
    return [*sorted(folder.glob("[0-9][0-9]_*.ipynb")), *sorted(folder.glob("a[0-9]_*.ipynb"))]


def choose_lessons(numbers: list[str]) -> list[Path]:
    """Return the notebooks with these numbers, or all of them without numbers.

    Args:
        numbers: such as 02 or 2 for a lesson, a1 for an appendix.

    Raises:
        ValueError: no lesson has one of the numbers.
    """
    paths = find_lessons()
    wanted = [number.zfill(2) for number in numbers]
    unknown = set(wanted) - {path.name[:2] for path in paths}
    if unknown:
        names = ", ".join(path.stem for path in paths)
        raise ValueError(f"no lesson has the number {', '.join(sorted(unknown))}. The lessons are {names}.")
    return [path for path in paths if not wanted or path.name[:2] in wanted]


def choose_profile(numbers: list[str], keep: bool) -> str:
    """Return the profile that SEGLIB_PROFILE names; else the one for outputs to keep, the course or this machine."""
    if "SEGLIB_PROFILE" not in os.environ and (keep or not numbers):
        return "demo" if keep else "tiny"
    from seglib import lesson  # imports torch

    return lesson.choose_profile()[0]


def main() -> int:
    """Run the lessons that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", help="of lessons and appendices, such as 02 or a1 (default: all)")
    parser.add_argument("--keep", action="store_true", help="keep the outputs in notebooks/, assets/ and README.md")
    arguments = parser.parse_args()
    if arguments.keep and os.environ.get("SEGLIB_DATA"):
        print("--keep works with the bundled sample only, because other photographs do not belong in the repository.")
        return 2
    try:
        paths = choose_lessons(arguments.numbers)
        os.environ["SEGLIB_PROFILE"] = choose_profile(arguments.numbers, arguments.keep)
    except ValueError as error:
        print(error)
        return 2
    reports = run_lessons(paths, arguments.keep)
    print()
    print_table(reports)
    return int(any(report.error for report in reports))


if __name__ == "__main__":
    sys.exit(main())
