"""The repository as a whole: imports, names, the address, notebooks, tools."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import badges
import colab
import course

MODULES = sorted((ROOT / "seglib").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))

# A module of seglib imports only modules further down this list.
LAYERS = ["lesson", "grid", "train_yolo", "train", "runs", "loading", "config", "predict", "evaluate", "plots"]
LAYERS += ["datasets", "models", "losses", "metrics", "transforms", "instances", "masks", "files", "progress"]
READERS = ["base", "coco", "folder", "voc", "yolo"]


def module_name(path: Path) -> str:
    """The dotted name of a module of seglib."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(nodes: Iterator[ast.AST] | list[ast.stmt]) -> set[str]:
    """The modules of seglib that these statements import."""
    names = {module_name(path) for path in MODULES}
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in names}
        elif isinstance(node, ast.ImportFrom) and node.module in names:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & names
            found |= submodules or {node.module}
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_one_way(path):
    name = module_name(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if TYPE_CHECKING:")]
    for other in imported_modules(ast.walk(tree)) - {"seglib"}:
        if name != "seglib" and other.split(".")[1] != name.split(".")[1]:
            assert LAYERS.index(name.split(".")[1]) < LAYERS.index(other.split(".")[1]), f"{name} imports {other}"
        if name in [f"seglib.datasets.{reader}" for reader in READERS]:
            assert not other.startswith(("seglib.datasets.download", "seglib.datasets.sample")), other


def test_no_modules_import_each_other_in_a_circle():
    graph = {
        module_name(path): imported_modules(ast.parse(path.read_text(encoding="utf-8")).body) - {module_name(path)}
        for path in MODULES
    }
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError and names the circle


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_public_names_are_listed_and_documented(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    if path.name == "__main__.py" or path == ROOT / "seglib" / "__init__.py":
        return
    lists = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
    assert lists, f"{path} has no __all__"
    public = [*ast.literal_eval(lists[0].value), "main"]  # main: of a module that is also a command
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert node.name in public, f"{node.name} is neither private nor in __all__"
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_only_transforms_imports_albumentations():
    pattern = re.compile(r"(?m)^ *(import|from) albumentations")
    users = [path.name for path in MODULES if pattern.search(path.read_text(encoding="utf-8"))]
    assert users == ["transforms.py"]


def test_every_requirement_has_an_exact_version():
    required, exact = (
        (ROOT / name).read_text(encoding="utf-8").splitlines()[1:] for name in ("requirements.txt", "constraints.txt")
    )
    names = {re.split(r"[<>=]", line)[0] for line in required}
    assert names
    assert names <= {line.split("==")[0].lower().replace("_", "-") for line in exact}
    assert not [line for line in exact if "@" in line or "/" in line]


# ------------------------------------------------------------------------------------------------ the address


def addresses(root: Path) -> dict[str, set[str]]:
    """The repository, owner/name, that each file gives as that of the course."""
    files = [root / "README.md", root / "pyproject.toml", *sorted((root / "notebooks").glob("*.ipynb"))]
    pattern = re.compile(
        r"(?:research\.google\.com/github/|(?:git clone |git\+|[\"=] ?)https://github\.com/)([\w.-]+/[\w.-]+)"
    )
    return {file.name: set(pattern.findall(file.read_text(encoding="utf-8"))) for file in files}


def copy_addressed_files(root: Path) -> None:
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))


def test_the_address_is_the_same_everywhere_or_nowhere():
    found = addresses(ROOT)
    first = found["README.md"]
    assert len(first) <= 1
    assert all(repositories == first for repositories in found.values()), found


def test_badges_writes_the_address_everywhere_and_removes_it(tmp_path):
    copy_addressed_files(tmp_path)
    badges.write_address(tmp_path, "")
    assert not any(addresses(tmp_path).values())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    badges.write_address(tmp_path, "someone/course", "v0.1.0")
    assert all(repositories == {"someone/course"} for repositories in addresses(tmp_path).values())
    for path in (tmp_path / "notebooks").glob("*.ipynb"):
        link = f"github/someone/course/blob/v0.1.0/notebooks/{path.name})"
        assert link in cells(path, "markdown")[0].source
        assert link in (tmp_path / "README.md").read_text(encoding="utf-8") or path not in NOTEBOOKS
        assert "--branch=v0.1.0" in cells(path, "code")[0].source
    badges.write_address(tmp_path, "")
    assert {path: path.read_bytes() for path in before} == before


# ------------------------------------------------------------------------------------------------ notebooks


def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_the_parts_of_a_lesson(path):
    code = cells(path, "code")
    text = cells(path, "markdown")
    assert "**The question.**" in text[0].source
    assert code[0].source == cells(NOTEBOOKS[0], "code")[0].source  # the set-up cell is the same everywhere
    assert len(code[0].source.splitlines()) <= 14
    assert '# @param ["auto", "tiny", "demo", "full"]' in code[1].source
    assert max(len(cell.source.splitlines()) for cell in code) <= 25
    headings = [line for cell in text for line in cell.source.splitlines() if line.startswith("#")]
    assert any("take away" in line for line in headings)
    assert any("Exercises" in line for line in headings)
    solutions = [cell for cell in code if "solution" in cell.metadata.get("tags", ())]
    assert 2 <= len(solutions) <= 3
    assert all(cell.metadata["jupyter"]["source_hidden"] and cell.metadata["cellView"] == "form" for cell in solutions)
    assert "**Next:" in text[-1].source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_asks_colab_for_a_gpu_if_it_trains(path):
    trains = any("from seglib.train" in cell.source for cell in cells(path, "code"))
    assert ("accelerator" in nbformat.read(path, as_version=4).metadata) == trains


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
    text = json.dumps([[o.get("text", ""), {**o.get("data", {}), "image/png": ""}] for o in outputs])
    assert "\\r" not in text
    assert f"{ROOT}/" not in text
    assert path.stat().st_size < 1_500_000
    assert "widgets" not in nbformat.read(path, as_version=4).metadata


def test_readme_shows_the_measured_results():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = course.results_table()
    assert course.TABLE_BEGIN + table + course.TABLE_END in readme
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in readme
        assert f"| {path.stem} |" in table
    for figure in re.findall(r"\]\((assets/[^)]+)\)", readme):
        assert (ROOT / figure).is_file()


# ------------------------------------------------------------------------------------------------ Colab


def test_on_colab_only_missing_packages_are_installed():
    requirements = "torch>=2.5\nnumpy\n# a comment\nno-such-package>=1  # why\n"
    assert colab.missing_packages(requirements) == ["no-such-package>=1"]


@pytest.fixture
def setup_cell(tmp_path, monkeypatch) -> str:
    """The set-up cell, with Colab's folder and the course's repository in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = cells(NOTEBOOKS[0], "code")[0].source.replace("/content/", f"{tmp_path}/content/")
    return re.sub(r'address = ".*?"', f'address = "{tmp_path}/repository"', source)


def test_the_set_up_cell_does_nothing_elsewhere(setup_cell, tmp_path):
    exec(setup_cell, {})
    assert not list(tmp_path.iterdir())


def test_on_colab_the_set_up_cell_gets_the_course_once(setup_cell, tmp_path, monkeypatch):
    if not shutil.which("git"):
        pytest.skip("needs git")
    repository = tmp_path / "repository"
    for file in ("tools/colab.py", "requirements.txt", "notebooks/01_coco_mask_prep.ipynb"):
        (repository / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, repository / file)
    branch = re.search(r"--branch=([^\"]+)", setup_cell)[1]
    git = ["git", "-c", "user.name=test", "-c", "user.email=test", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q", "-b", branch], ["add", "."], ["commit", "-q", "-m", "a copy of the course"]):
        subprocess.run([*git, *command], cwd=repository, check=True)
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    for _ in range(2):
        exec(setup_cell, {})
        assert Path.cwd() == tmp_path / "content" / "course" / "notebooks"
        assert sys.path.count(str(tmp_path / "content" / "course")) == 1


def test_on_colab_the_set_up_cell_says_what_to_do_without_an_address(setup_cell, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    without = re.sub(r'address = ".*?"', 'address = ""', setup_cell)
    with pytest.raises(RuntimeError, match="Upload the course to .*/content/course, or set `address`"):
        exec(without, {})


# ------------------------------------------------------------------------------------------------ tools/course.py

GOOD_LESSON = """
import json, os
from pathlib import Path

folder = Path(os.environ["SEGLIB_RUNS"]) / "02_works" / "tiny"
for name in ("last", "best"):
    (folder / "run" / name).mkdir(parents=True)
(folder / "result.json").write_text(json.dumps({"metric": "IoU", "value": 0.25}))
"""


@pytest.fixture
def small_course(tmp_path, monkeypatch) -> Path:
    """A course of three lessons: one fails, one works, one is no notebook."""
    (tmp_path / "notebooks").mkdir()
    for name, source in (("01_breaks", "raise RuntimeError('on purpose')"), ("02_works", GOOD_LESSON)):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
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
