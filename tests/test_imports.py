"""What an import loads: using a part of the library does not load what only other parts need."""

import json
import subprocess
import sys

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
