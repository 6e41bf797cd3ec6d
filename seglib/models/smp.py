"""The architectures of segmentation_models_pytorch, under the contract of `seglib.models.common`."""

import inspect
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from torch import Tensor, nn

from seglib.files import check_choice
from seglib.models.common import IMAGENET_MEAN, IMAGENET_STD, normalize, pad_to_stride
from seglib.models.weights import explain_weight_errors

__all__ = ["DEFAULT_ENCODERS", "SMPModel"]

# The encoder of each architecture when none is given.
DEFAULT_ENCODERS = {
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
# Settings of the library that would break what every model here does.
_FIXED = {"activation", "aux_params", "encoder_name", "encoder_weights", "in_channels", "kwargs", "upsampling"}
_DECODER_STRIDES = {"pan": 8, "dpt": 2}  # the factor by which a decoder divides the encoder's smallest features again


class SMPModel(nn.Module):
    """An architecture of segmentation_models_pytorch (github.com/qubvel-org/segmentation_models.pytorch).

    Args:
        name: one of `DEFAULT_ENCODERS`.
        classes: channels of the logits; 1 for a binary mask.
        encoder: an encoder of that library ("resnet50", "mit_b2", "efficientnet-b3", ...), or any model of timm, with
            the prefix "tu-" ("tu-convnext_tiny"). None: the one in `DEFAULT_ENCODERS`.
        weights: pretrained weights of the encoder, such as "imagenet". None: from scratch.
        freeze_encoder: train the rest only: the encoder's weights and the statistics of its batch norm do not change,
            and its dropout is off. Useful only with `weights`.
        settings: arguments of the architecture, such as decoder_channels=(256, 128, 64, 32, 16) for a U-Net; with a
            "tu-" encoder also arguments of timm's model.

    Raises:
        ValueError: an encoder, weights or a setting that does not exist.
        OSError: the weights cannot be loaded; the message says where they belong.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        classes: int = 1,
        encoder: str | None = None,
        weights: str | None = None,
        freeze_encoder: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__()
        encoder = encoder or DEFAULT_ENCODERS[name]
        if name == "dpt":  # otherwise its transformer takes images of one size only
            settings = {"dynamic_img_size": True, **settings}
        self.settings = {"name": name, "classes": classes, "encoder": encoder, **settings}
        if freeze_encoder:
            self.settings["freeze_encoder"] = True
        self.net, mean, std = _create_network(name, classes, encoder, weights, settings)
        self.weights = weights
        self.freeze_encoder = freeze_encoder
        self.net.encoder.requires_grad_(not freeze_encoder)
        self.stride = self.net.encoder.output_stride * _DECODER_STRIDES.get(name, 1)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.train()

    def train(self, mode: bool = True) -> "SMPModel":
        """Set training mode. A frozen encoder stays in eval mode, so that its batch norm keeps its statistics."""
        super().train(mode)
        if self.freeze_encoder:
            self.net.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), uint8 or float from 0 to 255 -> logits (B, classes, H, W)."""
        height, width = images.shape[-2:]
        padded = pad_to_stride(normalize(images, self.mean, self.std), self.stride)
        return self.net(padded)[..., :height, :width]


def _create_network(
    name: str, classes: int, encoder: str, weights: str | None, settings: dict[str, Any]
) -> tuple[Any, tuple[float, ...], tuple[float, ...]]:
    """The network of the library, and the mean and the standard deviation that its images are normalized by."""
    import segmentation_models_pytorch as smp  # takes seconds to import

    known = set(inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[name]).parameters) - _FIXED - {"classes"}
    wrong = [key for key in settings if key in _FIXED or (key not in known and not encoder.startswith("tu-"))]
    if wrong:  # the library ignores what it does not know, or gives it to a model of timm
        raise ValueError(f"{name!r} has no setting {', '.join(wrong)}; there are {', '.join(sorted(known))}")
    arguments = {"arch": name, "encoder_name": encoder, "classes": classes, **settings}
    try:  # without weights first, so that a wrong setting is not reported as missing weights
        network = smp.create_model(encoder_weights=None, **arguments)
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"cannot build {name!r} with the encoder {encoder!r}: {error}") from error
    if weights is None:
        return network, IMAGENET_MEAN, IMAGENET_STD
    # A timm encoder has its weights in its name; True asks for them.
    of_timm = encoder.startswith("tu-")
    published = ["imagenet"] if of_timm else smp.encoders.encoders[encoder]["pretrained_settings"]
    check_choice(f"weights of {encoder}", weights, published)
    cache = Path(constants.HF_HUB_CACHE)
    with explain_weight_errors(f"the {weights} weights of {encoder}", constants.ENDPOINT, cache):
        network = smp.create_model(encoder_weights=of_timm or weights, **arguments)
        preprocessing = smp.encoders.get_preprocessing_params(encoder, weights)
    return network, preprocessing["mean"], preprocessing["std"]
