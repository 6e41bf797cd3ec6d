"""`fit` and `measure`: what a run folder holds, how a run resumes, and what is refused."""

import csv
import importlib
import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import ClassVar
from unittest.mock import MagicMock

import numpy as np
import pytest
import tensorboard.compat
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import LoggerType
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import Subset

from seglib import runs
from seglib.losses import BCEDiceLoss, BCELoss, CrossEntropyLoss
from seglib.metrics import ConfusionMatrix
from seglib.models import load_model
from seglib.predict import predict
from seglib.train import measure
from seglib.transforms import augmentation
from tests.helpers.discs import ConvNet, Discs, check_same_end, net, train


class ConstantLoss:
    """A loss that never changes."""

    def __call__(self, logits, mask):
        return 1 + 0 * logits.sum()


class LossAt:
    """BCE, but an action replaces the value of some of its losses, or raises.

    Args:
        actions: by the number of the loss, counted from 1.
        part: "training" or "validation"; the losses of the other part are not counted.
    """

    def __init__(self, actions, part="training"):
        self.actions = actions
        self.part = part
        self.count = 0

    def __repr__(self):
        return repr(BCELoss())  # the same setting

    def __call__(self, logits, mask):
        value = BCELoss()(logits, mask)
        if torch.is_grad_enabled() != (self.part == "training"):
            return value
        self.count += 1
        return self.actions.get(self.count, lambda value: value)(value)


def interrupt(value):
    raise KeyboardInterrupt


def make_nan(value):
    return value * float("nan")


def make_gradient_nan(value):
    value.register_hook(lambda gradient: gradient * float("nan"))
    return value


def make_gradient_infinite(value):
    value.register_hook(lambda gradient: gradient * float("inf"))
    return value


# ------------------------------------------------------------------------------------------------ the run folder


@pytest.mark.usefixtures("drawn_curves")
def test_the_run_folder_holds_settings_history_models_curves_and_predictions(tmp_path):
    run = train(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "history.csv", "best_model.pth", "last", "loss.png", "miou.png", "predictions"}
    assert (tmp_path / "predictions" / "epoch_003" / "disc0.png").is_file()
    assert all(Image.open(tmp_path / name).width > 500 for name in ("loss.png", "miou.png"))
    with (tmp_path / "history.csv").open(encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    assert runs.read_history(tmp_path / "history.csv") == run.history
    about = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["about"]
    assert torch.__version__.startswith(about["versions"]["torch"])


def test_the_best_model_is_rebuilt_from_its_file_alone_and_scores_what_the_history_says(tmp_path):
    run = train(tmp_path)
    model = load_model(tmp_path / "best_model.pth")
    assert not model.training
    assert model.class_names == ["background", "disc"]
    measured = measure(model, Discs(5), BCEDiceLoss(), batch_size=4)
    assert measured.matrix.iou()[1].item() == pytest.approx(run.best["val_iou"], abs=1e-9)
    assert measured.loss == pytest.approx(run.best["val_loss"], abs=1e-6)


def test_the_model_of_the_best_epoch_is_kept_and_not_the_last(tmp_path):
    class Shrinking(Discs):
        """Of each image 2, 6, then 4 rows are class 1."""

        rows = iter([2, 6, 4])

        def __getitem__(self, index):
            image, mask, name = super().__getitem__(index)
            mask[:] = 0
            mask[: next(self.rows)] = 1
            return image, mask, name

    model = ConvNet()
    torch.nn.init.constant_(model.layers[-1].bias, 9.0)  # it predicts class 1 everywhere
    run = train(tmp_path, model, val=Shrinking(1), lr=1e-9, previews=0)
    assert run.column("val_iou") == [2 / 32, 6 / 32, 4 / 32]
    assert run.best["epoch"] == torch.load(tmp_path / "best_model.pth", weights_only=True)["epoch"] == 2


class Resized(Discs):
    """Discs that a transform of the data set has brought to their size."""

    transform = "a resize"


@pytest.mark.parametrize(
    ("data", "augment", "size"),
    [
        (Discs(4), augmentation(rotate=10), (32, 32)),
        (Discs(6, [(40, 30), (24, 50)] * 3), augmentation(crop=(24, 24)), None),
        (Subset(Resized(6, 40), range(4)), augmentation(crop=(24, 24)), (40, 40)),
    ],
    ids=["rotated", "cropped from images of many sizes", "cropped from resized images"],
)
def test_the_best_model_knows_to_which_size_a_photograph_is_resized(tmp_path, data, augment, size):
    train(tmp_path, data=data, val=Discs(2), augment=augment, epochs=1)
    model = load_model(tmp_path / "best_model.pth")
    assert model.image_size == size
    photograph = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    assert (predict(model, photograph) == predict(model, photograph, size=size or (50, 70))).all()


# ------------------------------------------------------------------------------------------------ data


def test_each_epoch_reads_all_images_in_an_order_of_its_own(tmp_path):
    class Recorded(Discs):
        indices: ClassVar[list[int]] = []

        def __getitem__(self, index):
            self.indices.append(index)
            return super().__getitem__(index)

    train(tmp_path, data=Recorded(9), epochs=2, workers=0)
    first, second = Recorded.indices[-18:-9], Recorded.indices[-9:]
    assert sorted(first) == sorted(second) == list(range(9))
    assert first != second


@pytest.mark.parametrize(("count", "batch_size"), [(1, 2), (2, 3), (3, 2), (5, 2)])
def test_one_image_one_batch_and_one_epoch_are_enough(tmp_path, count, batch_size):
    run = train(tmp_path, data=Discs(count), val=Discs(1), epochs=1, batch_size=batch_size)
    assert len(run.history) == 1
    assert np.isfinite(run.history[0]["train_loss"])


def test_pairs_subsets_and_several_classes_are_trained(tmp_path):
    class Pairs(Discs):
        classes = ("background", "disc", "absent")

        def __getitem__(self, index):
            return super().__getitem__(index)[:2]

    data = Subset(Pairs(6), [0, 2, 4, 5])
    run = train(tmp_path, net(classes=3), data, data, CrossEntropyLoss(), epochs=1)
    assert "iou/absent" in run.history[0]
    assert run.history[0]["val_iou"] == run.history[0]["val_miou"]


def test_images_of_many_sizes_are_measured_without_padding_at_any_batch_size():
    data = Discs(6, [(32, 32), (20, 40), (32, 32), (17, 33), (20, 40), (32, 32)])
    model = net().eval()
    expected = ConfusionMatrix(2)
    for index in range(6):
        image, mask, _ = data[index]
        expected.update((model(image[None]) > 0)[:, 0].long(), mask[None])
    for batch_size in (1, 2, 6):
        assert measure(model, data, batch_size=batch_size).matrix.matrix.tolist() == expected.matrix.tolist()


# ------------------------------------------------------------------------------------------------ what is refused


class Floats(Discs):
    def __getitem__(self, index):
        image, mask, name = super().__getitem__(index)
        return image / 255, mask, name


class OtherClasses(Discs):
    classes = ("disc", "background")


class EqualClasses(Discs):
    classes = ("disc", "disc")


class Detector(ConvNet):
    def forward(self, images):
        return [super().forward(images)]


class WrongLabels(Discs):
    def __getitem__(self, index):
        image, mask, name = super().__getitem__(index)
        return image, mask * 7 if index == 3 else mask, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": Discs(4, [(32, 32), (20, 40)] * 2)}, r"images of different sizes: .*disc.*resize"),
        ({"data": WrongLabels(5)}, r"disc3\.png: mask value 7 .* allowed are 0 to 1"),
        ({"val": WrongLabels(5)}, r"disc3\.png: mask value 7 .* allowed are 0 to 1"),
        ({"data": Floats(4)}, r"disc0\.png: .*uint8.*torch\.float32"),
        ({"val": OtherClasses(4)}, "differ in their classes"),
        ({"data": Subset(Discs(4), [])}, "0 training and 5 validation images"),
        ({"model": ConvNet(classes=5), "loss": CrossEntropyLoss()}, "5 classes"),
        ({"batch_size": 1}, "batch_size=1 cannot train a model with batch norm"),
        ({"data": EqualClasses(4), "val": EqualClasses(4)}, "two classes have the same name"),
        ({"model": Detector()}, "fit trains models that return logits"),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_what_cannot_be_trained_is_refused_with_the_reason(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, **arguments)


def test_a_batch_of_one_trains_a_model_without_batch_norm(tmp_path):
    run = train(tmp_path, ConvNet(), Discs(2), batch_size=1, epochs=1)
    assert len(run.history) == 1
    with pytest.raises(ValueError, match="does not know"):
        run.model()  # no model of seglib.models


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (LossAt({5: make_nan}), r"epoch 2: the loss became nan in step 2 \(files: disc\d+\.png.*rate of 0\.01"),
        (LossAt({5: make_gradient_nan}), "epoch 2: .* nan"),
        (LossAt({3: make_nan}, "validation"), "epoch 2: the validation loss became nan"),
    ],
    ids=["loss", "gradient", "validation loss"],
)
def test_a_number_that_is_not_finite_stops_the_run_and_keeps_the_epoch_before(tmp_path, loss, message):
    """Ten images in batches of four are three steps an epoch."""
    with pytest.raises(FloatingPointError, match=message):
        train(tmp_path / "run", loss=loss, checkpoint_seconds=0)
    checkpoint = runs.read_checkpoint(tmp_path / "run" / runs.LAST)
    assert len(checkpoint["history"]) == 1
    assert all(value.isfinite().all() for value in checkpoint["model"].values())
    resumed = train(tmp_path / "run", loss=BCELoss())
    check_same_end(resumed.dir, train(tmp_path / "whole", loss=BCELoss()).dir)


# ------------------------------------------------------------------------------------------------ resuming


def test_an_interrupt_passes_and_the_same_call_ends_as_if_nothing_had_happened(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", loss=LossAt({5: interrupt}), checkpoint_seconds=0)
    repeated = LossAt({})
    train(tmp_path / "run", loss=repeated)
    assert repeated.count == 6  # the steps of epochs 2 and 3
    check_same_end(tmp_path / "run", train(tmp_path / "whole", loss=BCELoss()).dir)


def test_a_loss_may_use_the_weights_of_the_model(tmp_path):
    model = ConvNet(norm=True)
    before = sum(parameter.abs().sum().item() for parameter in model.parameters())
    train(tmp_path, model, loss=lambda *_: sum(parameter.square().sum() for parameter in model.parameters()), epochs=2)
    assert sum(parameter.abs().sum().item() for parameter in model.parameters()) < before


def test_an_interrupt_before_the_first_checkpoint_gives_the_initial_weights_back(tmp_path):
    model = ConvNet(norm=True)
    with pytest.raises(KeyboardInterrupt):  # in epoch 2
        train(tmp_path / "run", model, loss=LossAt({5: interrupt}))
    assert not (tmp_path / "run" / runs.LAST).exists()
    train(tmp_path / "run", model, loss=LossAt({}))
    train(tmp_path / "other", ConvNet(norm=True), loss=LossAt({}))
    check_same_end(tmp_path / "run", tmp_path / "other")


def test_epochs_that_have_no_checkpoint_leave_the_history_when_a_run_resumes(tmp_path):
    train(tmp_path, loss=LossAt({}), epochs=1)
    for loss, rows in ((LossAt({4: interrupt}), 2), (LossAt({1: interrupt}), 1)):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, loss=loss, epochs=3, checkpoint_seconds=3600)
        assert len(runs.read_history(tmp_path / "history.csv")) == rows


@pytest.mark.parametrize(("seconds", "count"), [(0, 4), (3600, 1)])
def test_a_checkpoint_is_written_when_it_is_due_and_after_the_last_epoch(tmp_path, monkeypatch, seconds, count):
    rename = os.replace
    written = []

    def record(source, target):
        written.append(Path(target).name)
        rename(source, target)

    monkeypatch.setattr(os, "replace", record)
    train(tmp_path, data=Discs(2), epochs=4, checkpoint_seconds=seconds)
    assert written.count("checkpoint.pth") == count


def test_random_draws_do_not_depend_on_the_number_of_workers(tmp_path):
    alone, helped = (train(tmp_path / f"{n}", ConvNet(stochastic=True), workers=n, epochs=2) for n in (0, 2))
    assert alone.column("train_loss") == helped.column("train_loss")


def test_a_finished_run_is_returned_without_training(tmp_path, capsys):
    first = train(tmp_path, epochs=1, loss=BCELoss())
    again = train(tmp_path, net(seed=5), epochs=1, loss=LossAt({1: interrupt}))
    assert again.finished
    assert again.history == first.history
    assert "nothing to train" in capsys.readouterr().out


def test_training_stops_early_and_the_rate_falls_when_the_validation_loss_does_not(tmp_path):
    run = train(tmp_path, loss=ConstantLoss(), epochs=9, patience=2, scheduler="plateau", plateau_patience=0, lr=0.4)
    assert run.finished
    assert run.column("lr") == pytest.approx([0.4, 0.4, 0.2])


# ------------------------------------------------------------------------------------------------ mixed precision


@pytest.fixture
def _mixed_precision(monkeypatch):
    """Train in bf16 with a gradient scaler, as fp16 on a GPU has one; works on a CPU."""

    def accelerator(*_):
        accelerator = Accelerator(mixed_precision="bf16", cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu")
        return accelerator

    AcceleratorState._reset_state(True)  # accelerate keeps one precision for a process
    monkeypatch.setattr("seglib.train._make_accelerator", accelerator)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.usefixtures("_mixed_precision")
def test_steps_that_overflow_are_skipped_and_the_run_resumes_the_same(tmp_path):
    overflow = {1: make_gradient_infinite, 2: make_gradient_infinite}
    settings = {"warmup_steps": 3, "checkpoint_seconds": 0}
    whole = train(tmp_path / "whole", loss=LossAt(overflow), **settings)
    assert whole.column("lr")[0] == pytest.approx(0.02 / 3)  # one step of the warm-up, two were skipped
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", loss=LossAt({**overflow, 8: interrupt}), **settings)
    run = train(tmp_path / "run", loss=LossAt({}), **settings)
    check_same_end(run.dir, whole.dir)


@pytest.mark.usefixtures("_mixed_precision")
def test_a_run_that_skips_every_step_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("seglib.train.MIN_SCALE", 2.0**13)  # the scale of the loss begins at 2**16
    overflow = dict.fromkeys(range(1, 99), make_gradient_infinite)
    with pytest.raises(FloatingPointError, match="epoch 2: the gradient is infinite in every step"):
        train(tmp_path, loss=LossAt(overflow))


def test_a_run_in_another_precision_may_follow_in_the_same_process(tmp_path, monkeypatch):
    for precision in ("bf16", "no"):
        for module in ("config", "train"):
            monkeypatch.setattr(f"seglib.{module}.default_precision", lambda precision=precision: precision)
        train(tmp_path / precision, epochs=1)
        settings = json.loads((tmp_path / precision / "config.json").read_text(encoding="utf-8"))["settings"]
        assert settings["precision"] == AcceleratorState().mixed_precision == precision


# ------------------------------------------------------------------------------------------------ trackers


def read_tensorboard(run_dir):
    """The epochs and validation losses that TensorBoard shows."""
    events = EventAccumulator(str(run_dir / "tensorboard" / "seglib")).Reload()
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars("val_loss")]


def test_tensorboard_shows_each_epoch_once_after_a_run_is_resumed(tmp_path):
    settings = {"epochs": 4, "trackers": ("tensorboard",), "previews": 0}
    for loss, seconds in ((LossAt({4: interrupt}), 0), (LossAt({7: interrupt}), 3600)):
        with pytest.raises(KeyboardInterrupt):  # in epoch 2, then in epoch 4
            train(tmp_path, loss=loss, checkpoint_seconds=seconds, **settings)
    run = train(tmp_path, loss=LossAt({}), **settings)  # repeats epochs 2 to 4
    assert read_tensorboard(tmp_path) == list(enumerate(run.column("val_loss"), 1))


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.tracking._available_trackers", [])
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'seglib\[wandb\]'"):
        train(tmp_path, trackers=("wandb",))


def test_a_resumed_run_is_the_same_run_in_weights_and_biases(tmp_path, monkeypatch):
    wandb = MagicMock(__spec__=ModuleSpec("wandb", None))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr("accelerate.tracking._available_trackers", [LoggerType.WANDB])
    for epochs in (1, 2):
        run = train(tmp_path / "run", epochs=epochs, trackers=("wandb",))
    assert [call.kwargs["id"] for call in wandb.init.call_args_list] == [run.about["id"]] * 2
    assert wandb.init.call_args.kwargs["resume"] == "allow"
    assert {call.kwargs["step"] for call in wandb.init().log.call_args_list} == {1, 2}
    assert wandb.init().finish.call_count == 2


def test_tensorboard_does_not_import_tensorflow(tmp_path, monkeypatch):
    """Importing it takes long and prints warnings on Colab, where it is installed."""
    train(tmp_path, epochs=1, trackers=("tensorboard",))
    monkeypatch.setitem(sys.modules, "tensorflow", MagicMock(__version__="the real one"))
    assert importlib.reload(tensorboard.compat).tf.__version__ == "stub"
