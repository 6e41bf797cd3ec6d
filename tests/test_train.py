"""The loop: it learns, resumes bit for bit, refuses what would go wrong, and is right at one of everything."""

import csv
import json
import os
from typing import ClassVar

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from torch import nn
from torch.utils.data import Subset

from seglib import runs
from seglib.losses import BCEDiceLoss, BCELoss, CrossEntropyLoss
from seglib.metrics import ConfusionMatrix
from seglib.models import load_model
from seglib.predict import predict
from seglib.train import measure, precision
from seglib.transforms import augmentation
from tests.helpers.discs import Discs, net, train

# ------------------------------------------------------------------------------------------------ it learns


def test_one_batch_can_be_learnt_by_heart(tmp_path):
    data = Discs(4)
    run = train(tmp_path, data=data, val=data, epochs=60, batch_size=4)
    assert run.best["val_iou"] > 0.95


@pytest.mark.usefixtures("drawn_curves")
def test_a_run_folder_holds_all_it_should(tmp_path):
    run = train(tmp_path, trackers=("tensorboard",))
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {
        *("config.json", "history.csv", "best_model.pth", "last", "loss.png", "miou.png", "predictions", "tensorboard")
    }
    assert (tmp_path / "predictions" / "epoch_003" / "disc0.png").is_file()
    assert all(Image.open(tmp_path / name).width > 500 for name in ("loss.png", "miou.png"))
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert runs.read_history(tmp_path / "history.csv") == run.history
    about = json.loads((tmp_path / "config.json").read_text())["about"]
    assert torch.__version__.startswith(about["versions"]["torch"])


def test_the_best_model_is_rebuilt_from_its_file_alone_and_scores_what_history_says(tmp_path):
    run = train(tmp_path, epochs=4)
    model = load_model(tmp_path / "best_model.pth")
    assert not model.training and model.class_names == ["background", "disc"] and model.image_size == (32, 32)
    measured = measure(model, Discs(5), BCEDiceLoss(), batch_size=4)
    assert measured.matrix.iou()[1].item() == pytest.approx(run.best["val_iou"], abs=1e-9)
    assert measured.loss == pytest.approx(run.best["val_loss"], abs=1e-6)
    assert run.best["val_iou"] == max(run.column("val_iou"))


class Larger(Discs):
    """Discs of another size than is trained at, which a transform of the data set's own has made so."""

    transform = "resize, say"


@pytest.mark.parametrize(
    ("data", "augment", "size"),
    [
        (Discs(6), None, (32, 32)),
        (Discs(6), augmentation(rotate=10), (32, 32)),
        (Discs(6, [(40, 30), (24, 50)] * 3), augmentation(crop=(24, 24)), None),
        (Subset(Larger(6, 40), range(5)), augmentation(crop=(24, 24)), (40, 40)),
        (Larger(6, [(40, 30), (24, 50)] * 3), augmentation(crop=(24, 24)), None),
    ],
    ids=["as it comes", "turned", "cropped", "resized, then cropped", "of no one size"],
)
def test_the_best_model_knows_what_size_a_photograph_is_brought_to(tmp_path, data, augment, size):
    just_trained = net()
    train(tmp_path, just_trained, data, Discs(3, [(40, 30), (24, 50), (40, 30)]), augment=augment, epochs=1)
    model = load_model(tmp_path / "best_model.pth")
    assert just_trained.image_size == size and just_trained.class_names == model.class_names
    assert model.image_size == size
    photograph = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    assert (predict(model, photograph) == predict(model, photograph, size=size or (50, 70))).all()


class Opposite(Discs):
    """All but the disc is class 1: the better a net learns discs, the worse it does here."""

    def __getitem__(self, index: int):
        image, mask, name = super().__getitem__(index)
        return image, 1 - mask, name


def test_the_best_epoch_is_kept_not_the_last(tmp_path):
    model = net()
    torch.nn.init.constant_(model.head.bias, 3.0)  # it begins by calling everything class 1
    run = train(tmp_path, model, val=Opposite(5), epochs=8)
    kept = torch.load(tmp_path / "best_model.pth", weights_only=True)
    scores = run.column("val_iou")
    assert kept["epoch"] == run.best["epoch"] == scores.index(max(scores)) + 1 < 8
    nan = float("nan")
    assert runs.best_epoch([{"val_iou": score} for score in (nan, 0.2, 0.5, 0.5, nan)]) == 3
    assert runs.best_epoch([{"val_iou": nan}]) == 1


def test_every_epoch_has_an_order_of_its_own(tmp_path):
    class Watched(Discs):
        asked: ClassVar[list[int]] = []

        def __getitem__(self, index):
            self.asked.append(index)
            return super().__getitem__(index)

    train(tmp_path, data=Watched(9), epochs=2, workers=0)
    first, second = Watched.asked[-18:-9], Watched.asked[-9:]
    assert sorted(first) == sorted(second) == list(range(9)) and first != second


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [2, 3])
def test_every_loop_is_right_at_one_image_one_batch_one_epoch(tmp_path, count, batch_size):
    run = train(tmp_path, data=Discs(count), val=Discs(1), epochs=1, batch_size=batch_size)
    assert len(run.history) == 1 and np.isfinite(run.history[0]["train_loss"])


def test_pairs_and_subsets_and_several_classes_are_taken(tmp_path):
    class Pairs(Discs):
        classes = ("background", "disc", "never")

        def __getitem__(self, index):
            return super().__getitem__(index)[:2]

    data = Subset(Pairs(6), [0, 2, 4, 5])
    run = train(tmp_path, model=net(classes=3), data=data, val=data, loss=CrossEntropyLoss(), epochs=1)
    assert "iou/never" in run.history[0]
    assert run.history[0]["val_iou"] == run.history[0]["val_miou"]


# ------------------------------------------------------------------------------------------------ resuming


class Killed(BaseException):
    """Stands for a runtime that dies."""


def die_in(monkeypatch, name: str, call: int):
    """Let the `call`-th call of seglib.runs.<name> die before it does anything."""
    original, calls = getattr(runs, name), []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(runs, name, dying)


class Dropping(nn.Module):
    """A model with dropout, whose every draw must be the same after an interruption."""

    settings = None

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 1, 1))

    def forward(self, images):
        return self.layers(images.float() / 255)


def test_dropout_draws_the_same_whatever_the_workers_and_after_an_interruption(tmp_path, monkeypatch):
    losses = {}
    for workers in (0, 2):
        whole = train(tmp_path / f"whole{workers}", model=Dropping(), workers=workers)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            die_in(patch, "save_torch", 3)  # in the second epoch
            train(tmp_path / f"killed{workers}", model=Dropping(), workers=workers)
        resumed = train(tmp_path / f"killed{workers}", model=Dropping(), workers=workers)
        losses[workers] = (whole.column("train_loss"), resumed.column("train_loss"))
    assert losses[0][0] == losses[0][1] == losses[2][0] == losses[2][1]


SETTINGS = [
    {"epochs": 4},
    {"epochs": 4, "optimizer": "adamw", "weight_decay": 0.1, "scheduler": "cosine"},
    {"epochs": 4, "optimizer": "sgd", "scheduler": "plateau", "plateau_patience": 0},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(
    ("name", "call"), [("save_torch", 2), ("save_torch", 3), ("save_torch", 4), ("write_history", 2)]
)
def test_killed_while_saving_the_same_call_ends_the_same(tmp_path, monkeypatch, settings, name, call):
    augment = augmentation(horizontal_flip=0.5, rotate=10, brightness=0.2)
    whole = train(tmp_path / "whole", augment=augment, **settings)
    with monkeypatch.context() as patch:
        die_in(patch, name, call)
        with pytest.raises(Killed):
            train(tmp_path / "killed", augment=augment, **settings)
    started_anew = net(seed=0 if call == 2 and name == "save_torch" else 99)  # killed before any checkpoint, or after
    resumed = train(tmp_path / "killed", augment=augment, model=started_anew, **settings)
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    for file in ("last/checkpoint.pth", "best_model.pth"):
        one, other = (torch.load(run.dir / file, weights_only=True)["model"] for run in (whole, resumed))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_finished_run_is_returned_without_training(tmp_path, capsys):
    first = train(tmp_path)
    changed = os.stat(tmp_path / "last" / "checkpoint.pth").st_mtime_ns
    model = net(seed=5)
    again = train(tmp_path, model=model)
    assert again.finished and again.history == first.history and "nothing to train" in capsys.readouterr().out
    assert os.stat(tmp_path / "last" / "checkpoint.pth").st_mtime_ns == changed


def test_killed_after_the_last_checkpoint_the_same_call_writes_what_is_missing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        die_in(patch, "write_history", 3)
        with pytest.raises(Killed):
            train(tmp_path)
    run = train(tmp_path)
    assert runs.read_history(tmp_path / "history.csv") == run.history and len(run.history) == 3
    assert (tmp_path / "loss.png").is_file() and (tmp_path / "miou.png").is_file()


def test_other_settings_are_refused_by_name(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.raises(ValueError, match=r"config\.lr: 0\.01 then, 0\.5 now") as error:
        train(tmp_path, epochs=1, lr=0.5)
    assert "another run_dir" in str(error.value)
    with pytest.raises(ValueError, match="loss: BCEDice"):
        train(tmp_path, epochs=1, loss=BCELoss())
    with pytest.raises(ValueError, match="train_data"):
        train(tmp_path, epochs=1, data=Discs(9))
    assert train(tmp_path, epochs=1, workers=0).finished  # reading with more processes changes nothing


def test_early_stopping_and_plateau(tmp_path):
    run = train(tmp_path, epochs=30, patience=2, scheduler="plateau", plateau_patience=0, lr=0.3)
    losses = run.column("val_loss")
    assert len(losses) < 30 and min(losses) == losses[-3] and run.finished
    assert run.column("lr")[-1] < 0.3


# ------------------------------------------------------------------------------------------------ batches of one


def test_a_batch_of_one_is_refused_for_batch_norm_only(tmp_path):
    with pytest.raises(ValueError, match="batch_size=1 cannot train batch norm"):
        train(tmp_path / "a", batch_size=1)
    plain = nn.Conv2d(3, 1, 1)

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = plain

        def forward(self, images):
            return self.conv(images.float() / 255)

    run = train(tmp_path / "b", model=Plain(), batch_size=1, epochs=1)
    assert len(run.history) == 1
    with pytest.raises(ValueError, match="cannot build by itself"):
        run.model()


# ------------------------------------------------------------------------------------------------ measuring


def test_images_of_many_sizes_are_measured_unpadded_and_the_batch_size_changes_nothing():
    data = Discs(6, [(32, 32), (20, 40), (32, 32), (17, 33), (20, 40), (32, 32)])
    model = net().eval()
    one_by_one = ConfusionMatrix(2)
    for index in range(6):
        image, mask, _ = data[index]
        one_by_one.update((model(image[None]) > 0)[:, 0].long(), mask[None])
    for batch_size in (1, 2, 6):
        assert measure(model, data, batch_size=batch_size).matrix.matrix.tolist() == one_by_one.matrix.tolist()


def test_images_of_many_sizes_cannot_train_together(tmp_path):
    with pytest.raises(ValueError, match=r"different sizes in one training batch: .*disc.*resize"):
        train(tmp_path, data=Discs(4, [(32, 32), (20, 40)] * 2), epochs=1)


# ------------------------------------------------------------------------------------------- bad labels and numbers


class Mislabelled(Discs):
    def __getitem__(self, index):
        image, mask, name = super().__getitem__(index)
        return image, mask * 7 if index == 3 else mask, name


def test_a_label_out_of_range_names_the_file_value_and_range(tmp_path):
    for part in ("data", "val"):
        with pytest.raises(ValueError, match=r"disc3\.png: mask value 7 .* allowed are 0 to 1"):
            train(tmp_path / part, epochs=1, **{part: Mislabelled(5)})


def test_a_loss_that_is_not_a_number_stops_with_epoch_step_and_files(tmp_path):
    class Sometimes:
        calls = 0

        def __call__(self, logits, mask):
            Sometimes.calls += torch.is_grad_enabled()
            return BCELoss()(logits, mask) * (float("nan") if Sometimes.calls == 5 else 1)

    with pytest.raises(FloatingPointError, match=r"nan in epoch 2, step 2, on disc\d+\.png, .*learning rate 0\.01"):
        train(tmp_path, loss=Sometimes())
    assert len(runs.read_history(tmp_path / "history.csv")) == 1  # the epoch before is kept


def test_what_cannot_be_trained_is_refused_at_once(tmp_path):
    class Floats(Discs):
        def __getitem__(self, index):
            image, mask, name = super().__getitem__(index)
            return image / 255, mask, name

    class Swapped(Discs):
        classes = ("disc", "background")

    with pytest.raises(ValueError, match=r"disc0\.png: images are uint8, 0-255, not torch\.float32"):
        train(tmp_path, data=Floats(4))
    with pytest.raises(ValueError, match="differ in their classes"):
        train(tmp_path, val=Swapped(4))
    with pytest.raises(ValueError, match="0 images to train on"):
        train(tmp_path, data=Subset(Discs(4), []))


def test_a_validation_loss_that_is_not_a_number_stops_too(tmp_path):
    class NotInValidation:
        def __call__(self, logits, mask):
            return BCELoss()(logits, mask) * (1 if torch.is_grad_enabled() else float("nan"))

    with pytest.raises(FloatingPointError, match="validation loss became nan in epoch 1"):
        train(tmp_path, loss=NotInValidation())


@pytest.fixture
def _accelerate_anew():
    """Accelerate keeps one precision for a whole process."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.usefixtures("_accelerate_anew")
def test_a_model_is_given_back_as_it_was_also_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("seglib.train.precision", lambda: "bf16")
    model, seen = net(), []
    model.head.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    train(tmp_path / "first", model=model, epochs=1)
    assert model(torch.zeros(1, 3, 8, 8)).dtype == torch.float32 and torch.bfloat16 in seen

    def fails(logits, mask):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        train(tmp_path / "fails", model=model, loss=fails, epochs=1)
    seen.clear()
    train(tmp_path / "second", model=model, epochs=1)
    assert torch.bfloat16 in seen  # wrapped anew
    AcceleratorState._reset_state(True)
    monkeypatch.setattr("seglib.train.precision", lambda: "no")
    with pytest.raises(ValueError, match="precision: bf16 then, no now"):
        train(tmp_path / "first", model=model, epochs=1)


def test_a_model_of_other_classes_than_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tells 5 classes apart but the data set has 2"):
        train(tmp_path, model=net(classes=5), loss=CrossEntropyLoss())


@pytest.mark.parametrize(
    ("gpu", "bf16", "expected"), [(False, True, "no"), (True, True, "bf16"), (True, False, "fp16")]
)
def test_mixed_precision_is_for_gpus_in_the_format_they_compute_in(monkeypatch, gpu, bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert precision() == expected


# ------------------------------------------------------------------------------------------------ disks


def test_a_run_folder_that_cannot_be_written_to_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write .*run: Not a directory"):
        train(tmp_path / "file" / "run")


def test_a_full_disk_names_the_file_and_keeps_the_epoch_before(tmp_path, monkeypatch):
    def full(content, path):
        if len(calls) == 3:
            raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")
        calls.append(1)
        return original(content, path)

    calls, original = [], torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*pth.*untouched"):
        train(tmp_path)
    monkeypatch.setattr(torch, "save", original)
    assert not list(tmp_path.rglob("*.part*"))
    assert len(train(tmp_path).history) == 3


def test_a_run_that_started_from_other_weights_is_not_gone_on_with(tmp_path):
    """A model's settings are the same with and without ImageNet's weights, and so is its checkpoint's way to load."""
    model = net()
    train(tmp_path, model, epochs=1)
    model.weights = "imagenet"
    with pytest.raises(ValueError, match="weights: None then, imagenet now"):
        train(tmp_path, model, epochs=1)
