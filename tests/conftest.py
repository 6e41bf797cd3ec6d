"""What the tests share: the bundled sample, the real photographs where they are at hand, little files to break."""

import json
import os
import socket
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the tests count on a CPU's arithmetic: bit for bit, no mixed precision

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)  # nets this small gain nothing from a second thread, and lose much where a core is busy

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    """A variable set in the shell that runs the tests must not decide what they see."""
    for name in [name for name in os.environ if name.startswith("SEGLIB_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _sketched_curves():
    """Let fit only sketch its curves: see `drawn_curves`."""
    with pytest.MonkeyPatch.context() as patch:
        if "seglib.train" in sys.modules:  # no test will train otherwise
            from tests.helpers.discs import Sketches

            patch.setattr("seglib.train.plots", Sketches)
        yield


@pytest.fixture
def drawn_curves(monkeypatch):
    """Let fit draw its curves, as it does outside of tests."""
    from seglib import plots

    monkeypatch.setattr("seglib.train.plots", plots)


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """The bundled COCO sample, as the tiny profile renders it."""
    from seglib.datasets import render

    return render("coco", images=80, size=160, root=tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def real_coco() -> Path:
    """Real COCO photographs, which a stranger's clone does not have."""
    if not (REAL / "coco" / "annotations").is_dir():
        pytest.skip("needs the real photographs of ../shared/data/coco")
    return REAL / "coco"


class Tiny:
    """A COCO data set of two 8x10 photographs to break on purpose: change `.content`, then call `.open`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "instances.json"
        self.images = folder / "images"
        self.images.mkdir()
        for number in (1, 2):
            Image.fromarray(np.full((8, 10, 3), 60 * number, np.uint8)).save(self.images / f"{number}.png")
        square = [1, 1, 5, 1, 5, 5, 1, 5]
        self.content = {
            "images": [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 10} for n in (1, 2)],
            "annotations": [
                {"id": 11, "image_id": 1, "category_id": 3, "segmentation": [square], "iscrowd": 0, "area": 16},
                {"id": 12, "image_id": 2, "category_id": 7, "segmentation": [square], "iscrowd": 0, "area": 16},
            ],
            "categories": [{"id": 3, "name": "cup"}, {"id": 7, "name": "hat"}],
        }

    def open(self, **settings):
        from seglib.datasets import COCOSegmentationDataset

        self.file.write_text(json.dumps(self.content))
        return COCOSegmentationDataset(self.images, self.file, **settings)


@pytest.fixture
def tiny(tmp_path) -> Tiny:
    return Tiny(tmp_path)


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine, see server.py; while it is there, no other machine can be reached."""
    from tests.helpers.server import Server

    def only_here(host, *args, **kwargs):
        assert host == "127.0.0.1", f"a test wants to reach {host}"
        return look_up(host, *args, **kwargs)

    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with Server() as server:
        yield server


def pytest_terminal_summary(terminalreporter):
    """Say what was done to the downloads by the local web server, and to trainings by faults/."""
    performed = sys.modules["server"].PERFORMED if "server" in sys.modules else {}
    if performed:
        listed = ", ".join(f"{name} {count}" for name, count in performed.most_common())
        terminalreporter.write_line(f"local server: {performed.total()} faults performed ({listed})")
    if "victims" in sys.modules:
        tried, survived = sys.modules["victims"].TRIED, sys.modules["victims"].SURVIVED
        listed = ", ".join(f"{name} {survived[name]} of {count}" for name, count in tried.most_common())
        terminalreporter.write_line(f"training: {survived.total()} of {tried.total()} faults survived ({listed})")
