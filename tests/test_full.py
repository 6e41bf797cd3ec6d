"""The lessons in `full`, on little data sets that a local server pretends to be the publishers of."""

import json
import random
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers import miniature

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

# Runs before a lesson's own cells: the cards speak of the local server, and the numbers of `full` become smaller.
PRELUDE = """
import json, sys
sys.path.insert(0, {tests!r})
from tests.helpers import miniature
from seglib import lesson
from seglib.datasets import download
miniature.install({address!r}, json.loads({known!r}))
download.WAIT = download.LONGEST_WAIT = 0.01
full_settings = lesson.settings

def reduced_settings(name, choice="auto", **numbers):
    smaller = {{key: (tiny, demo, 1 if key.startswith("epochs") else tiny) for key, (tiny, demo, _) in numbers.items()}}
    fewer = {{"photos": (0, 0, 12), "train_images": (0, 0, 10), "crop": (0, 0, 32)}}
    fewer |= {{"epochs_long": (0, 0, 2), "rates": ((), (), (1e-3,))}}
    if "epochs_weighted" in numbers:  # three trainings, two of them of DeepLabV3
        fewer |= {{"train_images": (0, 0, 8), "image_size": (0, 0, 32)}}
    return full_settings(name, choice, **smaller | {{key: fewer[key] for key in fewer if key in numbers}})

lesson.settings = reduced_settings
"""
FORMS: dict[str, str] = {}  # what a test fills into the forms of a settings cell


def run_in_full(name: str, server, known: dict, tmp_path, monkeypatch) -> tuple[str, dict]:
    """Run a lesson in `full` on what the server has: all that it printed, and its result."""
    settings = {"tests": str(Path(__file__).parent), "address": server.url(""), "known": json.dumps(known)}
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        for before, after in FORMS.items():
            cell.source = cell.source.replace(before, after)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(PRELUDE.format(**settings)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for the kernel, as conftest.py has it for the tests
    for variable, value in (("PROFILE", "full"), ("HOME", tmp_path / "home"), ("RUNS", tmp_path / "runs")):
        monkeypatch.setenv(f"SEGLIB_{variable}", str(value))
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}).execute()
    said = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    return said, json.loads((tmp_path / "runs" / name / "full" / "result.json").read_text())


@pytest.mark.parametrize("name", ["01_coco_mask_prep", "02_unet_binary", "03_segnet_deeplabv3"])
def test_a_lesson_runs_in_full_on_what_was_downloaded(server, sample, tmp_path, monkeypatch, name):
    coco = miniature.coco(sample)
    for file, content in {**coco.archives, **coco.photographs}.items():
        server.files[f"/official/{file}"] = content
    server.chaos(random.Random(name), share=0.2)
    known = miniature.facts({card: coco for card in ("coco", "coco_four")})
    said, result = run_in_full(name, server, known, tmp_path, monkeypatch)
    folder = next((tmp_path / "home").glob("coco-*-12-*"))
    assert f"COCO 2017, four categories in {folder}" in said and "bundled sample" not in said
    assert result["profile"] == "full"
    photographs = {request.path for request in server.requests if request.path.endswith(".jpg")}
    assert 20 <= len(photographs) == len(list((folder / "images").rglob("*.jpg")))


def test_lesson_04_runs_in_full_on_voc_with_sbd_as_they_were_downloaded(server, tmp_path, monkeypatch):
    archives = {"voc2012": miniature.voc(), "voc2012_sbd": miniature.sbd()}
    for one in archives.values():
        for file, content in one.archives.items():
            server.files[f"/official/{file}"] = content
    monkeypatch.setitem(FORMS, "SBD = False", "SBD = True")
    said, result = run_in_full("04_unet_voc", server, miniature.facts(archives), tmp_path, monkeypatch)
    assert "with SBD's masks in" in said and "images in two parts: 0" in said and "bundled sample" not in said
    assert "10 images to train on, 4 to choose with, 4 to test" in said  # a quarter of VOC's 8 and SBD's 6 validates
    assert result["profile"] == "full" and "2 of 2 cells finished" in said


def test_lesson_05_runs_in_full_on_what_was_downloaded(server, sample, tmp_path, monkeypatch):
    buildings = miniature.buildings()
    for file, content in buildings.archives.items():
        server.files[f"/official/{file}"] = content
    known = miniature.facts({"buildings_yolo": buildings})
    monkeypatch.setitem(FORMS, 'settings.profile == "tiny"', "True")  # a whole Mask R-CNN at 800 pixels takes minutes
    said, result = run_in_full("05_yolov8_buildings", server, known, tmp_path, monkeypatch)
    assert "Buildings in aerial images" in said and "train     5 images" in said
    assert 0 <= result["value"] <= 1 and result["profile"] == "full"
