"""Models, all with one contract: RGB bytes in, logits of the image's own size out; or, from INSTANCES, its objects."""

from seglib.models.common import logits_to_mask
from seglib.models.segnet import SegNet
from seglib.models.unet import UNet
from seglib.models.zoo import INSTANCES, MODELS, build_model, load_model

__all__ = ["INSTANCES", "MODELS", "SegNet", "UNet", "build_model", "load_model", "logits_to_mask"]
