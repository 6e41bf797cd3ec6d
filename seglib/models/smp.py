"""The architectures of segmentation_models_pytorch, behind the contract of this package."""

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
    "fpn": "resnet50",  # Kirillov et al., 2019, arXiv:1901.02446
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
    branches of DeepLabV3, DeepLabV3+ and PAN fail on a batch of one.
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
        settings: arguments of the architecture itself, decoder_channels=(256, 128, 64, 32, 16) for a U-Net say.

    Raises:
        ValueError: an encoder, weights or a setting that does not exist.
        OSError: the weights cannot be had; says where they belong.
    """

    def __init__(
        self, name: str, classes: int = 1, encoder: str | None = None, weights: str | None = None, **settings
    ) -> None:
        import segmentation_models_pytorch as smp  # takes seconds to import

        super().__init__()
        not_ours = {"activation", "aux_params", "in_channels", "encoder_name", "encoder_weights"} & set(settings)
        if not_ours:
            raise ValueError(f"not to be set: {', '.join(sorted(not_ours))}. A model takes RGB and gives logits")
        encoder = encoder or ENCODERS[name]
        if name == "dpt":  # else its transformer takes pictures of one size only
            settings = {"dynamic_img_size": True, **settings}
        offered = smp.encoders.get_encoder_names()
        if encoder not in offered and not encoder.startswith("tu-"):
            raise ValueError(
                f"no encoder {encoder!r}; there are {', '.join(offered)}, and any of timm's as tu-<its name>"
            )
        self.settings = {"name": name, "classes": classes, "encoder": encoder, **settings}
        arguments = {"arch": name, "encoder_name": encoder, "classes": classes, **settings}
        net = smp.create_model(encoder_weights=None, **arguments)  # what is wrong with the settings is said here
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        if weights is not None:
            with explained(encoder, weight_files(encoder, weights)):
                # timm's encoders carry the weights in their name, and are asked for them by True
                net = smp.create_model(encoder_weights=encoder.startswith("tu-") or weights, **arguments)
                trained_with = smp.encoders.get_preprocessing_params(encoder, weights)
                mean, std = trained_with["mean"], trained_with["std"]
        self.net = with_own_batch_norm(net)
        self.stride = net.encoder.output_stride * HALVED_BY_DECODER.get(name, 1)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), uint8 or float 0-255 -> logits (B, classes, H, W)."""
        height, width = images.shape[-2:]
        logits = self.net(pad_to_stride(normalise(images, self.mean, self.std), self.stride))
        return logits[..., :height, :width]


def weight_files(encoder: str, weights: str) -> dict[Path, str]:
    """The address of each file of an encoder's weights, by its place in the cache of the Hugging Face hub.

    Raises:
        ValueError: there are no such weights; lists those there are.
    """
    import timm
    from huggingface_hub import constants
    from segmentation_models_pytorch.encoders import encoders

    if encoder.startswith("tu-"):
        repository = getattr(timm.get_pretrained_cfg(encoder.removeprefix("tu-")), "hf_hub_id", None)
        if repository is None:
            raise ValueError(f"there are no weights for {encoder!r}: another encoder, or weights=None")
        folder = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")
        address = f"{constants.ENDPOINT}/{repository}/resolve/main/model.safetensors"
        newest = "yourself: a text file of one word, main"
        return {folder / "refs" / "main": newest, folder / "snapshots" / "main" / "model.safetensors": address}
    published = encoders[encoder]["pretrained_settings"]
    if weights not in published:
        listed = ", ".join(published) or "none at all"
        raise ValueError(f"there are no {weights!r} weights for {encoder!r}; there are {listed}")
    repository, revision = published[weights]["repo_id"], published[weights]["revision"]
    folder = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}", "snapshots", revision)
    address = f"{constants.ENDPOINT}/{repository}/resolve/{revision}"
    return {folder / file: f"{address}/{file}" for file in ("config.json", "model.safetensors")}
