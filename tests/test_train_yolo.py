"""fit_yolo: training by Ultralytics in a run folder of seglib, offline, with nothing written next to the data."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from seglib import runs, train_yolo
from seglib.datasets import YOLOSegmentationDataset, render
from seglib.train_yolo import YOLOConfig, fit_yolo
from tests.conftest import ROOT


def make_config(**settings) -> YOLOConfig:
    tiny = {"epochs": 1, "batch_size": 2, "lr": 1e-3, "image_size": 32, "warmup_epochs": 0.0, "mosaic": 0.0}
    return YOLOConfig(**{**tiny, **settings})


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """Six images for training and two for validation."""
    return render("buildings_yolo", 10, 64, root=tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def data(data_dir):
    return YOLOSegmentationDataset(data_dir, "train"), YOLOSegmentationDataset(data_dir, "val")


@pytest.fixture(scope="session")
def finished(data, tmp_path_factory):
    return fit_yolo(*data, make_config(epochs=2), tmp_path_factory.mktemp("run") / "run")


def best_weights(run: runs.Run) -> dict[str, torch.Tensor]:
    return torch.load(run.dir / "best_model.pth", weights_only=True)["model"]


def without_time(run: runs.Run) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in run.history]


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(train_yolo, "_make_trainer", lambda *arguments: pytest.fail("trained"))


# ------------------------------------------------------------------------------------------------ a run


def test_a_run_folder_holds_what_every_run_folder_holds(finished):
    for name in ("config.json", "history.csv", "best_model.pth", "last/checkpoint.pth", "loss.png", "ap.png"):
        assert (finished.dir / name).is_file(), name
    assert finished.finished and [row["epoch"] for row in finished.history] == [1, 2]
    assert runs.read_run(finished.dir).history == finished.history
    assert finished.best["val_ap"] == max(finished.column("val_ap"))
    model = finished.model()
    assert not model.training and model.class_names == ["background", "building"] and model.image_size == (32, 32)


def test_the_history_holds_the_numbers_of_results_csv(finished):
    with (finished.dir / "ultralytics/results.csv").open(encoding="utf-8") as file:
        rows = [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    for row, ours in zip(rows, finished.history, strict=True):
        for split in ("train", "val"):
            parts = [value for key, value in row.items() if key.startswith(f"{split}/")]
            assert len(parts) >= 4 and ours[f"{split}_loss"] == pytest.approx(sum(parts))
        assert ours["val_ap"] == row["metrics/mAP50-95(M)"] and ours["val_box_ap50"] == row["metrics/mAP50(B)"]
    assert sum(finished.column("seconds")) == pytest.approx(rows[-1]["time"])


def test_the_same_training_gives_the_same_weights(finished, data, tmp_path):
    again = fit_yolo(*data, make_config(epochs=2), tmp_path / "run")
    expected = best_weights(finished)
    assert without_time(again) == without_time(finished)
    assert all(torch.equal(value, expected[key]) for key, value in best_weights(again).items())


def test_the_optimizer_takes_a_step_after_every_batch(data, tmp_path, monkeypatch):
    """Ultralytics by itself accumulates 64 images."""
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a, **k: (steps.append(1), step(self, *a, **k))[1])
    fit_yolo(*data, make_config(batch_size=3), tmp_path / "run")
    assert len(steps) == 2


def test_early_stopping_ends_a_run(data, tmp_path, monkeypatch):
    from ultralytics.models.yolo.segment import SegmentationTrainer

    scores = iter((0.5, 0.4, 0.3))
    validate = SegmentationTrainer.validate
    monkeypatch.setattr(
        SegmentationTrainer, "validate", lambda self: ({**validate(self)[0], "metrics/mAP50-95(M)": next(scores)}, 0)
    )
    run = fit_yolo(*data, make_config(epochs=9, patience=2), tmp_path / "run")
    assert run.finished and run.column("val_ap") == [0.5, 0.4, 0.3] and run.best["epoch"] == 1


# ------------------------------------------------------------------------------------------------ resume


def test_an_interrupted_run_resumes_after_its_last_epoch(data, tmp_path, monkeypatch, capsys):
    """An apostrophe in a path is enough for Ultralytics to search for a checkpoint on the Internet."""
    folder = tmp_path / "o'brien"
    save = train_yolo.save_checkpoint

    def interrupt(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_yolo, "save_checkpoint", interrupt)
        fit_yolo(*data, make_config(epochs=2), folder)
    # What a killed process may leave: an epoch in results.csv without a checkpoint, and half a file.
    with (folder / "ultralytics/results.csv").open("a") as file:
        file.write("2,99.9,1,")
    (folder / "ultralytics/weights/last.pt").write_bytes(b"half of it")
    run = fit_yolo(*data, make_config(epochs=2), folder)
    output = capsys.readouterr().out
    assert "Stopped. The same call resumes after epoch 1" in output and "Resuming after epoch 1" in output
    assert run.finished and [row["epoch"] for row in run.history] == [1, 2]
    assert all(seconds > 0 for seconds in run.column("seconds"))


def test_a_finished_run_is_returned_and_other_settings_are_refused(data, finished, no_training, capsys):
    train, val = data
    again = fit_yolo(train, val, make_config(epochs=2), finished.dir)
    assert again.history == finished.history and "nothing to train" in capsys.readouterr().out
    with pytest.raises(runs.OtherSettings, match=r"yolo.lr"):
        fit_yolo(train, val, make_config(epochs=2, lr=0.01), finished.dir)
    with pytest.raises(runs.OtherSettings, match=r"train_data.samples"):
        fit_yolo(Subset(train, range(4)), val, make_config(epochs=2), finished.dir)


def test_a_run_is_restored_from_its_mirror(data, tmp_path, monkeypatch):
    config = make_config(mirror=tmp_path / "mirror")
    run = fit_yolo(*data, config, tmp_path / "run")
    shutil.rmtree(run.dir)
    monkeypatch.setattr(train_yolo, "_make_trainer", lambda *arguments: pytest.fail("trained"))
    again = fit_yolo(*data, config, tmp_path / "run")
    assert again.finished and again.history == run.history and again.model().image_size == (32, 32)


# ------------------------------------------------------------------------------------------------ errors


def return_nan(loss):
    return loss[0] * float("nan"), loss[1]


def use_up_memory(loss):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (return_nan, FloatingPointError, r"in epoch 1; images of that step: .*tile_"),
        (use_up_memory, torch.OutOfMemoryError, "CUDA"),
    ],
)
def test_a_loss_that_is_not_finite_or_needs_too_much_memory_stops_the_run(
    change, error, message, data, tmp_path, monkeypatch
):
    """Ultralytics by itself would return to its last checkpoint, or halve the batch size."""
    from ultralytics.nn.tasks import SegmentationModel

    calls = []
    loss = SegmentationModel.loss
    monkeypatch.setattr(SegmentationModel, "loss", lambda self, *args: (calls.append(1), change(loss(self, *args)))[1])
    with pytest.raises(error, match=message):
        fit_yolo(*data, make_config(), tmp_path / "run")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 100}, "multiple of 32"),
        ({"batch_size": 1}, "batch norm"),
        ({"lr": 0}, "lr must be above 0"),
        ({"epochs": 0}, "integers above 0"),
        ({"model": "yolo99"}, "model must be one of"),
        ({"others": {"lr0": 1}}, "must not set lr0"),
        ({"others": {"save": False}}, "must not set save"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(**settings)


def test_wrong_data_is_refused(data, data_dir, tmp_path):
    train, val = data
    with pytest.raises(TypeError, match="pass a YOLOSegmentationDataset, not list"):
        fit_yolo([1, 2], val, make_config(), tmp_path / "run")
    with pytest.raises(ValueError, match="train_data has no images"):
        fit_yolo(Subset(train, []), val, make_config(), tmp_path / "run")
    with pytest.raises(ValueError, match="no setting nosuch"):
        fit_yolo(train, val, make_config(others={"nosuch": 1}), tmp_path / "run")
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    image = sorted((folder / "train/images").iterdir())[0]
    Image.new("RGB", (8, 8)).save(image)  # Ultralytics ignores images of fewer than 10 pixels
    with pytest.raises(ValueError, match=f"cannot use 1 images .*{image.name}"):
        fit_yolo(YOLOSegmentationDataset(folder, "train"), val, make_config(batch_size=3), tmp_path / "run")


def test_some_gpus_train_in_full_precision():
    names = ("NVIDIA GeForce GTX 1660 Ti", "NVIDIA T1000", "NVIDIA T550", "Tesla T4", "NVIDIA GeForce RTX 2060")
    assert [train_yolo._fp16_is_unreliable(name) for name in names] == [True, True, True, False, False]


# ------------------------------------------------------------------------------------------------ data and process


def test_images_are_links_labels_are_valid_lines_and_no_batch_has_one_image(data_dir, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    label = next(path for path in sorted((folder / "train/labels").iterdir()) if path.read_text().count("\n") > 1)
    lines = label.read_text().splitlines()
    label.write_text("\n".join([lines[0], "0 0.5 0.5 0.1 0.1", *lines[1:]]))
    with pytest.warns(UserWarning, match="skipped 1"):
        train = YOLOSegmentationDataset(folder, "train", on_error="skip")
    five = Subset(train, range(5))
    run = fit_yolo(five, YOLOSegmentationDataset(folder, "val"), make_config(), tmp_path / "run")
    written = run.dir / "ultralytics/data/train"
    links = sorted((written / "images").iterdir())
    assert [path.resolve() for path in links] == [train.image_path(i).resolve() for i in (*range(5), 0)]
    position = [path.resolve().stem for path in links].index(label.stem)
    assert (written / f"labels/{links[position].stem}.txt").read_text().splitlines() == lines


SCRIPT = """
import json, os, random, socket, sys

calls = []
def refuse(*arguments, **settings):
    calls.append(str(arguments))
    raise OSError("no network here")

socket.getaddrinfo = socket.gethostbyname = socket.socket.connect = socket.socket.connect_ex = refuse
import cv2, numpy, torch
before = dict(os.environ)
from seglib.datasets import YOLOSegmentationDataset
from seglib.train_yolo import YOLOConfig, fit_yolo, measure_as_ultralytics

def state():
    generators = torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate()
    return generators, torch.get_num_threads(), cv2.getNumThreads(), numpy.get_printoptions(), torch.save

before_training = repr(state())
train, val = (YOLOSegmentationDataset(sys.argv[1], split) for split in ("train", "val"))
run = fit_yolo(train, val, YOLOConfig(epochs=1, batch_size=2, lr=1e-3, image_size=32), sys.argv[2] + "/run")
measured = measure_as_ultralytics(run.model(), val)
from ultralytics.utils import RANK, SETTINGS
changed = {key for key in {*before, *os.environ} if before.get(key) != os.environ.get(key)}
print(json.dumps({"calls": calls, "sync": SETTINGS["sync"], "rank": RANK, "restored": repr(state()) == before_training,
                  "changed": sorted(changed), "measured": measured, "recorded": run.best}))
"""


def contents(folder: Path) -> dict:
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def test_it_sends_nothing_and_leaves_data_and_process_as_they_were(data_dir, tmp_path):
    """In a process of its own with an empty home, as the second of two processes of a launcher."""
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    image = sorted((folder / "train/images").iterdir())[0]
    image.write_bytes(image.read_bytes() + b"\0")  # no end marker: Ultralytics by itself rewrites such a file
    before = contents(folder)
    environment = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    environment |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path / "runs")]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["calls"] == [] and report["sync"] is False and report["rank"] == -1 and report["restored"]
    assert set(report["changed"]) <= {"YOLO_OFFLINE", "YOLO_CONFIG_DIR"}
    assert report["measured"]["AP50-95"] == pytest.approx(report["recorded"]["val_ap"], abs=1e-4)
    assert contents(folder) == before and {path.name for path in tmp_path.iterdir()} <= {"data", "home", "runs"}
    assert "Ultralytics" not in result.stdout
