"""The lessons in `full`, on little data sets that a local server pretends to be the publishers of."""

import json
import random
from pathlib import Path

import miniature
import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

# Runs before a lesson's own cells: the cards speak of the local server, and the numbers of `full` become smaller.
PRELUDE = """
import json, sys
sys.path.insert(0, {tests!r})
import miniature
from seglib import lesson
from seglib.datasets import download
miniature.install({address!r}, json.loads({known!r}))
download.WAIT = download.LONGEST_WAIT = 0.01
full_settings = lesson.settings

def reduced_settings(name, choice="auto", **numbers):
    smaller = {{key: (tiny, demo, 2 if key.startswith("epochs") else tiny) for key, (tiny, demo, _) in numbers.items()}}
    return full_settings(name, choice, **smaller | {{"photos": (0, 0, 12)}})

lesson.settings = reduced_settings
"""


@pytest.mark.parametrize("name", ["01_coco_mask_prep", "02_unet_binary", "03_segnet_deeplabv3"])
def test_a_lesson_runs_in_full_on_what_was_downloaded(server, sample, tmp_path, monkeypatch, name):
    coco = miniature.coco(sample)
    for file, content in {**coco.archives, **coco.photographs}.items():
        server.files[f"/official/{file}"] = content
    server.chaos(random.Random(name), share=0.2)
    known = miniature.facts({card: coco for card in ("coco", "coco_four")})
    settings = {"tests": str(Path(__file__).parent), "address": server.url(""), "known": json.dumps(known)}
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(PRELUDE.format(**settings)))
    for variable, value in (("PROFILE", "full"), ("HOME", tmp_path / "home"), ("RUNS", tmp_path / "runs")):
        monkeypatch.setenv(f"SEGLIB_{variable}", str(value))
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}).execute()
    said = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    folder = next((tmp_path / "home").glob("coco-*-12-*"))
    assert f"COCO 2017, four categories in {folder}" in said and "bundled sample" not in said
    assert json.loads((tmp_path / "runs" / name / "full" / "result.json").read_text())["profile"] == "full"
    photographs = {request.path for request in server.requests if request.path.endswith(".jpg")}
    assert 20 <= len(photographs) == len(list((folder / "images").rglob("*.jpg")))
