"""tools/course.py and tools/records.py: running the lessons, keeping their outputs and records."""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import course
import records

# It writes its record where lesson.record does, and shows a picture.
GOOD_LESSON = """
import json, os
from pathlib import Path

from IPython.display import display
from PIL import Image

profile = {"auto": "tiny"}.get(os.environ["SEGLIB_PROFILE"], os.environ["SEGLIB_PROFILE"])
folder = Path(os.environ["SEGLIB_RUNS"]) / "02_works" / profile
for name in ("last", "best"):
    (folder / "run" / name).mkdir(parents=True, exist_ok=True)
record = {"metric": "IoU", "value": 0.25, "profile": profile, "device": "a CPU", "seconds": 90}
(folder / "result.json").write_text(json.dumps(record))
display(Image.new("RGBA", (8, 6), (255, 0, 0, 0)))
"""
NETWORK = {"metric": "IoU", "value": 0.9, "baseline": 0.5, "spread": 0.02}
FULL_RECORD = {
    "profile": "demo",
    **NETWORK,
    "networks": {"U-Net": NETWORK},
    "comparisons": {},
    "data": {"images": {"train": 1300, "test": 100}, "fingerprint": "0"},
    "machine": "a CPU, 2 cores",
    "seconds": 600,
}
COMPARISON = {"all background": {"metric": "IoU", "value": 0.25}}
NO_NETWORK = {**FULL_RECORD, "value": None, "baseline": None, "spread": None, "comparisons": COMPARISON}
HEAD = "| lesson | measured | value | baseline | spread | profile | data | machine | minutes |\n" + "| --- " * 9 + "|\n"


@pytest.fixture
def small_course(tmp_path, monkeypatch) -> Path:
    """A course of three lessons and an appendix: one fails, one works, one is no notebook, one writes no record."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "assets" / "results").mkdir(parents=True)
    (tmp_path / "README.md").write_text(
        "before\n" + records.between_marks("measured", "old\n") + "\n" + records.between_marks("real", "") + "\nafter\n"
    )
    sources = {"01_breaks": "raise RuntimeError('on purpose')", "02_works": GOOD_LESSON, "a1_silent": "1 + 1"}
    for name, source in sources.items():
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["readme"]})
        notebook = nbformat.v4.new_notebook(cells=[cell])
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    (tmp_path / "notebooks" / "03_garbled.ipynb").write_text("no notebook")
    monkeypatch.setattr(course, "ROOT", tmp_path)
    monkeypatch.setattr(course, "OUTPUT_DIR", tmp_path / "runs" / "course")
    monkeypatch.setenv("SEGLIB_PROFILE", "auto")  # tiny, because no test sees a GPU
    monkeypatch.setenv("SEGLIB_RUNS", "set by the tool")
    return tmp_path


def test_course_runs_the_other_lessons_when_one_fails(small_course, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["course.py"])
    assert course.main() == 1
    printed = capsys.readouterr().out
    assert "on purpose" in printed
    table = printed.split("\n\n")[-1].splitlines()
    assert re.match(r"01_breaks +\d+ +FAILED +runs/course/01_breaks.html", table[1])
    assert re.match(r"02_works +\d+ +IoU 0.250 +runs/course/02_works.html", table[2])
    assert re.match(r"03_garbled +0 +FAILED", table[3])
    assert re.match(r"a1_silent +\d+ +none +runs/course/a1_silent.html", table[4])
    for name in ("01_breaks", "02_works"):
        assert (course.OUTPUT_DIR / f"{name}.html").is_file()
        assert (course.OUTPUT_DIR / f"{name}.ipynb").is_file()
    run = course.OUTPUT_DIR / "trained" / "02_works" / "tiny" / "run"
    assert [path.name for path in run.iterdir()] == ["best"]  # checkpoints to resume from are deleted


@pytest.mark.parametrize("arguments", [["07"], ["--keep"]])
def test_course_refuses_unknown_lessons_and_to_keep_other_photographs(small_course, monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["course.py", *arguments])
    monkeypatch.setenv("SEGLIB_DATA", "somewhere")
    assert course.main() == 2
    assert not (small_course / "runs").exists()


def test_kept_outputs_replace_those_of_another_profile(small_course, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["course.py", "--keep", "2"])
    monkeypatch.delenv("SEGLIB_PROFILE")
    results = small_course / "assets" / "results"
    for name in ("02_works_tiny", "unet_stages"):
        (results / f"{name}.json").write_text("{}")
    assert course.main() == 0
    assert sorted(path.name for path in results.iterdir()) == ["02_works_demo.json", "unet_stages.json"]
    assert nbformat.read(small_course / "notebooks" / "02_works.ipynb", as_version=4).cells[0].execution_count == 1
    picture = Image.open(small_course / "assets" / "02_works.jpg")
    assert (picture.format, picture.size, picture.getpixel((3, 3))) == ("JPEG", (8, 6), (255, 255, 255))
    table = HEAD + "| 02_works | IoU | 0.250 | – | – | demo | drawn scenes | a CPU | 1.5 |\n"
    readme = (small_course / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("before\n" + records.between_marks("measured", table) + "\n<!-- real")
    assert readme.endswith("\nafter\n")


def test_outputs_without_a_record_are_not_kept(small_course, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["course.py", "--keep", "a1"])
    monkeypatch.setenv("SEGLIB_PROFILE", "tiny")
    earlier = course.OUTPUT_DIR / "trained" / "a1_silent" / "tiny" / "result.json"  # must not be taken for this run's
    earlier.parent.mkdir(parents=True)
    earlier.write_text(json.dumps(FULL_RECORD))
    assert course.main() == 1
    assert "wrote no record" in capsys.readouterr().out
    assert not list((small_course / "assets" / "results").iterdir())
    assert nbformat.read(small_course / "notebooks" / "a1_silent.ipynb", as_version=4).cells[0].execution_count is None


@pytest.mark.parametrize(
    ("lesson", "record", "line"),
    [
        (
            "02_a",
            FULL_RECORD,
            "| 0.900 | 0.500 | 0.020 | demo | drawn scenes: 1,300 train, 100 test | a CPU, 2 cores |",
        ),
        ("a1_b", NO_NETWORK, "| 0.250 | – | – | demo | drawn scenes: 1,300 train, 100 test | a CPU, 2 cores |"),
    ],
    ids=["a network", "no network"],
)
def test_the_table_shows_the_numbers_of_a_record(tmp_path, lesson, record, line):
    records.keep_record(lesson, record, tmp_path)
    assert records.results_table(tmp_path) == f"{HEAD}| {lesson} | IoU {line} 10.0 |\n"
