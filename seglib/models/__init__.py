"""Models, all with one contract: RGB bytes in, logits of the image's own size out."""

from seglib.models.common import logits_to_mask
from seglib.models.segnet import SegNet
from seglib.models.unet import UNet
from seglib.models.zoo import MODELS, build_model, load_model

__all__ = ["MODELS", "SegNet", "UNet", "build_model", "load_model", "logits_to_mask"]
