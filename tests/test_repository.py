"""The house: one address, one way for imports, notebooks in shape, tools that do what they say."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import colab
import course

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

# What each module may import from seglib: always a module further down this list.
LAYERS = [
    "lesson",
    "predict",
    "evaluate",
    "yolo",
    "train",
    "grid",
    "state",
    "settings",
    "trackers",
    "runs",
    "plots",
    "loading",
    "processes",
    "datasets",
    "models",
]
LAYERS += ["losses", "metrics", "transforms", "instances", "masks", "files"]


def cells(path: Path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def layer(path: Path) -> str:
    return path.relative_to(ROOT / "seglib").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted((ROOT / "seglib").rglob("*.py")), ids=lambda path: path.stem)
def test_imports_point_one_way(path):
    mine = layer(path)
    if mine == "__init__":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "seglib":
            parts = node.module.split(".")
            modules = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("seglib.")]
        for module in modules:
            assert module == mine or LAYERS.index(module) > LAYERS.index(mine), f"{mine} imports {module}"


def test_albumentations_is_known_to_transforms_only():
    users = [
        p.name for p in (ROOT / "seglib").rglob("*.py") if re.search(r"^import albumentations", p.read_text(), re.M)
    ]
    assert users == ["transforms.py"]


def test_there_is_one_address():
    files = [ROOT / "README.md", *NOTEBOOKS]
    for path in files:
        found = set(re.findall(r"github\.com/([\w.-]+/[\w.-]+)", path.read_text()))
        found |= set(re.findall(r"research\.google\.com/github/([\w.-]+/[\w.-]+)", path.read_text()))
        assert found == {ADDRESS.removeprefix("https://github.com/")}, path


def test_every_requirement_has_an_exact_version():
    wanted = [re.split(r"[<>=]", line)[0] for line in (ROOT / "requirements.txt").read_text().splitlines()[1:]]
    pinned = [
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]
    ]
    assert wanted and set(wanted) <= set(pinned)
    assert all("@" not in line and "/" not in line for line in pinned)


# ------------------------------------------------------------------------------------------------ notebooks


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_the_anatomy_of_a_lesson(path):
    code, text = cells(path, "code"), cells(path, "markdown")
    assert f"/blob/main/notebooks/{path.name}" in text[0].source and "**The question.**" in text[0].source
    assert code[0].source == cells(NOTEBOOKS[0], "code")[0].source  # the set-up cell, the same bytes everywhere
    assert '# @param ["auto", "tiny", "demo", "full"]' in code[1].source
    assert max(len(cell.source.splitlines()) for cell in code) <= 25
    headings = [line for cell in text for line in cell.source.splitlines() if line.startswith("#")]
    assert any("take away" in line for line in headings) and any("Exercises" in line for line in headings)
    solutions = [cell for cell in code if "solution" in cell.metadata.get("tags", ())]
    assert 2 <= len(solutions) <= 3
    assert all(cell.metadata["jupyter"]["source_hidden"] and cell.metadata["cellView"] == "form" for cell in solutions)
    assert "**Next:" in text[-1].source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_the_outputs_of_one_whole_run(path):
    code = cells(path, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3
    for cell in code:
        if "solution" in cell.metadata.get("tags", ()):
            assert any("Right!" in o.get("text", "") for o in cell.outputs)
    everything = json.dumps(outputs)
    assert "\\r" not in everything and str(ROOT) not in everything
    assert path.stat().st_size < 1_500_000
    assert "widgets" not in nbformat.read(path, as_version=4).metadata


def test_readme_shows_what_was_measured():
    readme = (ROOT / "README.md").read_text()
    assert course.MARKS[0] + course.measured_table() + course.MARKS[1] in readme
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in readme and f"| {path.stem} |" in course.measured_table()
    for figure in re.findall(r"\]\((assets/[^)]+)\)", readme):
        assert (ROOT / figure).is_file()


# ------------------------------------------------------------------------------------------------ Colab


def test_colab_installs_what_is_missing_and_nothing_else():
    assert colab.missing("torch>=2.5\nnumpy\n# a comment\nno-such-package>=1  # why\n") == ["no-such-package>=1"]


def test_the_set_up_cell_does_nothing_elsewhere(tmp_path):
    source = cells(NOTEBOOKS[0], "code")[0].source
    subprocess.run([sys.executable, "-c", source], cwd=tmp_path, check=True, env={**os.environ, "PATH": ""})
    assert not list(tmp_path.iterdir())


def test_on_colab_the_set_up_cell_fetches_the_course_once_and_goes_there(tmp_path):
    """As on Colab: a module google.colab is loaded; the course is cloned to /content, here from this very folder."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout made by git")
    source = cells(NOTEBOOKS[0], "code")[0].source.replace("/content", str(tmp_path / "content"))
    pretend = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')\n"
    report = "\nimport os, seglib; print(os.getcwd()); print(seglib.__file__)"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(tmp_path / "remote")], check=True)
    env = {**os.environ, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{tmp_path / 'remote'}.insteadOf"}
    env |= {"GIT_CONFIG_VALUE_0": ADDRESS}
    (tmp_path / "content").mkdir()
    for _ in range(2):  # a second time, the folder is there
        command = [sys.executable, "-c", pretend + source + report]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        where, module = done.stdout.split()[-2:]
        assert where.endswith("content/image-segmentation-course/notebooks")
        assert module.startswith(str(tmp_path / "content"))


# ------------------------------------------------------------------------------------------------ tools/course.py


def lesson_file(folder: Path, name: str, source: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")


def test_course_goes_on_past_a_failed_lesson_and_then_fails(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    lesson_file(tmp_path, "01_breaks", "raise RuntimeError('on purpose')")
    sound = "from seglib import lesson\nlesson.settings('02_works', 'tiny')\nlesson.result('IoU', 0.25)"
    lesson_file(tmp_path, "02_works", sound)
    (tmp_path / "notebooks" / "03_garbled.ipynb").write_text("no notebook")
    monkeypatch.setattr(course, "ROOT", tmp_path)
    monkeypatch.setattr(course, "OUT", tmp_path / "runs" / "course")
    monkeypatch.setattr(sys, "argv", ["course.py"])
    monkeypatch.setenv("SEGLIB_RUNS", "set by the tool")
    assert course.main() == 1
    said = capsys.readouterr().out
    assert "on purpose" in said
    table = said.split("\n\n")[-1].splitlines()
    assert re.match(r"03_garbled +0 +FAILED", table[3])
    assert re.match(r"01_breaks +\d+ +FAILED", table[1]) and re.match(r"02_works +\d+ +IoU 0.250", table[2])
    for name in ("01_breaks", "02_works"):
        assert (course.OUT / f"{name}.html").is_file() and (course.OUT / f"{name}.ipynb").is_file()
    monkeypatch.setattr(sys, "argv", ["course.py", "02"])
    assert course.main() == 0
    monkeypatch.setattr(sys, "argv", ["course.py", "07"])
    assert course.main() == 2


def test_other_peoples_photographs_are_never_kept(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["course.py", "--keep"])
    monkeypatch.setenv("SEGLIB_DATA", "somewhere")
    assert course.main() == 2
