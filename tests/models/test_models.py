"""Models: published sizes, the contract of forward, checkpoints."""

import pickle

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.utils.data import TensorDataset

from seglib.losses import CEDiceLoss, CrossEntropyLoss
from seglib.models import INSTANCES, MODELS, SegNet, UNet, build_model, load_model, logits_to_mask
from seglib.models.common import pad_to_stride
from seglib.models.smp import BatchNorm, FromSMP
from seglib.train import TrainConfig, fit
from tests.helpers.discs import Discs, train

# Every model of the zoo, with the smallest encoder it can have, for what does not depend on the encoder.
SMALL = {name: {"encoder": "resnet18"} for name in MODELS} | {
    "unet": {"base_channels": 4},
    "segnet": {},
    "segformer": {"encoder": "mit_b0"},
    "dpt": {"encoder": "tu-vit_tiny_patch16_224"},
}
# The decoder of alexgkendall/SegNet-Tutorial, Models/segnet_train.prototxt: what each convolution gives, but the last.
SEGNET_DECODER = [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64]


def parameters(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("bilinear", "count"), [(False, 31_037_633), (True, 17_262_977)])
def test_unet_has_the_published_number_of_parameters(bilinear, count):
    """The counts of github.com/milesial/Pytorch-UNet, the U-Net with batch norm that most people run."""
    assert parameters(UNet(3, 1, 64, 4, bilinear=bilinear)) == count


def convolutions(module) -> list[tuple[int, int]]:
    return [(m.in_channels, m.out_channels) for m in module.modules() if isinstance(m, nn.Conv2d)]


def test_segnet_without_skip_connections_is_the_papers():
    """Thirteen convolutions each way (arXiv:1511.00561, section 3), 14.7 M parameters in the encoder, 117 MB in all."""
    model = SegNet(classes=11, skip=False)
    down, up = convolutions(model.encoder), convolutions(model.decoder)
    assert len(down) == 13 and len(up) + len(convolutions(model.head)) == 13
    vgg16 = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert down == list(zip([3, *vgg16], vgg16, strict=False))
    assert up == list(zip([512, *SEGNET_DECODER], SEGNET_DECODER, strict=False))
    assert convolutions(model.head) == [(64, 11)]

    # The published count of VGG16, less its three fully connected layers, is what "14.7M" rounds.
    connected = (512 * 7 * 7 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    of_convolutions = sum(9 * a * b + b for a, b in down)
    assert of_convolutions == 138_357_544 - connected == parameters(SegNet(batch_norm=False).encoder)
    of_batch_norm = 2 * sum(b for _, b in down + up)
    assert parameters(model) == of_convolutions + sum(9 * a * b + b for a, b in [*up, (64, 11)]) + of_batch_norm
    assert 117e6 < 4 * parameters(model) < 118e6


def test_segnets_skip_connections_and_learned_upsampling_cost_what_they_add():
    paper, skip, learned = SegNet(skip=False), SegNet(), SegNet(skip=False, upsampling="learned")
    widths = [(512, 512), (512, 512), (256, 256), (128, 128), (64, 64)]  # first convolution of each decoder stage
    assert parameters(skip) - parameters(paper) == sum(9 * a * b for a, b in widths)
    assert parameters(learned) - parameters(paper) == sum(4 * a * a + a for a, _ in widths)
    with pytest.raises(ValueError, match="there are indices and learned"):
        SegNet(upsampling="bilinear")


def test_segnet_puts_values_back_where_pooling_found_them():
    """One bright pixel, in any corner of its window: what comes out of the first unpooling is in that corner."""
    model = SegNet(skip=False).eval()
    enlarged = []
    model.decoder[-1].enlarge.register_forward_hook(lambda _m, _i, out: enlarged.append(out))
    pooled = []
    model.encoder[0].register_forward_hook(lambda _m, _i, out: pooled.append(out))
    model(torch.randint(0, 256, (1, 3, 32, 32)).float())
    seen, back = pooled[0], enlarged[0]
    windows = seen.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)  # (1, C, H/2, W/2, 4)
    of_back = back.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    elsewhere = torch.ones_like(windows, dtype=torch.bool).scatter(4, windows.argmax(4, keepdim=True), False)
    assert (of_back[elsewhere] == 0).all() and (back != 0).any()


@pytest.mark.parametrize("skip", [True, False])
def test_segnets_skip_connections_carry_the_encoders_own_features(skip):
    """With the way through the bottom cut, only they can still tell two pictures apart."""
    model = SegNet(skip=skip, upsampling="learned").eval()
    model.encoder[-1].register_forward_hook(lambda *_: torch.zeros(1, 512, 2, 2))
    with torch.no_grad():
        some, other = model(torch.zeros(1, 3, 32, 32)), model(torch.full((1, 3, 32, 32), 255.0))
    assert torch.equal(some, other) is not skip


@pytest.mark.parametrize("batch_norm", [True, False])
def test_an_untrained_segnet_keeps_its_signal_and_is_sure_of_nothing(batch_norm):
    """He's initialisation: neither do 26 layers make the signal vanish, nor do the logits start far from 0."""
    torch.manual_seed(0)
    model, deepest = SegNet(classes=5, batch_norm=batch_norm).train(), []
    model.encoder[-1].register_forward_hook(lambda _m, _i, out: deepest.append(out))
    with torch.no_grad():
        logits = model(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    assert 0.2 < deepest[0].std() < 5
    assert 0.05 < logits.std() < 0.8


def test_deeplabv3_has_the_published_number_of_parameters():
    """torchvision publishes 42,004,074 for deeplabv3_resnet50 with 21 classes and an auxiliary head (FCN, 1024 to 256
    to 21), which segmentation_models_pytorch's has not."""
    auxiliary = 9 * 1024 * 256 + 2 * 256 + 256 * 21 + 21
    assert parameters(build_model("deeplabv3", classes=21)) == 42_004_074 - auxiliary


@pytest.mark.parametrize("name", [name for name in MODELS if name not in INSTANCES])  # those: test_yolo, test_maskrcnn
def test_every_model_of_the_zoo_keeps_the_contract(name):
    model = build_model(name, classes=3, **SMALL[name]).eval()
    again = build_model(**model.settings)
    assert again.settings == model.settings and parameters(again) == parameters(model)
    for size in ((1, 1), (33, 65), (101, 133)):
        images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        with torch.no_grad():
            logits = model(images)
            assert logits.shape == (2, 3, *size) and logits.isfinite().all()
            assert torch.equal(model(images.float()), logits)
    with pytest.raises(ValueError, match="one image goes in as image"):
        model(images[0])


@pytest.mark.parametrize("name", ["segnet", "deeplabv3"])
def test_a_photograph_many_times_the_stride_goes_through_the_lessons_models(name):
    with torch.no_grad():
        assert build_model(name, classes=5).eval()(torch.zeros(1, 3, 300, 450)).shape == (1, 5, 300, 450)


@pytest.mark.parametrize("name", ["unet", "fpn"])
def test_the_normalisation_is_the_one_kept_in_the_model(name):
    model = FromSMP(name, 2, "resnet18").eval()
    model.mean[:], model.std[:] = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    images = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8)
    shifted = (images / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    assert torch.allclose(model(images), model.net(shifted), atol=1e-5)
    for own in (model, SegNet(), UNet(base_channels=4)):
        assert {"mean", "std"} <= set(own.state_dict())


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus", "pan", "upernet"])
def test_one_image_can_be_trained_on_where_batch_norm_follows_a_pooling(name):
    """segmentation_models_pytorch's own raise: "Expected more than 1 value per channel when training"."""
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        smp.create_model(name, "resnet18", encoder_weights=None).train()(torch.zeros(1, 3, 128, 128))
    model = build_model(name, classes=2, encoder="resnet18").train()
    logits = model(torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8))
    logits.mean().backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_one_value_a_channel_is_normalised_by_what_was_seen_before():
    norm = BatchNorm(2).train()
    norm.running_mean[:], norm.running_var[:] = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 9.0])
    with torch.no_grad():
        norm.weight[:], norm.bias[:] = torch.tensor([2.0, 3.0]), torch.tensor([0.5, 0.0])
    given = torch.tensor([5.0, 8.0]).view(1, 2, 1, 1)
    expected = [2 * (5 - 1) / 2 + 0.5, 3 * (8 - 2) / 3]
    assert norm(given).flatten().tolist() == pytest.approx(expected, rel=1e-4)
    assert norm.running_mean.tolist() == [1, 2] and norm.running_var.tolist() == [4, 9]  # it has learnt nothing new


@pytest.mark.parametrize(
    ("name", "settings"),
    [("deeplabv3", {"upsampling": 4}), ("pspnet", {"encoder_depth": 4}), ("fpn", {"upsampling": 1})],
)
def test_settings_that_make_an_architecture_give_less_change_no_size(name, settings):
    model = build_model(name, classes=2, encoder="resnet18", **settings).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 70, 100)).shape == (1, 2, 70, 100)


def test_encoders_that_nobody_names_are_the_ones_listed():
    encoders = {
        name: build_model(name, classes=2).settings["encoder"] for name in ("deeplabv3", "deeplabv3plus", "fpn")
    }
    assert set(encoders.values()) == {"resnet50"}
    assert build_model("segformer", classes=2).settings["encoder"] == "mit_b2"


def test_for_two_images_nothing_is_different_from_the_librarys_own():
    model = build_model("deeplabv3", classes=2, encoder="resnet18").train()
    theirs = smp.create_model("deeplabv3", "resnet18", encoder_weights=None, classes=2).train()
    theirs.load_state_dict(model.net.state_dict())
    for dropout in [m for net in (model, theirs) for m in net.modules() if isinstance(m, nn.Dropout)]:
        dropout.p = 0.0
    images = torch.randint(0, 256, (2, 3, 64, 64)).float()
    prepared = (images / 255 - model.mean.view(3, 1, 1)) / model.std.view(3, 1, 1)
    assert torch.equal(model(images), theirs(prepared))
    mine, other = model.net.state_dict(), theirs.state_dict()
    assert all(torch.equal(mine[name], other[name]) for name in other)  # the running statistics, too


def test_fit_trains_deeplabv3_on_an_odd_number_of_images(tmp_path):
    """Five images in batches of two: the last would be one alone."""
    images, masks = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8), torch.randint(0, 2, (5, 32, 32))
    data = TensorDataset(images, masks.to(torch.uint8))
    model = build_model("deeplabv3", classes=2, encoder="resnet18")
    config = TrainConfig(epochs=1, batch_size=2, lr=1e-3, trackers=(), previews=0)
    run = fit(model, data, data, CrossEntropyLoss(), config, tmp_path)
    again = run.model()
    assert again.settings == model.settings and again.image_size == (32, 32)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (101, 133), (15, 257)])
@pytest.mark.parametrize("settings", [{}, {"bilinear": False}, {"skip": False}, {"depth": 5}, {"classes": 7}])
def test_logits_have_the_images_size(size, settings):
    model = UNet(base_channels=4, **settings).eval()
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    assert model(images).shape == (2, settings.get("classes", 1), *size)


def test_bytes_and_floats_of_the_same_pixels_give_the_same_logits():
    model = UNet(base_channels=4).eval()
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(model(images), model(images.float()))


def test_padding_repeats_the_border():
    padded = pad_to_stride(torch.arange(6.0).view(1, 1, 2, 3), 4)
    assert padded.shape == (1, 1, 4, 4)
    assert padded[0, 0, :, 3].tolist() == [2, 5, 5, 5]


def test_without_skip_connections_the_decoder_sees_nothing_of_the_encoder():
    with_skip, without = UNet(base_channels=4).eval(), UNet(base_channels=4, skip=False).eval()
    assert parameters(without) < parameters(with_skip)
    for model, passes in ((with_skip, True), (without, False)):
        model.encoder[-1].register_forward_hook(lambda *_: torch.zeros(1, 32, 2, 2))  # cut the way through the bottom
        black, white = model(torch.zeros(1, 3, 32, 32)), model(torch.full((1, 3, 32, 32), 255.0))
        assert torch.equal(black, white) is not passes


def test_settings_are_enough_to_build_a_model_again():
    model = UNet(classes=3, base_channels=4, depth=2, bilinear=False, skip=False)
    again = build_model(**model.settings)
    assert again.settings == model.settings and parameters(again) == parameters(model)


def test_a_name_or_weights_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="no model 'unett'; there are unet, segnet, deeplabv3,.* segformer"):
        build_model("unett", classes=1)
    with pytest.raises(ValueError, match="weights=None"):
        build_model("unet", classes=1, weights="imagenet")
    with pytest.raises(ValueError, match="no encoder 'resnet5'; there are resnet18, .*tu-"):
        build_model("fpn", classes=1, encoder="resnet5")
    with pytest.raises(ValueError, match=r"no 'imagenet' weights for 'resnext101_32x4d'; there are ssl, swsl"):
        build_model("fpn", classes=1, encoder="resnext101_32x4d", weights="imagenet")
    with pytest.raises(ValueError, match="no 'coco' weights for 'segnet'; there are imagenet"):
        build_model("segnet", classes=1, weights="coco")
    with pytest.raises(ValueError, match="timm has no model 'resnetfoo'"):
        build_model("fpn", classes=1, encoder="tu-resnetfoo")
    with pytest.raises(ValueError, match="weights in its name"):
        build_model("fpn", classes=1, encoder="tu-resnet10t", weights="coco")
    for setting in ("activation", "in_channels", "decoder_chanels", "base_channels"):
        with pytest.raises(
            ValueError, match=rf"'unet' has no setting {setting}; there are encoder, .*decoder_channels"
        ):
            build_model("unet", classes=1, encoder="resnet18", **{setting: 4})
    narrow = build_model("unet", classes=1, encoder="resnet18", decoder_channels=(64, 32, 16, 8, 8))
    assert build_model(**narrow.settings).settings["decoder_channels"] == (64, 32, 16, 8, 8)
    with pytest.raises(ValueError, match="one image goes in as image"):
        UNet(base_channels=4)(torch.zeros(3, 32, 32))


# ------------------------------------------------------------------------------------------------ a frozen encoder


def split_state(model):
    """Copies of all that a model's encoder holds, and of all that is not in it."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    inside = {name: value for name, value in state.items() if name.startswith("net.encoder.")}
    return inside, {name: value for name, value in state.items() if name not in inside}


@pytest.mark.parametrize("name", ["unet", "deeplabv3plus"])
def test_a_frozen_encoder_ends_as_it_began_and_the_rest_does_not(tmp_path, name):
    torch.manual_seed(0)
    model = build_model(name, classes=2, encoder="resnet18", freeze_encoder=True)
    assert not any(part.training for part in model.net.encoder.modules())  # before anybody calls train()
    before, rest = split_state(model)
    assert sum("running_mean" in key for key in before) == 20  # the batch norms of a ResNet-18
    train(
        tmp_path, model, data=Discs(6), loss=CEDiceLoss(), epochs=2, batch_size=2, weight_decay=0.1, optimizer="adamw"
    )
    after, changed = split_state(model)
    assert all(torch.equal(before[key], after[key]) for key in before)
    moved = [key for key in rest if rest[key].is_floating_point() and not torch.equal(rest[key], changed[key])]
    assert any("running_mean" in key for key in moved) and any("segmentation_head" in key for key in moved)
    again = load_model(tmp_path / "best_model.pth")
    assert again.freeze_encoder and not next(again.net.encoder.parameters()).requires_grad
    again.train()
    assert not any(part.training for part in again.net.encoder.modules()) and again.net.decoder.training


@pytest.mark.parametrize("name", ["unet", "segnet"])
def test_what_has_no_encoder_of_others_has_none_to_freeze(name):
    with pytest.raises(ValueError, match="no encoder to freeze: 'unet' has one with encoder='resnet50'"):
        build_model(name, classes=2, freeze_encoder=True)


def test_an_encoder_that_is_not_frozen_is_trained(tmp_path):
    torch.manual_seed(0)
    model = build_model("unet", classes=2, encoder="resnet18")
    before, _ = split_state(model)
    train(tmp_path, model, data=Discs(6), loss=CEDiceLoss(), epochs=1, batch_size=2)
    after, _ = split_state(model)
    assert all(not torch.equal(before[key], after[key]) for key in before if "conv" in key or "running_mean" in key)


def test_the_encoder_of_a_unet_is_resnet50s():
    # torchvision publishes 25,557,032 parameters for ResNet-50, of which its last layer has 2048 * 1000 + 1000
    encoder = build_model("unet", classes=21, encoder="resnet50").net.encoder
    assert sum(p.numel() for p in encoder.parameters()) == 25_557_032 - (2048 * 1000 + 1000)


def test_logits_to_mask_decides():
    assert logits_to_mask(torch.tensor([[[[-1.0, 0.0, 0.1]]]])).tolist() == [[[0, 0, 1]]]
    several = logits_to_mask(torch.tensor([1.0, 3.0, 2.0]).view(1, 3, 1, 1))
    assert several.tolist() == [[[1]]] and several.dtype == torch.uint8


def test_a_checkpoint_that_is_none_is_refused_and_never_run(tmp_path):
    torch.save({"model": {}, "optimizer": {}, "history": []}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=r"best_model\.pth; last/checkpoint\.pth is for training to go on"):
        load_model(tmp_path / "checkpoint.pth")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_model(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="no model of seglib"):
        load_model(tmp_path / "text.pth")

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    torch.save({"model": Evil(), "settings": {}}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(ValueError, match="no model of seglib"):
            load_model(tmp_path / name)
    assert not (tmp_path / "ran").exists()
