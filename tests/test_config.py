"""TrainConfig: each setting does what its description says."""

import weakref

import pytest
import torch
from torch import nn

from seglib.config import (
    check_precision,
    default_precision,
    explain_out_of_memory,
    is_out_of_memory,
    make_optimizer,
    make_schedules,
    step_schedule,
)
from seglib.losses import BCELoss, CEDiceLoss, CrossEntropyLoss
from tests.helpers.discs import ConvNet, Discs, PartlyIgnored, config, train


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"epochs": 2.5},
        {"seed": -1},
        {"patience": 0},
        {"lr": 0},
        {"max_grad_norm": 0},
        {"optimizer": "adm"},
        {"scheduler": "step"},
        {"trackers": ("wandbb",)},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused_by_name(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name.removesuffix("s")):
        config(**settings)


# ------------------------------------------------------------------------------------------------ optimizer steps


def trained(run_dir, loss, classes=1, **settings) -> nn.Module:
    """A model after two epochs on images of which more and more is ignored."""
    model = ConvNet(classes)
    settings = {"optimizer": "sgd", "lr": 0.1, "epochs": 2, "previews": 0} | settings
    train(run_dir, model, PartlyIgnored(14), loss=loss, **settings)
    return model


def distance(one: nn.Module, other: nn.Module) -> float:
    """The largest difference between two parameters."""
    return max((a - b).abs().max().item() for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("loss", "classes", "batch_size", "accumulate"),
    [
        (BCELoss(), 1, 4, 2),
        (BCELoss(pos_weight=3.0), 1, 2, 4),
        (CrossEntropyLoss(), 2, 1, 8),
        (CrossEntropyLoss((1.0, 5.0)), 2, 4, 2),
    ],
)
def test_accumulated_batches_make_the_step_of_one_large_batch(tmp_path, loss, classes, batch_size, accumulate):
    """Fourteen images make one step of eight and an incomplete one of six."""
    large = trained(tmp_path / "large", loss, classes, batch_size=8)
    small = trained(tmp_path / "small", loss, classes, batch_size=batch_size, accumulate=accumulate)
    assert distance(large, small) < 1e-6
    assert distance(large, ConvNet(classes)) > 1e-3


def test_the_gradient_is_clipped_to_max_grad_norm(tmp_path):
    """One step of gradient descent moves the weights by the learning rate times the gradient."""
    model = ConvNet()
    settings = {"optimizer": "sgd", "lr": 0.1, "epochs": 1, "previews": 0}
    train(tmp_path, model, Discs(4), loss=BCELoss(), max_grad_norm=1e-3, **settings)
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), ConvNet().parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


@pytest.mark.parametrize("loss", [CrossEntropyLoss, CEDiceLoss])
def test_class_weights_of_the_config_equal_those_of_the_loss(tmp_path, loss):
    by_config = trained(tmp_path / "config", loss(), 2, class_weights=(1.0, 4.0))
    by_loss = trained(tmp_path / "loss", loss(class_weights=(1.0, 4.0)), 2)
    assert distance(by_config, by_loss) == 0
    assert distance(by_config, trained(tmp_path / "none", loss(), 2)) > 0


@pytest.mark.parametrize(
    ("loss", "weights", "message"),
    [
        (BCELoss(), (1.0, 2.0), "class_weights do not fit"),
        (CrossEntropyLoss((1.0, 2.0)), (1.0, 3.0), "class_weights do not fit"),
        (CrossEntropyLoss(), (1.0, 2.0, 3.0), "3 class weights for 2 classes"),
    ],
)
def test_class_weights_that_do_not_fit_the_loss_are_refused(tmp_path, loss, weights, message):
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, loss, classes=2, class_weights=weights)


# ------------------------------------------------------------------------------------------------ learning rates


def learning_rates(steps_per_epoch: int, losses: list[float], **settings) -> list[float]:
    """The learning rate of each step of a training from 0.5 whose epochs have these validation losses."""
    settings = config(lr=0.5, **settings)
    optimizer = make_optimizer(ConvNet(), settings)
    schedules = make_schedules(optimizer, settings)
    rates = []
    for loss in losses:
        for _ in range(steps_per_epoch):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
        step_schedule(schedules.get("schedule"), loss)
    return rates


def test_warm_up_raises_the_rate_linearly():
    assert learning_rates(7, [1.0], warmup_steps=5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5])


@pytest.mark.parametrize(("warmup", "factors"), [(0, [1] * 8), (4, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1])])
def test_cosine_lowers_the_rate_to_zero_at_the_last_epoch(warmup, factors):
    cosine = [0.5 * (1 + torch.cos(torch.tensor(torch.pi * (step // 2) / 4)).item()) / 2 for step in range(8)]
    expected = [rate * factor for rate, factor in zip(cosine, factors, strict=True)]
    assert learning_rates(2, [1.0] * 4, scheduler="cosine", epochs=4, warmup_steps=warmup) == pytest.approx(expected)


@pytest.mark.parametrize(("warmup", "expected"), [(0, [0.5, 0.5, 0.5, 0.5, 0.05]), (2, [0.25, 0.5, 0.5, 0.5, 0.05])])
def test_plateau_lowers_the_rate_when_the_loss_does_not_fall(warmup, expected):
    settings = {"scheduler": "plateau", "plateau_patience": 1, "plateau_factor": 0.1, "warmup_steps": warmup}
    assert learning_rates(1, [1.0, 0.9, 0.95, 0.92, 0.8], **settings) == pytest.approx(expected)


def test_the_history_holds_the_rate_at_the_end_of_each_epoch(tmp_path):
    run = train(tmp_path, ConvNet(), epochs=3, warmup_steps=5, batch_size=5)  # two steps an epoch
    assert run.column("lr") == pytest.approx([0.006, 0.01, 0.01])


# ------------------------------------------------------------------------------------------------ precision


@pytest.mark.parametrize(
    ("gpu", "bf16", "expected"), [(False, True, "no"), (True, True, "bf16"), (True, False, "fp16")]
)
def test_mixed_precision_is_the_one_that_the_gpu_computes(monkeypatch, gpu, bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert default_precision() == expected


@pytest.mark.parametrize(
    ("began_in", "here", "possible"),
    [
        ("fp16", "fp16", True),
        ("fp16", "bf16", True),
        ("fp16", "no", False),
        ("bf16", "fp16", False),
        ("no", "bf16", True),
    ],
)
def test_a_run_resumes_in_the_precision_in_which_it_began_where_the_machine_offers_it(
    monkeypatch, began_in, here, possible
):
    monkeypatch.setattr("seglib.config.default_precision", lambda: here)
    if possible:
        check_precision(began_in)
    else:
        with pytest.raises(ValueError, match=f"began in {began_in}.*Resume it on a GPU"):
            check_precision(began_in)


# ------------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("sizes do not match"), False),
        (KeyError("out of memory"), False),
    ],
    ids=repr,
)
def test_errors_that_mean_out_of_memory_are_recognized(error, expected):
    assert is_out_of_memory(error) == expected


class TooLarge(nn.Module):
    """Runs out of memory at the first training step, as cuDNN does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, images):
        if torch.is_grad_enabled():
            converted = images.float()
            TooLarge.converted = weakref.ref(converted)
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED\nThis error ...")
        return self.conv(images.float())


def test_a_run_that_is_out_of_memory_names_settings_that_need_less(tmp_path):
    model = TooLarge()
    with pytest.raises(torch.OutOfMemoryError) as error:
        train(tmp_path, model, batch_size=6)
    message = str(error.value)
    assert "ALLOC_FAILED" in message
    assert "batches of 6 images of 32x32" in message
    assert "batch_size=3, accumulate=2: each step then has 6 images" in message
    assert "smaller images: 16x16" in message
    assert TooLarge.converted() is None  # an error that a notebook keeps does not keep the tensors


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "advice"),
    [
        (9, 2, "batch_size=4, accumulate=4: each step then has 16 images"),
        (5, 1, "batch_size=2, accumulate=2: each step then has 4 images"),
        (3, 1, "images of 64x48. Or use smaller images: 32x24"),
    ],
)
def test_the_smaller_batches_make_the_same_step_where_possible(batch_size, accumulate, advice):
    settings = config(batch_size=batch_size, accumulate=accumulate)
    with pytest.raises(torch.OutOfMemoryError) as error, explain_out_of_memory(settings, (64, 48)):
        raise MemoryError
    assert advice in str(error.value)
