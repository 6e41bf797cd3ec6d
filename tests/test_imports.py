"""What an import loads: using a part of the library does not load what only other parts need."""

import json
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ROOT

# Each statement, and the modules that must not be loaded after it and those before it.
STATEMENTS = {
    "import seglib": "torch numpy",
    "import seglib.masks, seglib.files": "torch cv2 scipy albumentations matplotlib requests",
    "from seglib.datasets import COCOSegmentationDataset": (
        "cv2 scipy.io albumentations matplotlib requests seglib.datasets.download seglib.datasets.sample"
    ),
    "import seglib.models": "cv2 torchvision.models.detection segmentation_models_pytorch timm matplotlib requests",
    "import seglib.plots": "matplotlib.pyplot cv2",
    "import seglib.predict": (
        "accelerate tensorboard requests matplotlib torchvision.models.detection "
        "seglib.train seglib.loading seglib.runs seglib.config seglib.datasets.download"
    ),
    "import seglib.lesson, seglib.train_yolo": "ultralytics",
}


def test_an_import_loads_only_what_it_needs():
    """One process imports the modules in this order and looks at sys.modules after each."""
    program = (
        "import json, sys\n"
        "found = {}\n"
        "for statement, modules in json.loads(sys.argv[1]).items():\n"
        "    exec(statement)\n"
        "    found[statement] = [name for name in modules.split() if name in sys.modules]\n"
        "print(json.dumps(found))\n"
    )
    command = [sys.executable, "-c", program, json.dumps(STATEMENTS)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(output.splitlines()[-1]) == {statement: [] for statement in STATEMENTS}


def test_without_the_extras_everything_is_imported_and_what_is_missing_is_named():
    """One process in which no extra can be imported."""
    program = """
import importlib, pkgutil
from importlib.machinery import PathFinder

EXTRAS = {"ultralytics", "tensorboard", "wandb", "rasterio"}
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in EXTRAS else find(name, *rest)
import seglib
for module in pkgutil.walk_packages(seglib.__path__, "seglib."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from seglib.models import build_model
from seglib.train import TrainConfig
print(TrainConfig(epochs=1, batch_size=1, lr=1).trackers)
try:
    build_model("yolov8n-seg", classes=2)
except ImportError as error:
    print(error)
"""
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "()" in output and "pip install 'seglib[yolo]'" in output


def test_the_command_seglib_runs_its_commands(capsys):
    from seglib.__main__ import main

    assert main(["datasets", "list"]) == 0 and "camvid" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["predict", "--help"])
    assert main(["train"]) == 2 and "seglib predict --help" in capsys.readouterr().out
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"seglib": f"{main.__module__}:{main.__name__}"}
