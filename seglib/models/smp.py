"""The architectures of segmentation_models_pytorch, behind the contract of this package."""

import inspect
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seglib.models.common import normalise, pad_to_stride
from seglib.models.weights import IMAGENET_MEAN, IMAGENET_STD, explained

# An architecture, and the encoder it gets where none is named.
ENCODERS = {
    "deeplabv3": "resnet50",  # Chen et al., 2017, arXiv:1706.05587
    "deeplabv3plus": "resnet50",  # Chen et al., 2018, arXiv:1802.02611
    "unet": "resnet50",  # Ronneberger et al., 2015, arXiv:1505.04597
    "unetplusplus": "resnet50",  # Zhou et al., 2018, arXiv:1807.10165
    "manet": "resnet50",  # Fan et al., 2020, doi:10.1109/ACCESS.2020.3025372
    "linknet": "resnet50",  # Chaurasia and Culurciello, 2017, arXiv:1707.03718
    "fpn": "resnet50",  # Lin et al., 2017, arXiv:1612.03144
    "pspnet": "resnet50",  # Zhao et al., 2017, arXiv:1612.01105
    "pan": "resnet50",  # Li et al., 2018, arXiv:1805.10180
    "upernet": "resnet50",  # Xiao et al., 2018, arXiv:1807.10221
    "segformer": "mit_b2",  # Xie et al., 2021, arXiv:2105.15203
    "dpt": "tu-vit_base_patch16_224.augreg_in21k",  # Ranftl et al., 2021, arXiv:2103.13413
}
HALVED_BY_DECODER = {"pan": 8, "dpt": 2}  # how much smaller these make what the encoder gives them


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that can be trained on one value a channel: it then uses the statistics it has gathered so far.

    One picture, pooled to one pixel, is one value a channel; it has no variance, and PyTorch refuses it. So the pooled
    branches of DeepLabV3, DeepLabV3+, PAN and UPerNet fail on a batch of one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if self.training and x.numel() == self.num_features:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def with_own_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every nn.BatchNorm2d in a module by a `BatchNorm` in the same state."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            norm = BatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            norm.load_state_dict(child.state_dict())
            setattr(module, name, norm)
        else:
            with_own_batch_norm(child)
    return module


class FromSMP(nn.Module):
    """An architecture of segmentation_models_pytorch (github.com/qubvel-org/segmentation_models.pytorch).

    Args:
        name: one of `ENCODERS`. classes: logits out; 1 for a binary mask.
        encoder: one of that library's encoders ("resnet50", "mit_b2", "efficientnet-b3", ...), or any of timm's with
            "tu-" before its name ("tu-convnext_tiny"). None: the one in `ENCODERS`.
        weights: of the encoder, "imagenet" say; None: from scratch.
        freeze_encoder: leave the encoder as it is while the rest is trained: its weights, the statistics of its batch
            norm, and no dropout in it. Of use with weights only.
        settings: arguments of the architecture itself, decoder_channels=(256, 128, 64, 32, 16) for a U-Net say; with a
            "tu-" encoder also those of timm's.

    Raises:
        ValueError: an encoder, weights or a setting that does not exist.
        OSError: the weights cannot be had; says where they belong.
    """

    def __init__(
        self,
        name: str,
        classes: int = 1,
        encoder: str | None = None,
        weights: str | None = None,
        freeze_encoder: bool = False,
        **settings,
    ) -> None:
        import segmentation_models_pytorch as smp  # takes seconds to import

        super().__init__()
        encoder = encoder or ENCODERS[name]
        check_encoder(encoder)
        check_settings(name, encoder, settings)
        if name == "dpt":  # else its transformer takes pictures of one size only
            settings = {"dynamic_img_size": True, **settings}
        self.settings = {"name": name, "classes": classes, "encoder": encoder, **settings}
        self.settings |= {"freeze_encoder": True} if freeze_encoder else {}
        arguments = {"arch": name, "encoder_name": encoder, "classes": classes, **settings}
        net = smp.create_model(encoder_weights=None, **arguments)  # what is wrong with the settings is said here
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        if weights is not None:
            with explained(f"the {weights} weights of {encoder}", weight_files(encoder, weights)):
                # timm's encoders carry the weights in their name, and are asked for them by True
                net = smp.create_model(encoder_weights=encoder.startswith("tu-") or weights, **arguments)
                trained_with = smp.encoders.get_preprocessing_params(encoder, weights)
                mean, std = trained_with["mean"], trained_with["std"]
        self.weights, self.freeze_encoder = weights, freeze_encoder
        self.net = with_own_batch_norm(net)
        self.net.encoder.requires_grad_(not freeze_encoder)
        self.stride = net.encoder.output_stride * HALVED_BY_DECODER.get(name, 1)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.train()

    def train(self, mode: bool = True) -> "FromSMP":
        """As in any module; but a frozen encoder stays in eval mode, else its batch norm would go on gathering."""
        super().train(mode)
        if self.freeze_encoder:
            self.net.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), uint8 or float 0-255 -> logits (B, classes, H, W)."""
        height, width = images.shape[-2:]
        padded = pad_to_stride(normalise(images, self.mean, self.std), self.stride)
        logits = self.net(padded)
        if logits.shape[-2:] != padded.shape[-2:]:  # settings of the architecture can make it give less
            logits = F.interpolate(logits, padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def check_encoder(name: str) -> None:
    """Raise ValueError, saying which there are, where there is no such encoder."""
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    if name.startswith("tu-"):
        of_timm = name.removeprefix("tu-")
        if not timm.is_model(of_timm.split(".")[0]):
            raise ValueError(f"timm has no model {of_timm!r}: timm.list_models('*{of_timm[:6]}*') shows names like it")
    elif name not in get_encoder_names():
        listed = ", ".join(get_encoder_names())
        raise ValueError(f"no encoder {name!r}; there are {listed}, and any of timm's as tu-<its name>")


def check_settings(name: str, encoder: str, settings: dict) -> None:
    """Raise ValueError for settings that the library would take no notice of, or that would break the contract."""
    from segmentation_models_pytorch import MODEL_ARCHITECTURES_MAPPING

    fixed = {"activation", "aux_params", "in_channels", "classes", "encoder_name", "encoder_weights", "kwargs"}
    known = [key for key in inspect.signature(MODEL_ARCHITECTURES_MAPPING[name]).parameters if key not in fixed]
    wrong = [key for key in settings if key in fixed or not (key in known or encoder.startswith("tu-"))]
    if wrong:
        raise ValueError(
            f"{name!r} has no setting {', '.join(wrong)}; there are encoder, freeze_encoder, {', '.join(known)}"
        )


def weight_files(encoder: str, weights: str) -> dict[Path, str]:
    """The address of each file of an encoder's weights, by its place in the cache of the Hugging Face hub.

    Raises:
        ValueError: there are no such weights; lists those there are.
    """
    import timm
    from huggingface_hub import constants
    from segmentation_models_pytorch.encoders import encoders

    if encoder.startswith("tu-"):
        if weights != "imagenet":
            raise ValueError(
                f"a timm encoder has its weights in its name; weights='imagenet' takes them, not {weights!r}"
            )
        repository = getattr(timm.get_pretrained_cfg(encoder.removeprefix("tu-")), "hf_hub_id", None)
        if repository is None:
            raise ValueError(f"there are no weights for {encoder!r}: another encoder, or weights=None")
        folder = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")
        address = f"{constants.ENDPOINT}/{repository}/resolve/main/model.safetensors"
        newest = "yourself: the four letters main, and no end of line"
        return {folder / "refs" / "main": newest, folder / "snapshots" / "main" / "model.safetensors": address}
    published = encoders[encoder]["pretrained_settings"]
    if weights not in published:
        listed = ", ".join(published) or "none at all"
        raise ValueError(f"there are no {weights!r} weights for {encoder!r}; there are {listed}")
    repository, revision = published[weights]["repo_id"], published[weights]["revision"]
    folder = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}", "snapshots", revision)
    address = f"{constants.ENDPOINT}/{repository}/resolve/{revision}"
    return {folder / file: f"{address}/{file}" for file in ("config.json", "model.safetensors")}
