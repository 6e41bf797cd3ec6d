"""Segmentation models and the functions that build and load them.

All models take RGB images as bytes and contain their own normalization; see `seglib.models.common` for the contract.
Importing this package loads neither OpenCV nor Ultralytics nor torchvision's detection models.
"""

from seglib.models.common import logits_to_mask
from seglib.models.segnet import SegNet
from seglib.models.unet import UNet
from seglib.models.zoo import INSTANCE_MODELS, MODELS, build_model, load_model

__all__ = ["INSTANCE_MODELS", "MODELS", "SegNet", "UNet", "build_model", "load_model", "logits_to_mask"]
