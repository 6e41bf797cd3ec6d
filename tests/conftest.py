"""Fixtures that the tests share: the sample, real photographs, a small annotation file, a local web server."""

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# Set before torch and matplotlib are imported. No test depends on the machine, its user or their settings.
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # results are compared bit for bit, which only a CPU can promise
os.environ["TZ"] = "UTC"
os.environ["LC_ALL"] = "C.UTF-8"
time.tzset()
os.umask(0o022)
if not os.access(Path.home(), os.W_OK):  # caches of matplotlib, torch and Jupyter go to the home folder
    HOME = tempfile.TemporaryDirectory()
    os.environ["HOME"] = HOME.name

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

torch.set_num_threads(1)  # a second thread does not help networks this small
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)  # the same examples every time
settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --kills, which chooses at how many points tests/faults/test_kills.py kills a training."""
    parser.addoption("--kills", choices=["some", "all"], default="some", help="points at which trainings are killed")


@pytest.fixture(autouse=True)
def _no_settings_from_the_shell(monkeypatch):
    """Remove the SEGLIB_ variables of the shell that runs the tests."""
    for name in [name for name in os.environ if name.startswith("SEGLIB_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _empty_curves():
    """Let a run write empty files as its curves, because drawing takes longer than training a tiny model.

    The value is the method that draws; see `drawn_curves`.
    """
    if "seglib.runs" not in sys.modules:  # none of these tests trains
        yield None
        return
    from seglib.runs import Run

    def write_empty_curves(run, metrics, file_name="miou.png"):
        for name in ("loss.png", file_name):
            (run.dir / name).write_bytes(b"")

    save_curves = Run.save_curves
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save_curves", write_empty_curves)
        yield save_curves


@pytest.fixture
def drawn_curves(monkeypatch, _empty_curves):
    """Let a run draw its curves, as it does outside of tests."""
    monkeypatch.setattr("seglib.runs.Run.save_curves", _empty_curves)


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """The bundled COCO sample, as the tiny profile renders it."""
    from seglib.datasets import render

    return render("coco", images=80, size=160, root=tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def real_coco() -> Path:
    """Real COCO photographs, which are not part of the repository."""
    if not (REAL / "coco" / "annotations").is_dir():
        pytest.skip("needs the real photographs of ../shared/data/coco")
    return REAL / "coco"


class Tiny:
    """A COCO data set of two 8x10 images. Change `.content` to break it, then call `.open`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "instances.json"
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
        """Write the annotation file and return the data set that reads it."""
        from seglib.datasets import COCOSegmentationDataset

        self.file.write_text(json.dumps(self.content), encoding="utf-8")
        return COCOSegmentationDataset(self.images, self.file, **settings)


@pytest.fixture
def tiny(tmp_path) -> Tiny:
    return Tiny(tmp_path)


@pytest.fixture
def server(monkeypatch) -> Iterator:
    """A web server on this machine, see helpers/server.py. While it runs, no other machine can be reached."""
    from tests.helpers.server import Server

    look_up = socket.getaddrinfo

    def look_up_local(host, *args, **kwargs):
        assert host == "127.0.0.1", f"a test tries to reach {host}"
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_local)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with Server() as server:
        yield server


def pytest_terminal_summary(terminalreporter):
    """Report which faults the local web server produced."""
    server = sys.modules.get("tests.helpers.server")
    if server and server.PERFORMED:
        counts = ", ".join(f"{name} {count}" for name, count in server.PERFORMED.most_common())
        terminalreporter.write_line(f"local server: {server.PERFORMED.total()} faults performed ({counts})")
