"""Models, all with one contract: RGB bytes in, logits of the image's own size out."""

from seglib.models.common import logits_to_mask
from seglib.models.unet import UNet
from seglib.models.zoo import build_model, load_model

__all__ = ["UNet", "build_model", "load_model", "logits_to_mask"]
