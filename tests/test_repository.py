"""The repository as a whole: imports, names, the address, notebooks, README.md, Colab."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from seglib import lesson
from tests.conftest import ROOT
from tests.helpers.notebooks import NOTEBOOKS, cells, tagged, tags

sys.path.insert(0, str(ROOT / "tools"))
import badges
import colab
import records

MODULES = sorted((ROOT / "seglib").rglob("*.py"))
RECORDS = records.read_records()
CLOSING = "## What was reported, what this run shows, what remains open"

# A module of seglib imports only modules further down this list.
LAYERS = ["lesson", "grid", "train_yolo", "train", "runs", "loading", "config", "predict", "evaluate", "plots"]
LAYERS += ["baselines", "datasets", "models", "losses", "metrics", "transforms", "instances", "masks", "files"]
LAYERS += ["progress"]
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


def test_requirements_are_those_of_the_library_and_of_the_lessons_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()[1:]
    required = [line.split("#")[0].strip() for line in lines]
    assert sorted(required) == sorted([*project["dependencies"], *extras["yolo"], *extras["tensorboard"]])
    assert extras["lessons"][0] == "seglib[yolo,tensorboard]"


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


def each(paths: list[Path]) -> pytest.MarkDecorator:
    """Call a test for each of these notebooks."""
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def is_appendix(path: Path) -> bool:
    return path.name.startswith("a")


def outputs(path: Path) -> list[nbformat.NotebookNode]:
    return [output for cell in cells(path, "code") for output in cell.outputs]


def printed(path: Path) -> str:
    """The text that the outputs of a notebook show."""
    return "\n".join(o.get("text", o.get("data", {}).get("text/plain", "")) for o in outputs(path))


def before_exercises(path: Path) -> list[nbformat.NotebookNode]:
    """The cells of a notebook up to its exercises."""
    first = ["## Exercises" in cell.source for cell in cells(path)].index(True)
    return cells(path)[: first + 1]


def headings(path: Path) -> list[str]:
    return [line for cell in cells(path, "markdown") for line in cell.source.splitlines() if line.startswith("#")]


@each(NOTEBOOKS)
def test_a_notebook_begins_with_the_question_the_set_up_and_the_settings(path):
    code = cells(path, "code")
    assert "**The question.**" in cells(path)[0].source
    assert code[0].source == cells(NOTEBOOKS[0], "code")[0].source  # the set-up cell is the same everywhere
    assert len(code[0].source.splitlines()) <= 14
    assert '# @param ["auto", "tiny", "demo", "full"]' in code[1].source
    assert f'"{path.stem}",\n    PROFILE' in code[1].source


@each(NOTEBOOKS)
def test_the_cells_of_a_notebook_are_short(path):
    for cell in cells(path, "code"):
        lines = cell.source.splitlines()
        assert len(lines) <= 25
        assert max(map(len, lines)) <= 100


@each(NOTEBOOKS)
def test_a_notebook_asks_colab_for_a_gpu_if_it_trains(path):
    sources = [cell.source for cell in cells(path, "code")]
    assert ("accelerator" in nbformat.read(path, as_version=4).metadata) == ("gpu_time=" in sources[1])


@each(NOTEBOOKS)
def test_a_lesson_has_its_parts(path):
    first, second, *_ = cells(path)
    assert second.cell_type == "code"
    assert all(f"`{profile}`" in first.source for profile in records.PROFILES)
    assert "know first" in first.source
    if is_appendix(path):
        return
    assert sum(CLOSING in line for line in headings(path)) == 1
    closing = "\n".join(cell.source for cell in cells(path)).split(CLOSING)[1]  # a table of text or one that code fills
    assert re.search(r"(?m)^\|( *:?-+:? *\|){3,4}$", closing), "the closing table has three columns"
    assert "take away" in " ".join(cell.source for cell in cells(path, "markdown"))
    assert 20 <= len(before_exercises(path)) <= 45


@each(NOTEBOOKS)
def test_the_text_of_a_lesson_is_read_in_ten_minutes(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown")).split("## Exercises")[0]
    text = re.sub(r"(?m)(?s:```.*?```)|\]\([^)]*\)|^\|.*$", " ", text)  # code blocks, addresses and tables
    words = [word for word in text.split() if re.search("[A-Za-z]", word)]
    assert (0 if is_appendix(path) else 600) <= len(words) <= 1400


@each(NOTEBOOKS)
def test_every_setting_has_a_reason_and_every_field_a_label(path):
    lines = cells(path, "code")[1].source.splitlines()
    labels = " ".join(line for line in lines if line.startswith("# @markdown "))
    for before, line in zip(lines, lines[1:], strict=False):
        name = line.strip().split("=")[0].strip()
        if "# @param" in line:
            assert before.startswith("# @markdown ") or f"{name}:" in labels, f"{name} has no label"
        if re.match(r"    \w+=\(", line):
            assert "  # " in line or before.strip().startswith("# "), f"{name} has no reason"


@each(NOTEBOOKS)
def test_the_text_of_a_notebook_is_finished(path):
    assert not [cell.source for cell in cells(path) if re.search("TODO|FIXME|@[A-Z_0-9]+@", cell.source)]


@pytest.mark.parametrize(
    ("name", "experiment"),
    [
        ("02_unet_binary", "unet_stages"),
        ("03_segnet_deeplabv3", "segnet_deeplabv3"),
        ("04_unet_voc", "voc_seeds"),
        ("05_yolov8_buildings", "yolo_seeds"),
        ("06_unet_ablations", "unet_ablations"),
    ],
)
def test_an_experiment_has_the_data_and_the_settings_of_its_lesson(name, experiment):
    record, lesson_record = lesson.results(experiment), RECORDS[name]
    assert record["data"]["fingerprint"] == lesson_record["data"]["fingerprint"]
    same = record["settings"].keys() & lesson_record["settings"].keys() - {"epochs"}
    assert len(same) >= 5
    assert {key: record["settings"][key] for key in same} == {key: lesson_record["settings"][key] for key in same}


@each(NOTEBOOKS)
def test_a_lesson_writes_one_record(path):
    assert sum("lesson.record(" in cell.source for cell in cells(path, "code")) == 1


@each(NOTEBOOKS)
def test_exercises_have_a_stub_a_check_and_a_solution_at_the_end(path):
    kinds = [(tags(cell) or [cell.cell_type])[0] for cell in cells(path)]
    count = kinds.count("exercise")
    assert 2 <= count <= 3
    assert kinds.count("check") == count
    assert all(kinds[i + 1] == "check" for i, kind in enumerate(kinds) if kind == "exercise")
    assert kinds[-count - 1 :] == ["markdown", *["solution"] * count]
    assert kinds.count("solution") == count
    assert "## Exercises" in headings(path)
    assert cells(path)[-count - 1].source.endswith("## Solutions")
    assert re.search(r"(?s)## Exercises.*\*\*Next:.*## Solutions", "\n".join(cell.source for cell in cells(path)))
    for number, cell in enumerate(cells(path)[-count:], 1):
        assert cell.source.startswith(f"# @title Solution {number}\n")
        assert "solution=True" in cell.source
        assert cell.metadata["jupyter"]["source_hidden"]
        assert cell.metadata["cellView"] == "form"


@each(NOTEBOOKS)
def test_a_notebook_is_committed_with_the_outputs_of_one_whole_run(path):
    code = cells(path, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [o for o in outputs(path) if o.output_type == "error" or o.get("name") == "stderr"]
    images = [o for o in outputs(path) if {"image/png", "image/jpeg"} & o.get("data", {}).keys()]
    assert len(images) >= (2 if is_appendix(path) else 3)
    for cell in tagged(path, "solution"):
        assert any("Right!" in o.get("text", "") for o in cell.outputs)
    text = json.dumps(
        [[o.get("text", ""), {**o.get("data", {}), "image/png": "", "image/jpeg": ""}] for o in outputs(path)]
    )
    assert "\\r" not in text
    assert f"{ROOT}/" not in text
    assert path.stat().st_size < 1_500_000
    assert "widgets" not in nbformat.read(path, as_version=4).metadata


@each(NOTEBOOKS)
def test_the_outputs_are_those_of_a_demo_run_with_its_record(path):
    settings = "".join(o.get("text", "") for o in cells(path, "code")[1].outputs)
    assert settings.startswith("Profile demo:")
    assert RECORDS[path.stem]["profile"] == "demo"
    value = RECORDS[path.stem]["value"]
    if value is not None:
        assert f"{value:.3f}" in printed(path)


@each(NOTEBOOKS)
def test_every_network_of_a_lesson_solves_its_task(path):
    record = RECORDS[path.stem]
    trains = "gpu_time=" in cells(path, "code")[1].source
    assert bool(record["networks"]) == (record["value"] is not None) == trains
    for name, network in record["networks"].items():
        better = network["value"] - network["baseline"]
        assert better > network["spread"], f"{name} beats its baseline by {better:.3f}, seeds differ by more"
    if trains:  # the main result is that of a network, with all its numbers
        keys = ("value", "baseline", "spread")
        assert any(all(network[key] == record[key] for key in keys) for network in record["networks"].values())
    for comparison in record["comparisons"].values():
        assert {"metric", "value"} <= comparison.keys()


# ------------------------------------------------------------------------------------------------ README.md


def test_readme_shows_the_measured_results():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = records.results_table()
    assert records.between_marks("measured", table) in readme
    assert records.between_marks("real", records.real_table()) in readme
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in readme
        assert f"| {path.stem} |" in table


def test_readme_shows_pictures_that_are_there_and_small():
    figures = re.findall(r"\]\((assets/[^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert figures
    assert sum((ROOT / figure).stat().st_size for figure in figures) <= 400_000


def test_readme_leads_to_places_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / target).exists(), target
    for count, size in lesson._SAMPLES.values():
        assert re.search(rf"\| {count:,} scenes .*at {size} pixels", readme), f"{count} scenes of {size} pixels"


def test_the_glossary_is_sorted_and_names_each_term_once():
    glossary = (ROOT / "README.md").read_text(encoding="utf-8").split("## Glossary")[1]
    terms = re.findall(r"(?m)^\| ([^|]+) \|", glossary)[2:]
    assert len(terms) > 40
    assert terms == sorted(set(terms), key=str.lower)


# ------------------------------------------------------------------------------------------------ Colab


def test_on_colab_missing_packages_are_installed_and_other_versions_are_said():
    requirements = "torch>=2.5\nnumpy\n# a comment\nno-such-package>=1  # why\npillow>=10,<10.1\n"
    missing, others = colab.compare(requirements)
    assert missing == ["no-such-package>=1"]
    (sentence,) = others
    assert re.fullmatch(r"pillow \S+ is installed, but the course needs <10.1,>=10\.", sentence)


def test_on_colab_nothing_that_is_installed_changes_its_version(monkeypatch):
    pinned = []

    def run(command, **settings):
        pinned.append(Path(command[command.index("--constraint") + 1]).read_text())
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no matching distribution\n")

    monkeypatch.setattr(colab.subprocess, "run", run)
    with pytest.raises(RuntimeError, match=r"tqdm could not be installed \(ERROR: no matching distribution\).*network"):
        colab.install(["tqdm"])
    assert {f"{name}=={version(name)}" for name in ("torch", "numpy", "accelerate")} <= set(pinned[0].splitlines())


@pytest.fixture
def setup_cell(tmp_path, monkeypatch) -> str:
    """The set-up cell, with Colab's folder and the course's repository in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
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
        assert os.environ["PYTHONPATH"].split(os.pathsep).count(str(tmp_path / "content" / "course")) == 1


def test_on_colab_the_set_up_cell_says_what_to_do_without_an_address(setup_cell, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    without = re.sub(r'address = ".*?"', 'address = ""', setup_cell)
    with pytest.raises(RuntimeError, match="Upload the course to .*/content/course, or set `address`"):
        exec(without, {})
