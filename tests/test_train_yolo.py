"""fit_yolo: Ultralytics trains, in a run folder of ours, offline, and writes nothing where the reader's data lies."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from seglib import runs, yolo
from seglib.datasets import YOLOSegmentationDataset, all_instances, hold_out, render
from seglib.evaluate import mask_ap
from seglib.grid import grid
from seglib.models import build_model, load_model
from seglib.models import yolo as model_of_yolo
from seglib.predict import predict, predict_instances
from seglib.train_yolo import YOLOConfig, fit_yolo, measure_as_ultralytics, read_results

ROOT = Path(__file__).parents[1]
SHORT = {"epochs": 1, "batch_size": 2, "lr": 1e-3, "image_size": 64, "warmup_epochs": 0.0, "mosaic": 0.0}


def config(**others) -> YOLOConfig:
    return YOLOConfig(**{**SHORT, **others})


@pytest.fixture(scope="session")
def land(tmp_path_factory) -> Path:
    """A little folder of aerial pictures: 6 to train on, 2 to validate with, 2 to test on."""
    return render("buildings_yolo", 10, 96, root=tmp_path_factory.mktemp("land"))


@pytest.fixture(scope="session")
def parts(land):
    return [YOLOSegmentationDataset(land, part) for part in ("train", "val", "test")]


@pytest.fixture(scope="session")
def finished(parts, tmp_path_factory):
    """A finished run of three epochs, of which the tests take copies."""
    return fit_yolo(*parts[:2], config(epochs=3), tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """A network that has learnt to find red squares, and pictures of some."""
    root, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for folder, count in (("train", 16), ("valid", 4)):
        for name in ("images", "labels"):
            (root / folder / name).mkdir(parents=True)
        for number in range(count):
            picture = rng.integers(60, 110, (64, 64, 3)).astype(np.uint8)
            x, y, side = rng.integers(4, 24), rng.integers(4, 24), rng.integers(22, 36)
            picture[y : y + side, x : x + side] = (220, 60, 50)
            Image.fromarray(picture).save(root / folder / f"images/{number}.png")
            corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
            line = " ".join(["0", *(f"{value / 64}" for corner in corners for value in corner)])
            (root / folder / f"labels/{number}.txt").write_text(line)
    (root / "data.yaml").write_text("names: [roof]\ntrain: train/images\nval: valid/images\n")
    train, val = (YOLOSegmentationDataset(root, part) for part in ("train", "val"))
    return fit_yolo(train, val, config(epochs=14, batch_size=4, lr=3e-3), root / "run"), val


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished.dir, tmp_path / "run", symlinks=True)
    return runs.Run(tmp_path / "run", finished.history, finished.finished, finished.about)


class Cut(Exception):
    """Something that ends a training from outside."""


def cut_after(epochs: int, monkeypatch) -> None:
    """Let the training break off when so many epochs have been finished."""
    begin = yolo.Keeper.on_train_epoch_start

    def stop(self, trainer):
        begin(self, trainer)
        if trainer.epoch == epochs:
            raise Cut

    monkeypatch.setattr(yolo.Keeper, "on_train_epoch_start", stop)


def weights(path: Path) -> dict:
    return torch.load(path, weights_only=True)["model"]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ------------------------------------------------------------------------------------------------ a run


def test_a_run_folder_is_as_every_other(finished, parts):
    assert finished.finished and [row["epoch"] for row in finished.history] == [1, 2, 3]
    for name in ("config.json", "history.csv", "best_model.pth", "last/checkpoint.pth", "loss.png", "ap.png"):
        assert (finished.dir / name).is_file(), name
    assert runs.read_run(finished.dir).history == finished.history
    assert runs.read_run(finished.dir).best == finished.best  # by the AP, which the history itself tells
    assert finished.history[-1]["train_loss"] < finished.history[0]["train_loss"]
    assert finished.best["val_ap"] == max(finished.column("val_ap"))
    about = json.loads((finished.dir / "config.json").read_text())
    assert about["settings"]["yolo"]["lr"] == 1e-3 and "ultralytics-opencv-headless" in about["about"]["versions"]
    model = finished.model()
    assert not model.training and model.class_names == ["background", "building"] and model.image_size == (64, 64)
    assert not any(parameter.is_floating_point() and parameter.isnan().any() for parameter in model.parameters())


def test_the_same_training_twice_gives_the_same(finished, parts, tmp_path):
    again = fit_yolo(*parts[:2], config(epochs=3), tmp_path / "again")
    assert same(weights(again.dir / "best_model.pth"), weights(finished.dir / "best_model.pth"))
    drop = {"seconds"}
    assert [{k: v for k, v in row.items() if k not in drop} for row in again.history] == [
        {k: v for k, v in row.items() if k not in drop} for row in finished.history
    ]


def test_the_history_says_what_results_csv_says(finished):
    with (finished.dir / "ultralytics/results.csv").open() as file:
        rows = [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    for row, ours in zip(rows, finished.history, strict=True):
        for part in ("train", "val"):
            parts_of_loss = [value for key, value in row.items() if key.startswith(f"{part}/")]
            assert len(parts_of_loss) >= 4 and ours[f"{part}_loss"] == pytest.approx(sum(parts_of_loss))
        assert ours["val_ap"] == row["metrics/mAP50-95(M)"] and ours["val_ap50"] == row["metrics/mAP50(M)"]
    assert sum(finished.column("seconds")) == pytest.approx(rows[-1]["time"])


def test_results_are_read_as_a_history():
    text = (
        "epoch,time,train/box_loss,train/seg_loss,metrics/precision(B),metrics/recall(B),metrics/mAP50(B),"
        "metrics/mAP50-95(B),metrics/precision(M),metrics/recall(M),metrics/mAP50(M),metrics/mAP50-95(M),"
        "val/box_loss,val/seg_loss,lr/pg0\n"
        "1,10.5,1,2,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,3,4,0.001\n"
        "2,14,1,1,0,0,0,0,0,0,0,0.25,2,2,0.0005\n"
    )
    first, second = read_results(text)
    assert first["epoch"] == 1 and first["train_loss"] == 3 and first["val_loss"] == 7 and first["seconds"] == 10.5
    assert (first["val_ap"], first["val_ap50"], first["val_recall"], first["val_box_ap"]) == (0.8, 0.7, 0.6, 0.4)
    assert second["seconds"] == 3.5 and second["val_ap"] == 0.25 and second["lr"] == 0.0005
    assert first["train_box_loss"] == 1 and first["val_seg_loss"] == 4


def test_a_step_is_taken_after_every_batch(parts, tmp_path, monkeypatch):
    """By default Ultralytics gathers 64 images for each: one step here, not three."""
    steps, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a, **k: (steps.append(1), step(self, *a, **k))[1])
    fit_yolo(*parts[:2], config(batch_size=2), tmp_path / "run")
    assert len(steps) == 3
    steps.clear()
    fit_yolo(*parts[:2], config(batch_size=6), tmp_path / "other")
    assert len(steps) == 1


def test_early_stopping_ends_a_run(parts, tmp_path, monkeypatch):
    make, scores = yolo.make_trainer, iter((0.5, 0.4, 0.3))

    def falling(*arguments):
        trainer = make(*arguments)
        measure = trainer.validate

        def validate():
            score = next(scores)
            return {**measure()[0], "metrics/mAP50-95(M)": score}, score

        trainer.validate = validate
        return trainer

    monkeypatch.setattr(yolo, "make_trainer", falling)
    run = fit_yolo(*parts[:2], config(epochs=9, patience=2), tmp_path / "run")
    assert run.finished and len(run.history) == 3
    assert fit_yolo(*parts[:2], config(epochs=9, patience=2), tmp_path / "run").finished


# ------------------------------------------------------------------------------------------------ interrupted, finished


def test_an_interrupted_run_goes_on_after_its_last_epoch(parts, tmp_path, monkeypatch, capsys):
    """An apostrophe in a path is enough for Ultralytics to look for a checkpoint on the net."""
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(2, patch)
        fit_yolo(*parts[:2], config(epochs=4), tmp_path / "o'brien")
    before = runs.read_run(tmp_path / "o'brien").history
    assert len(before) == 2
    # What a kill may leave behind: an epoch in results.csv that no checkpoint has, and half a checkpoint.
    theirs = tmp_path / "o'brien/ultralytics"
    (theirs / "results.csv").write_text((theirs / "results.csv").read_text() + "3,99.9,1,")
    (theirs / "weights/last.pt").write_bytes(b"half of it")
    run = fit_yolo(*parts[:2], config(epochs=4), tmp_path / "o'brien")
    assert "Going on after epoch 2" in capsys.readouterr().out
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4] and run.finished
    assert run.history[:2] == before
    assert all(0 < row["seconds"] < 60 for row in run.history)
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


def test_killed_before_an_epoch_was_kept_the_best_model_is_of_an_epoch_in_the_history(parts, run, monkeypatch):
    """A best_model.pth that was written, though its epoch was not, is put back."""
    kept = weights(run.dir / "best_model.pth")
    checkpoint = torch.load(run.dir / "best_model.pth", weights_only=True)
    checkpoint["model"] = {key: torch.zeros_like(value) for key, value in checkpoint["model"].items()}
    torch.save(checkpoint, run.dir / "best_model.pth")
    fit_yolo(*parts[:2], config(epochs=3), run.dir)
    assert same(weights(run.dir / "best_model.pth"), kept)


def test_a_finished_run_is_returned_and_not_trained(parts, run, monkeypatch, capsys):
    monkeypatch.setattr(yolo, "make_trainer", lambda *_: pytest.fail("trained"))
    again = fit_yolo(*parts[:2], config(epochs=3), run.dir)
    assert again.finished and again.history == run.history and again.best == run.best
    assert "nothing to train" in capsys.readouterr().out


def test_other_settings_and_other_data_are_refused(parts, run):
    train, val, _ = parts
    with pytest.raises(runs.OtherSettings, match=r"yolo.lr: 0.001 then, 0.01 now"):
        fit_yolo(train, val, config(epochs=3, lr=0.01), run.dir)
    with pytest.raises(runs.OtherSettings, match=r"train_data.samples: 6 then, 4 now"):
        fit_yolo(Subset(train, range(4)), val, config(epochs=3), run.dir)
    with pytest.raises(runs.OtherSettings, match=r"yolo.epochs: 3 then, 5 now"):
        fit_yolo(train, val, config(epochs=5), run.dir)


def test_a_run_comes_back_from_its_mirror(parts, tmp_path):
    mirrored = config(mirror=tmp_path / "mirror")
    run = fit_yolo(*parts[:2], mirrored, tmp_path / "run")
    shutil.rmtree(run.dir)
    again = fit_yolo(*parts[:2], mirrored, tmp_path / "run")
    assert again.finished and again.history == run.history
    assert again.model().image_size == (64, 64)


def test_a_damaged_checkpoint_is_named(parts, run):
    (run.dir / runs.LAST).write_bytes(b"half")
    with pytest.raises(ValueError, match=r"checkpoint.pth is damaged"):
        fit_yolo(*parts[:2], config(epochs=3), run.dir)


def test_a_grid_over_it_keeps_each_cell(parts, tmp_path, monkeypatch):
    def train(run_dir, lr, batch):
        return fit_yolo(*parts[:2], config(lr=lr, batch_size=batch), run_dir)

    result = grid(train, {"lr": [1e-3], "batch": [2, 3]}, tmp_path / "grid", metric="val_ap")
    assert [cell.status for cell in result.cells] == ["finished", "finished"]
    assert all({"train_loss", "val_loss", "val_ap"} <= set(cell.history[0]) for cell in result.cells)
    monkeypatch.setattr(yolo, "make_trainer", lambda *_: pytest.fail("trained"))
    assert grid(train, {"lr": [1e-3], "batch": [2, 3]}, tmp_path / "grid", metric="val_ap").best is not None


# ------------------------------------------------------------------------------------------------ what goes wrong


def failing(monkeypatch, change):
    from ultralytics.nn.tasks import SegmentationModel

    loss = SegmentationModel.loss
    monkeypatch.setattr(SegmentationModel, "loss", lambda self, *arguments: change(loss(self, *arguments)))


def test_a_loss_that_is_no_number_stops_the_run(parts, tmp_path, monkeypatch, finished):
    failing(monkeypatch, lambda found: (found[0] * float("nan"), found[1]))
    with pytest.raises(
        FloatingPointError, match=r"became NaN or infinite in epoch 1; images of that step: .*train/images/tile_"
    ):
        fit_yolo(*parts[:2], config(), tmp_path / "run")


def test_out_of_memory_is_no_smaller_batch(parts, tmp_path, monkeypatch, finished):
    """Ultralytics would halve the batch, three times: another experiment."""
    batches = []

    def full(found):
        batches.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    failing(monkeypatch, full)
    with pytest.raises(torch.OutOfMemoryError):
        fit_yolo(*parts[:2], config(), tmp_path / "run")
    assert len(batches) == 1


@pytest.mark.parametrize(
    ("card", "fails"),
    [("NVIDIA GeForce GTX 1660 Ti", True), ("NVIDIA T400 4GB", True), ("NVIDIA T1000", True), ("NVIDIA T550", True)]
    + [("Tesla T4", False), ("NVIDIA GeForce RTX 2060", False), ("NVIDIA GeForce GTX 1080", False)],
)
def test_small_turing_cards_train_in_full_precision(card, fails):
    assert yolo.half_precision_fails(card) is fails


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": 100}, "multiple of 32"),
        ({"batch_size": 1}, "batch norm"),
        ({"lr": 0}, "lr is above 0"),
        ({"epochs": 0}, "from 1 on"),
        ({"model": "yolo99"}, "no model"),
        ({"weights": "imagenet"}, "no weights"),
        ({"scheduler": "plateau"}, "no scheduler"),
        ({"others": {"lr0": 1}}, "lr0 cannot be set"),
        ({"others": {"save": False}}, "save cannot be set"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        config(**wrong)


def test_data_that_ultralytics_cannot_read_is_refused(parts, sample, tmp_path):
    with pytest.raises(TypeError, match="give YOLOSegmentationDataset"):
        fit_yolo([1, 2], parts[1], config(), tmp_path / "run")
    with pytest.raises(ValueError, match="no images"):
        fit_yolo(Subset(parts[0], []), parts[1], config(), tmp_path / "run")


# ------------------------------------------------------------------------------------------------ the reader's folder

SCRIPT = """
import json, os, socket, sys

calls = []
def caught(name):
    def refuse(*arguments, **settings):
        calls.append(f"{name} {arguments}")
        raise OSError("no network here")
    return refuse

socket.getaddrinfo, socket.gethostbyname = caught("getaddrinfo"), caught("gethostbyname")
socket.socket.connect = socket.socket.connect_ex = caught("connect")
before = dict(os.environ)

import numpy, torch
from seglib.datasets import YOLOSegmentationDataset
from seglib.train_yolo import YOLOConfig, fit_yolo, measure_as_ultralytics
from seglib.predict import predict_instances

import cv2, PIL.Image

def standing():
    printing = numpy.get_printoptions()
    return printing, torch.get_num_threads(), cv2.getNumThreads(), torch.get_rng_state().tolist(), numpy.random.rand()

numpy.random.seed(1)
numpy_before = numpy.random.get_state()
stood, save, opening = standing(), torch.save, PIL.Image.open
numpy.random.set_state(numpy_before)
train, val = (YOLOSegmentationDataset(sys.argv[1], part) for part in ("train", "val"))
config = YOLOConfig(epochs=1, batch_size=2, lr=1e-3, image_size=64)
run = fit_yolo(train, val, config, sys.argv[2] + "/run")
model = run.model()
predict_instances(model, train.image_path(0), 0)
measure_as_ultralytics(model, val)
from ultralytics.utils.events import events
from ultralytics.utils import SETTINGS
changed = {key for key in {*before, *os.environ} if before.get(key) != os.environ.get(key)}
print(json.dumps({
    "calls": calls, "events": events.enabled or bool(events.events), "sync": SETTINGS["sync"],
    "changed": sorted(changed),
    "standing": standing() == stood, "functions": torch.save is save and PIL.Image.open is opening,
}))
"""


def contents(folder: Path) -> dict:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def test_it_asks_nobody_tells_nobody_and_writes_nothing_beside_the_data(land, tmp_path):
    """In a process of its own, with an empty home, as a newcomer has: where pytest runs it reports nothing."""
    data = tmp_path / "data"
    shutil.copytree(land, data)
    jpeg = sorted((data / "train/images").iterdir())[0]
    jpeg.write_bytes(jpeg.read_bytes() + b"\0")  # no end marker: Ultralytics writes such a file anew
    before = contents(data)
    home = tmp_path / "home"
    home.mkdir()
    kept = ("PATH", "PYTHONPATH", "LANG")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(data), str(tmp_path / "runs")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["calls"] == [] and not told["events"] and told["sync"] is False
    assert told["standing"] and told["functions"]
    assert not {"OMP_NUM_THREADS", "YOLO_VERBOSE", "CUDA_VISIBLE_DEVICES"} & set(told["changed"])
    assert contents(data) == before
    assert "Ultralytics" not in result.stdout and "Settings" not in result.stdout
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"data", "home", "runs"}, "something was written where the process ran"


def test_under_a_launcher_it_does_not_take_itself_for_one_of_many(tmp_path):
    """Imported by the second of two processes, it would save nothing."""
    code = "from seglib.models.yolo import quiet_ultralytics as q; q(); from ultralytics.utils import RANK; print(RANK)"
    environment = {**os.environ, "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    environment["TORCH_HOME"] = str(tmp_path)
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == "-1"


def test_no_batch_of_one_reaches_batch_norm(parts, tmp_path):
    five = Subset(parts[0], range(5))
    yolo.write_data(tmp_path, five, parts[1], parts[0].classes, batch_size=2)
    links = sorted((tmp_path / "data/train/images").iterdir())
    assert len(links) == 6 and links[5].resolve() == links[0].resolve()
    yolo.write_data(tmp_path, parts[0], parts[1], parts[0].classes, batch_size=2)  # again, in the same folder
    assert len(list((tmp_path / "data/train/images").iterdir())) == 6
    run = fit_yolo(five, parts[1], config(image_size=32), tmp_path / "run")  # 32 pixels: one place at the coarsest grid
    assert run.finished


def test_images_are_links_and_labels_are_the_lines_that_are_whole(land, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(land, data)
    label = next(path for path in sorted((data / "train/labels").iterdir()) if path.read_text().count("\n") > 1)
    lines = label.read_text().splitlines()
    label.write_text("\n".join([lines[0], "0 0.5 0.5 0.1 0.1", *lines[1:]]))
    with pytest.warns(UserWarning, match="skipped 1"):
        train = YOLOSegmentationDataset(data, "train", on_error="skip")
    fewer, held = hold_out(train)
    yolo.write_data(tmp_path / "work", fewer, held, train.classes)
    written = tmp_path / "work/data"
    links = sorted((written / "train/images").iterdir())
    assert [path.resolve() for path in links] == [train.image_path(index).resolve() for index in fewer.indices]
    assert all(path.is_symlink() for path in links)
    place = next(path for path in written.glob("*/images/*") if path.resolve().stem == label.stem)
    copy = place.parent.parent / f"labels/{place.stem}.txt"
    assert copy.read_text().splitlines() == lines
    back = YOLOSegmentationDataset(written, "val")
    assert len(back) == len(held) and back.classes == train.classes


# ------------------------------------------------------------------------------------------------ the model


def test_it_is_the_network_that_is_published():
    """3,409,968 parameters for COCO's 80 classes: Ultralytics' summary of YOLOv8n-seg."""
    model = build_model("yolov8n-seg", classes=81)
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_409_968


def test_objects_are_those_that_ultralytics_own_predictor_finds(squares):
    model, image = squares[0].model(), squares[1][0][0]
    from ultralytics.models.yolo.segment import SegmentationPredictor

    wide = torch.nn.functional.pad(image, (0, 37, 0, 3), value=90)  # neither square nor of the network's size
    settings = {"task": "segment", "mode": "predict", "imgsz": 64, "conf": 0.001, "iou": 0.7, "max_det": 300}
    settings |= {"retina_masks": True, "save": False, "verbose": False, "device": "cpu"}
    predictor = SegmentationPredictor(overrides=settings)
    bgr = np.ascontiguousarray(wide.permute(1, 2, 0).numpy()[..., ::-1])
    theirs = predictor(source=bgr, model=model.network)[0]
    ours = model(wide[None])[0]
    assert len(ours) == len(theirs.boxes) > 3
    assert np.allclose(ours.scores, theirs.boxes.conf.numpy(), atol=1e-5)
    assert (ours.labels == theirs.boxes.cls.numpy() + 1).all()
    assert (ours.masks == theirs.masks.data.numpy().astype(bool)).mean() > 0.9999


def test_a_score_leaves_out_the_unsure(squares):
    model, image = squares[0].model(), squares[1][0][0]
    every = predict_instances(model, image.numpy().transpose(1, 2, 0), 0)
    middle = float(np.median(every.scores))
    sure = predict_instances(model, image.numpy().transpose(1, 2, 0), middle)
    assert 0 < len(sure) < len(every) and (sure.scores >= middle).all()


def test_a_model_of_objects_says_so_where_logits_are_wanted(parts, finished):
    with pytest.raises(TypeError, match="predict_instances"):
        predict(finished.dir / "best_model.pth", parts[0].image_path(0))
    with pytest.raises(TypeError, match="finds no objects"):
        predict_instances(build_model("unet", 2, base_channels=4), parts[0].image_path(0))
    with pytest.raises(RuntimeError, match="eval"):
        load_model(finished.dir / "best_model.pth").train()(parts[0][0][0][None])


def test_the_publishers_weights_are_taken_from_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    publish(tmp_path / "hub/checkpoints/yolov8n-seg.pt")
    model = build_model("yolov8n-seg", classes=2, weights="coco")
    theirs = model_of_yolo._load_ultralytics_file(tmp_path / "hub/checkpoints/yolov8n-seg.pt").state_dict()
    ours = model.network.state_dict()
    alike = [key for key in theirs if torch.equal(theirs[key].float(), ours[key].float())]
    assert len(alike) > 0.9 * len(theirs)  # all but the last layers of the scores, which are of other classes


def publish(path: Path) -> None:
    """A file such as the publisher's: a network for COCO's 80 classes, in half precision."""
    torch.manual_seed(1)
    network = build_model("yolov8n-seg", classes=81).network
    network.names = {number: str(number) for number in range(80)}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": network.half(), "train_args": {}, "date": "", "version": "8"}, path)


def test_the_publishers_weights_are_fetched_and_what_cannot_be_had_is_explained(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    publish(tmp_path / "yolov8n-seg.pt")
    server.files["/yolov8n-seg.pt"] = (tmp_path / "yolov8n-seg.pt").read_bytes()
    monkeypatch.setattr(model_of_yolo, "_WEIGHTS_URL", server.url(""))
    build_model("yolov8n-seg", classes=2, weights="coco")
    assert (tmp_path / "home/hub/checkpoints/yolov8n-seg.pt").is_file()
    with pytest.raises(OSError, match=r"(?s)weights 'coco' for yolov8s-seg.*yolov8s-seg.pt.*missing.*weights=None"):
        build_model("yolov8s-seg", classes=2, weights="coco")
    assert yolo.weights_or_none("yolov8n-seg", "coco") == "coco" and yolo.weights_or_none("yolov8s-seg", None) is None
    assert yolo.weights_or_none("yolov8s-seg", "coco") is None
    assert "cannot load the COCO weights of yolov8s-seg" in capsys.readouterr().out
    (tmp_path / "home/hub/checkpoints/yolov8n-seg.pt").write_bytes(b"half of it")
    with pytest.raises(OSError, match=r"(?s)yolov8n-seg.pt.*present.*delete"):
        build_model("yolov8n-seg", classes=2, weights="coco")


# ------------------------------------------------------------------------------------------------ measures


def test_ultralytics_own_measure_is_that_of_its_training(finished, parts):
    row = finished.best
    measured = measure_as_ultralytics(finished.model(), parts[1])
    assert measured["AP50-95"] == pytest.approx(row["val_ap"], abs=1e-4)
    assert set(measured) == {"AP50-95", "AP50", "box AP50-95", "box AP50"}


def test_something_is_learnt_from_nothing(squares):
    """A few dozen steps from random numbers: by COCO's rules most of the squares are found."""
    run, val = squares
    assert run.column("train_loss")[-1] < 0.7 * run.column("train_loss")[0]
    found = [predict_instances(run.model(), val.image_path(i), 0) for i in range(len(val))]
    assert mask_ap(all_instances(val), found).ap50 > 0.3


def test_the_word_of_the_licence_stands_where_ultralytics_is_imported():
    users = [
        path
        for path in (ROOT / "seglib").rglob("*.py")
        if re.search(r"^\s*(import|from) ultralytics", path.read_text(), re.M)
    ]
    assert {path.relative_to(ROOT / "seglib").as_posix() for path in users} == {"models/yolo.py", "yolo.py"}
    assert "AGPL-3.0" in (ROOT / "seglib/models/yolo.py").read_text()
    code = "import sys, seglib.lesson, seglib.models, seglib.train_yolo, seglib.predict; print('ultralytics' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.split()[-1] == "False"
