"""The lessons in the `full` profile, on miniatures of the data sets that a local server publishes."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT
from tests.helpers import miniature

# Runs before the cells of a lesson: the cards describe the miniatures, and the numbers of `full` become small.
PRELUDE = """
import sys
sys.path.insert(0, {root!r})
from tests.helpers import miniature
miniature.install({address!r}, {descriptions!r})
from seglib import lesson
from seglib.models import smp
smp.DEFAULT_ENCODERS["deeplabv3"] = "resnet18"
full_settings = lesson.settings

def small_settings(name, choice="auto", gpu_time="", anyway=False, **numbers):
    smaller = {smaller!r}
    small = {{key: (tiny, demo, smaller.get(key, tiny)) for key, (tiny, demo, _) in numbers.items()}}
    return full_settings(name, choice, gpu_time=gpu_time, anyway=True, **small)

lesson.settings = small_settings
"""
SMALLER = {
    "photos": 4,
    "train_images": 4,
    "image_size": 32,
    "crop": 32,
    "rates": (1e-3,),
    "batches": (4,),
    "epochs": 1,
    "epochs_a": 1,
    "epochs_b": 1,
    "epochs_long": 2,
    "epochs_split": 1,
    "live": 12,
    "live_seeds": (0,),
    "val_images": 4,
    "test_images": 4,
}


def run_in_full(name: str, server, data: dict[str, miniature.Miniature], folder: Path, monkeypatch) -> str:
    """Run a lesson in `full` on what the server publishes, and return all that it printed."""
    for each in data.values():
        for file, content in {**each.archives, **each.photographs}.items():
            server.files[f"/official/{file}"] = content
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    descriptions = miniature.describe(data)
    prelude = PRELUDE.format(root=str(ROOT), address=server.url(""), descriptions=descriptions, smaller=SMALLER)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(prelude))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for variable, value in (("PROFILE", "full"), ("HOME", folder / "home"), ("RUNS", folder / "runs")):
        monkeypatch.setenv(f"SEGLIB_{variable}", str(value))
    resources = {"metadata": {"path": ROOT / "notebooks"}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    result = json.loads((folder / "runs" / name / "full" / "result.json").read_text(encoding="utf-8"))
    assert result["profile"] == "full"
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "bundled sample" not in printed
    return printed


@pytest.mark.parametrize("name", ["02_unet_binary", "03_segnet_deeplabv3"])
def test_a_lesson_on_coco_runs_in_full(server, sample, tmp_path, monkeypatch, name):
    coco = miniature.coco(sample)
    printed = run_in_full(name, server, {"coco": coco, "coco_four": coco}, tmp_path, monkeypatch)
    assert "COCO 2017, four categories in" in printed


def test_the_lesson_on_voc_runs_in_full(server, tmp_path, monkeypatch):
    printed = run_in_full("04_unet_voc", server, {"voc2012": miniature.voc()}, tmp_path, monkeypatch)
    assert "4 training, 2 validation and 4 test images" in printed


def test_the_lesson_on_buildings_runs_in_full(server, tmp_path, monkeypatch):
    printed = run_in_full(
        "05_yolov8_buildings", server, {"buildings_yolo": miniature.buildings()}, tmp_path, monkeypatch
    )
    assert "Buildings in aerial images in" in printed


def test_the_lesson_on_nuclei_runs_in_full(server, tmp_path, monkeypatch):
    printed = run_in_full("06_unet_ablations", server, {"dsb2018": miniature.nuclei()}, tmp_path, monkeypatch)
    assert "Nuclei of the 2018 Data Science Bowl in" in printed
