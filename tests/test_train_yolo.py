"""fit_yolo: training by Ultralytics in a run folder of seglib, offline, in a process of its own."""

import io
import json
import os
import random
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from seglib import runs, train_yolo
from seglib.datasets import YOLOSegmentationDataset, render
from seglib.datasets.yolo import write_data_yaml
from seglib.train_yolo import YOLOConfig, fit_yolo
from tests.helpers.yolo import publish

# Imported by the training process at its start: writes down whom it tries to reach.
SITECUSTOMIZE = """
import os, socket

def refuse(*arguments, **settings):
    with open(os.path.join(os.path.dirname(__file__), "reached.txt"), "a") as file:
        print(*arguments, file=file)
    raise OSError("no network here")

socket.getaddrinfo = socket.gethostbyname = socket.socket.connect = socket.socket.connect_ex = refuse
"""


def make_config(**settings) -> YOLOConfig:
    tiny = {"epochs": 2, "batch_size": 3, "lr": 1e-3, "image_size": 32, "warmup_epochs": 0.0, "mosaic": 0.0}
    return YOLOConfig(**{**tiny, **settings})


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """Six images for training and two for validation."""
    return render("buildings_yolo", 10, 64, root=tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def data(data_dir):
    return YOLOSegmentationDataset(data_dir, "train"), YOLOSegmentationDataset(data_dir, "val")


@pytest.fixture(scope="session")
def walls(tmp_path_factory) -> YOLOSegmentationDataset:
    """Two images that are one object each, which the published network finds, see helpers/yolo.py."""
    folder = tmp_path_factory.mktemp("walls")
    write_data_yaml(folder, ["building"], "val")
    (folder / "valid/labels").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    for number in range(2):
        Image.fromarray(noise[number]).save(folder / f"valid/images/{number}.png")
        (folder / f"valid/labels/{number}.txt").write_text("0 0 0 1 0 1 1 0 1\n")
    return YOLOSegmentationDataset(folder, "val")


def process_state() -> str:
    generators = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()
    return repr((dict(os.environ), generators, torch.get_num_threads(), np.get_printoptions(), torch.save, Image.open))


def contents(folder: Path) -> dict:
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


@pytest.fixture(scope="session")
def finished(data_dir, walls, tmp_path_factory):
    """A run of two epochs, and what can be seen of it from outside.

    It hardly changes a network that finds an object on every image. It trains on five images, two at a time, in a
    folder with an apostrophe, for whose checkpoints Ultralytics searches the Internet. A line of the labels is broken,
    and a JPEG file has no end marker: Ultralytics by itself rewrites it.
    """
    folder = tmp_path_factory.mktemp("o'brien")
    shutil.copytree(data_dir, folder / "data")
    image = sorted((folder / "data/train/images").iterdir())[0]
    image.write_bytes(image.read_bytes() + b"\0")
    label = next(path for path in sorted((folder / "data/train/labels").iterdir()) if path.read_text())
    label.write_text(f"{label.read_text()}0 0.5 0.5 0.1 0.1\n")
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(SITECUSTOMIZE)
    before = contents(folder / "data")
    with pytest.warns(UserWarning, match="skipped 1"):
        train = Subset(YOLOSegmentationDataset(folder / "data", "train", on_error="skip"), range(5))
    publish(folder / "home/hub/checkpoints/yolov8n-seg.pt")
    settings = {"batch_size": 2, "accumulate": 2, "lr": np.float64(1e-7), "image_size": 64, "weights": "coco"}
    config = make_config(**settings, mirror=folder / "mirror")
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
        patch.setenv("TORCH_HOME", f"{folder}/home")
        patch.syspath_prepend(folder / "site")
        state = process_state()
        run = fit_yolo(train, walls, config, folder / "run")
        is_unchanged = process_state() == state and contents(folder / "data") == before
    return SimpleNamespace(
        run=run, data=(train, walls), config=config, folder=folder, output=output.getvalue(), is_unchanged=is_unchanged
    )


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(train_yolo, "_run_in_child", lambda *arguments: pytest.fail("trained"))


# ------------------------------------------------------------------------------------------------ a run


def test_a_run_folder_holds_what_every_run_folder_holds(finished):
    run = finished.run
    for name in ("config.json", "history.csv", "best_model.pth", "last/checkpoint.pth", "loss.png", "ap.png"):
        assert (run.dir / name).is_file(), name
    assert run.finished and [row["epoch"] for row in run.history] == [1, 2]
    assert runs.read_run(run.dir).history == run.history
    model = run.model()
    assert not model.training and model.class_names == ["background", "building"] and model.image_size == (64, 64)
    assert all(f"epoch {number}/2" in finished.output for number in (1, 2))


def test_it_reaches_nobody_and_leaves_data_and_process_as_they_were(finished):
    reached = (finished.folder / "site/reached.txt").read_text().splitlines()
    assert reached and all("127.0.0.1" in line for line in reached)
    settings = json.loads((finished.run.dir / "ultralytics/settings/Ultralytics/settings.json").read_text())
    assert settings["sync"] is False and settings["mlflow"] is False
    assert finished.is_unchanged
    assert {path.name for path in finished.folder.iterdir()} == {"data", "home", "site", "mirror", "run"}


def test_images_are_links_labels_are_valid_lines_and_no_batch_has_one_image(finished):
    written = finished.run.dir / "ultralytics/data/train"
    images = sorted((written / "images").iterdir())
    source, indices = finished.data[0].dataset, [*range(5), 0]
    # Ultralytics gave the link of the image without an end marker another file.
    assert [path.resolve() for path in images[1:5]] == [source.image_path(i).resolve() for i in indices[1:5]]
    assert len(images) == 6
    for image, index in zip(images, indices, strict=True):
        assert (written / f"labels/{image.stem}.txt").read_text().splitlines() == source.lines(index)


def test_the_optimizer_takes_a_step_after_accumulate_batches(finished):
    """Ultralytics by itself accumulates 64 images. Its checkpoint counts the steps."""
    state = torch.load(finished.run.dir / "last/checkpoint.pth", weights_only=True)
    checkpoint = torch.load(io.BytesIO(state["ultralytics"].numpy().tobytes()), weights_only=False)
    assert checkpoint["updates"] == 3  # of six batches


# ------------------------------------------------------------------------------------------------ resume


def test_an_interrupted_run_resumes_after_its_last_epoch(data, tmp_path, monkeypatch, capsys):
    class Output(io.StringIO):
        def write(self, text: str) -> int:
            if text.startswith("epoch 1"):
                raise KeyboardInterrupt
            return len(text)

    children = []
    start = train_yolo.Popen
    with monkeypatch.context() as patch, redirect_stdout(Output()), pytest.raises(KeyboardInterrupt):
        patch.setattr(train_yolo, "Popen", lambda *a, **k: children.append(start(*a, **k)) or children[-1])
        fit_yolo(*data, make_config(epochs=4), tmp_path)
    assert children[0].wait(timeout=20) is not None
    # What a killed process may leave: an epoch in results.csv without a checkpoint, and half a file.
    with (tmp_path / "ultralytics/results.csv").open("a") as file:
        file.write("2,99.9,1,")
    (tmp_path / "ultralytics/weights/last.pt").write_bytes(b"half of it")
    before = runs.read_checkpoint(tmp_path / runs.LAST)["history"]
    run = fit_yolo(*data, make_config(epochs=4), tmp_path)
    assert f"Resuming after epoch {len(before)}." in capsys.readouterr().out
    assert (
        run.finished
        and [row["epoch"] for row in run.history] == list(range(1, 5))
        and run.history[: len(before)] == before
    )


def test_a_finished_run_is_returned_and_other_settings_are_refused(finished, no_training, capsys):
    train, val = finished.data
    again = fit_yolo(train, val, finished.config, finished.run.dir)
    assert again.history == finished.run.history and "nothing to train" in capsys.readouterr().out
    with pytest.raises(runs.OtherSettings, match="accumulate: 2 then, 1 now"):
        fit_yolo(train, val, replace(finished.config, accumulate=1), finished.run.dir)
    with pytest.raises(runs.OtherSettings, match=r"train_data\.samples: 5 then, 4 now"):
        fit_yolo(Subset(train, range(4)), val, finished.config, finished.run.dir)


def test_a_run_is_restored_from_its_mirror(finished, tmp_path, no_training):
    again = fit_yolo(*finished.data, finished.config, tmp_path / "run")
    assert again.finished and again.history == finished.run.history


# ------------------------------------------------------------------------------------------------ errors


def test_a_loss_that_is_not_finite_stops_the_run(data, tmp_path):
    """Ultralytics by itself would return to its last checkpoint."""
    with pytest.raises(FloatingPointError, match="in epoch 1"):
        fit_yolo(*data, make_config(others={"cls": 1e39}), tmp_path)


def test_images_that_ultralytics_cannot_use_are_named(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "data")
    image = sorted((tmp_path / "data/train/images").iterdir())[0]
    Image.new("RGB", (8, 8)).save(image)  # Ultralytics ignores images of fewer than 10 pixels
    train, val = (YOLOSegmentationDataset(tmp_path / "data", part) for part in ("train", "val"))
    with pytest.raises(ValueError, match=f"cannot use .*{image.name}"):
        fit_yolo(train, val, make_config(), tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 100}, "multiple of 32"),
        ({"batch_size": 1}, "batch norm"),
        ({"lr": 0}, "lr must be"),
        ({"accumulate": 0}, "accumulate"),
        ({"model": "yolo99"}, "model must be one of"),
        ({"weights": "imagenet"}, "weights must be one of"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(**settings)


def test_wrong_data_is_refused(data, tmp_path):
    train, val = data
    with pytest.raises(TypeError, match="needs a YOLOSegmentationDataset .* not list"):
        fit_yolo([1, 2], val, make_config(), tmp_path)
    with pytest.raises(ValueError, match="no object on 0 images"):
        fit_yolo(Subset(train, []), val, make_config(), tmp_path)


def test_a_batch_size_that_ultralytics_halved_ends_the_run(tmp_path):
    """Ultralytics halves it when memory runs out in the first epoch, which is another experiment."""
    training = train_yolo._Training(runs.Run(tmp_path), make_config(batch_size=4), None, {})
    with pytest.raises(torch.OutOfMemoryError, match="epoch 1"):
        training.on_train_batch_end(SimpleNamespace(batch_size=2, epoch=0))
