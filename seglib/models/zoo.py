"""Models by name, and models out of checkpoints."""

from pathlib import Path

import torch
from torch import nn

from seglib.models.maskrcnn import MaskRCNN
from seglib.models.segnet import SegNet
from seglib.models.smp import ENCODERS, FromSMP
from seglib.models.unet import UNet
from seglib.models.yolo import YOLO, YOLOSegmenter

INSTANCES = ("maskrcnn", *YOLO)  # of these, what comes out are objects, not logits
MODELS = tuple(dict.fromkeys(["unet", "segnet", *ENCODERS, *INSTANCES]))


def build_model(name: str, classes: int, weights: str | None = None, **settings) -> nn.Module:
    """Build a model by name.

    Args:
        name: one of `MODELS`. "unet" and "segnet" are our own; those of `INSTANCES` find objects: "maskrcnn" is
            torchvision's, "yolov8n-seg" and its sisters are Ultralytics' (AGPL-3.0); all others come from
            segmentation_models_pytorch, and so does a "unet" for which an encoder is named.
        classes: channels of the logits; 1 for a binary mask. Of a model that finds objects, background included.
        weights: "imagenet" for an encoder with experience, "coco" for a whole model that finds objects, fetched once;
            None: from scratch. (A U-Net of our own has no published weights.)
        settings: arguments of the model itself: see `UNet`, `SegNet`, `MaskRCNN`, `YOLOSegmenter` and
            `seglib.models.smp.FromSMP`, the last with its many values of encoder=.

    Raises:
        ValueError: no such model, listing those there are; weights that do not exist.
        OSError: the weights cannot be had; says which file, where it belongs, and what to do.
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; there are {', '.join(MODELS)}")
    if "freeze_encoder" in settings and (name == "segnet" or (name == "unet" and "encoder" not in settings)):
        raise ValueError(f"a {name} of our own has no encoder to freeze: 'unet' has one with encoder='resnet50', say")
    if name == "maskrcnn":
        return MaskRCNN(classes, weights, **settings)
    if name in YOLO:
        return YOLOSegmenter(name, classes, weights, **settings)
    if name == "segnet":
        return SegNet(classes, weights, **settings)
    if name in ENCODERS and (name != "unet" or "encoder" in settings):
        return FromSMP(name, classes, weights=weights, **settings)
    if weights is not None:
        raise ValueError(
            f"there are no {weights!r} weights for 'unet' as the paper has it: weights=None trains it from scratch; "
            "with encoder='resnet50' it gets an encoder that has some"
        )
    return UNet(classes=classes, **settings)


def load_model(path: str | Path) -> nn.Module:
    """The model of a `best_model.pth`, in eval mode, on the CPU. Never fetches weights, never runs code from the file.

    What training knew is kept on the model: `.class_names` and `.image_size` (height, width), each None where unknown.

    Raises:
        FileNotFoundError, ValueError: no file, or not a checkpoint of `seglib.train.fit`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}: a finished run holds it as best_model.pth")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        settings, state = checkpoint["settings"], checkpoint["model"]
    except Exception as error:  # pickle, zip and tensor errors: whatever is in there, it is no checkpoint of ours
        raise ValueError(
            f"{path} is no model of seglib, or was cut short ({type(error).__name__}): a run's model is its "
            "best_model.pth; last/checkpoint.pth is for training to go on"
        ) from error
    if settings is None:
        raise ValueError(
            f"{path} holds weights of a model that seglib cannot build by itself: build the model as you did for "
            "training, then model.load_state_dict(torch.load(path, weights_only=True)['model'])"
        )
    model = build_model(**settings)
    model.load_state_dict(state)
    model.class_names, model.image_size = checkpoint["classes"], checkpoint["image_size"]
    return model.eval()
