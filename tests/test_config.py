"""Each setting of a training does what its line says."""

import weakref

import pytest
import torch
from torch import nn

from seglib.config import make_optimizer, make_schedule, make_warmup, what_needs_less_memory
from seglib.losses import BCELoss, CEDiceLoss, CrossEntropyLoss, DiceLoss, weight_of, weighted_mean
from seglib.train import measure
from tests.helpers.discs import Discs, Unsure, config, train


def test_settings_that_make_no_sense_are_refused():
    for settings in (
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0},
        {"optimizer": "adm"},
        {"scheduler": "step"},
        {"epochs": 2.5},
        {"patience": 0},
        {"previews": -1},
        {"seed": -1},
        {"accumulate": 0},
        {"warmup_steps": -1},
        {"max_grad_norm": 0},
        {"checkpoint_minutes": -1},
        {"trackers": ("wandbb",)},
        {"plateau_factor": 2.0},
    ):
        with pytest.raises(ValueError):
            config(**settings)


class Plain(nn.Module):
    """A net without batch norm."""

    settings = None

    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, classes, 3, padding=1))

    def forward(self, images):
        return self.layers(images.float() / 255)


# ------------------------------------------------------------------------------------------------ steps


def end(tmp_path, name, loss, classes=1, **settings) -> nn.Module:
    model = Plain(classes)
    train(tmp_path / name, model, Unsure(14), loss=loss, optimizer="sgd", lr=0.1, epochs=2, **settings)
    return model


def distance(one: nn.Module, other: nn.Module) -> float:
    return max((a - b).abs().max().item() for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("loss", "classes"),
    [(BCELoss(), 1), (BCELoss(pos_weight=3.0), 1), (CrossEntropyLoss(), 2), (CrossEntropyLoss((1.0, 5.0)), 2)],
)
@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (2, 4), (1, 8)])
def test_accumulated_batches_make_the_step_of_the_whole(tmp_path, loss, classes, batch_size, accumulate):
    whole = end(tmp_path, "whole", loss, classes, batch_size=8)
    parts = end(tmp_path, "parts", loss, classes, batch_size=batch_size, accumulate=accumulate)
    assert distance(whole, parts) < 1e-6 < 1e-3 < distance(whole, Plain(classes))


def test_accumulated_dice_is_not_that_of_the_whole(tmp_path):
    whole = end(tmp_path, "whole", DiceLoss(), batch_size=8)
    assert distance(whole, end(tmp_path, "parts", DiceLoss(), batch_size=2, accumulate=4)) > 1e-5


def test_the_loss_of_parts_weighs_as_the_pixels_of_the_whole():
    logits, mask = torch.randn(4, 2, 8, 8), torch.randint(0, 2, (4, 8, 8)).to(torch.uint8)
    mask[0], mask[1, :6] = 255, 255
    for loss in (CrossEntropyLoss(), CrossEntropyLoss((1.0, 5.0))):
        parts = [(loss(logits[i : i + 1], mask[i : i + 1]).item(), weight_of(loss, mask[i : i + 1])) for i in range(4)]
        assert weighted_mean(parts) == pytest.approx(loss(logits, mask).item(), abs=1e-6)
    assert weight_of(BCELoss(), mask) == (mask != 255).sum() and weight_of(CrossEntropyLoss((1.0, 5.0)), mask[:1]) == 0


def test_the_validation_loss_is_that_of_all_pixels_at_once_whatever_the_batches():
    data, model = Unsure(14), Plain(2).eval()
    images, masks = (torch.stack(parts) for parts in list(zip(*(data[i] for i in range(14)), strict=True))[:2])
    for loss in (CrossEntropyLoss(), CrossEntropyLoss((1.0, 5.0))):
        expected = loss(model(images), masks).item()
        for batch_size in (1, 3, 14):
            assert measure(model, data, loss, batch_size).loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("longest", [1e-3, 1e-2])
def test_a_gradient_longer_than_max_grad_norm_is_shortened_to_it(tmp_path, longest):
    """One step of plain descent moves the weights by the learning rate times the gradient."""
    data, model, lr = Discs(4), Plain(), 0.1
    optimizer = torch.optim.SGD(model.parameters(), lr)
    images, masks = (torch.stack(parts) for parts in list(zip(*(data[i] for i in range(4)), strict=True))[:2])
    BCELoss()(model(images), masks).backward()
    assert nn.utils.clip_grad_norm_(model.parameters(), longest) > longest
    optimizer.step()
    sgd = Plain()
    train(tmp_path, sgd, data, loss=BCELoss(), optimizer="sgd", lr=lr, epochs=1, max_grad_norm=longest)
    moved = torch.cat([(a - b).flatten() for a, b in zip(sgd.parameters(), Plain().parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(lr * longest, rel=1e-4)
    assert distance(sgd, model) < 1e-6


# ------------------------------------------------------------------------------------------------ rates


def rates(steps: int, per_epoch: int, losses=None, **chosen) -> list[float]:
    """The learning rate of each step."""
    model = Plain()
    chosen = config(lr=0.5, **chosen)
    optimizer = make_optimizer(model, chosen)
    warmup, schedule = make_warmup(optimizer, chosen), make_schedule(optimizer, chosen)
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warmup.step()
        if (step + 1) % per_epoch == 0 and schedule is not None:
            schedule.step(*([losses[step // per_epoch]] if losses else []))
    return found


def test_warm_up_rises_evenly_to_the_whole_rate():
    assert rates(7, 99, warmup_steps=5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5])
    assert rates(3, 99, warmup_steps=1) == rates(3, 99) == [0.5] * 3


def test_cosine_falls_to_nothing_at_the_last_epoch_also_after_a_warm_up():
    cosine = [0.5 * (1 + torch.cos(torch.tensor(epoch * torch.pi / 4)).item()) / 2 for epoch in range(4) for _ in "ab"]
    assert rates(8, 2, scheduler="cosine", epochs=4) == pytest.approx(cosine)
    warm = [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    expected = [rate * factor for rate, factor in zip(cosine, warm, strict=True)]
    assert rates(8, 2, scheduler="cosine", epochs=4, warmup_steps=4) == pytest.approx(expected)


def test_plateau_falls_when_the_loss_does_not_also_within_a_warm_up():
    losses = [1.0, 0.9, 0.95, 0.92, 0.8]
    chosen = {"scheduler": "plateau", "plateau_patience": 1, "plateau_factor": 0.1}
    assert rates(5, 1, losses, **chosen) == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.05])
    assert rates(5, 1, losses, warmup_steps=2, **chosen) == pytest.approx([0.25, 0.5, 0.5, 0.5, 0.05])


def test_a_run_notes_the_rate_it_used(tmp_path):
    run = train(tmp_path, epochs=3, warmup_steps=5, batch_size=5)  # two steps an epoch
    assert run.column("lr") == pytest.approx([0.006, 0.01, 0.01])


# ------------------------------------------------------------------------------------------------ class weights


def test_class_weights_of_the_settings_are_those_of_the_loss(tmp_path):
    def weights(name, loss, **chosen):
        model = Plain(2)
        train(tmp_path / name, model, Discs(6), loss=loss, epochs=1, **chosen)
        return model

    for loss in (CrossEntropyLoss, CEDiceLoss):
        one = weights(f"{loss}1", loss(), class_weights=(1.0, 4.0))
        assert distance(one, weights(f"{loss}2", loss(class_weights=(1.0, 4.0)))) == 0
        assert distance(one, weights(f"{loss}3", loss())) > 0


def test_class_weights_that_no_loss_takes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="takes no class_weights"):
        train(tmp_path / "a", loss=BCELoss(), class_weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="both in the settings"):
        train(tmp_path / "b", Plain(2), loss=CrossEntropyLoss((1.0, 2.0)), class_weights=(1.0, 3.0))
    with pytest.raises(ValueError, match="3 class weights for 2 classes"):
        train(tmp_path / "c", Plain(2), loss=CrossEntropyLoss(), class_weights=(1.0, 2.0, 3.0))


# ------------------------------------------------------------------------------------------------ memory


class Greedy(nn.Module):
    """Runs out of memory at the first step, as torch does on a GPU."""

    settings = None

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, images):
        if torch.is_grad_enabled():
            made = images.float()
            self.made = weakref.ref(made)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
        return self.conv(images.float())


def test_out_of_memory_names_sizes_and_settings_that_need_less(tmp_path):
    model = Greedy()
    with pytest.raises(torch.OutOfMemoryError) as error:
        train(tmp_path, model, batch_size=6)
    told = str(error.value)
    assert "Tried to allocate 2.00 GiB" in told and "batches of 6 images of 32x32" in told
    assert (
        "batch_size=3, accumulate=2: a step then takes 6 images, so it is the same" in told
        and "cropped to 16x16" in told
    )
    assert model.made() is None  # who keeps the error keeps no memory with it


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "said"),
    [(8, 1, "batch_size=4, accumulate=2"), (9, 2, "batch_size=3, accumulate=6"), (4, 3, "batch_size=2, accumulate=6")]
    + [(5, 1, "batch_size=2, accumulate=2: a step then takes 4 images, so it is nearly the same")],
)
def test_the_settings_it_names_take_as_many_images(batch_size, accumulate, said):
    chosen = config(batch_size=batch_size, accumulate=accumulate)
    assert said in what_needs_less_memory(chosen, (64, 48), torch.device("cpu"))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_where_no_smaller_batch_is_the_same_smaller_images_are_named(batch_size):
    told = what_needs_less_memory(config(batch_size=batch_size), (64, 48), torch.device("cpu"))
    assert "accumulate" not in told and "cropped to 32x24" in told


def test_the_memory_of_the_gpu_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**30, 16 * 2**30))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 12 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    told = what_needs_less_memory(config(batch_size=8), (64, 48), torch.device("cuda"))
    assert "on Tesla T4 (16.0 GiB, of which 1.0 are free; this process had up to 12.0)" in told
