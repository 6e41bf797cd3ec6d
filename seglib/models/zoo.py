"""Models by name, and models from checkpoints."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from seglib.files import check_choice
from seglib.models.common import YOLO_MODELS
from seglib.models.segnet import SegNet
from seglib.models.smp import DEFAULT_ENCODERS, SMPModel
from seglib.models.unet import UNet

__all__ = ["INSTANCE_MODELS", "MODELS", "build_model", "load_model"]

INSTANCE_MODELS = ("maskrcnn", *YOLO_MODELS)  # return objects instead of logits
MODELS = tuple(dict.fromkeys(["unet", "segnet", *DEFAULT_ENCODERS, *INSTANCE_MODELS]))


def build_model(name: str, classes: int, weights: str | None = None, **settings: Any) -> nn.Module:
    """Build a model by name.

    Args:
        name: one of `MODELS`. "unet" and "segnet" are implemented in this package. Those of `INSTANCE_MODELS` find
            objects: "maskrcnn" is torchvision's, "yolov8n-seg" and its larger versions are Ultralytics' (AGPL-3.0).
            All others come from segmentation_models_pytorch, and so does a "unet" that is given an `encoder`.
        classes: channels of the logits; 1 for a binary mask. For models that find objects: the number of classes,
            background included.
        weights: "imagenet" for an encoder pretrained on ImageNet, "coco" for a pretrained model that finds objects;
            downloaded once and cached. None: from scratch. "unet" without an `encoder` has no published weights.
        settings: arguments of the model: see `UNet`, `SegNet`, `seglib.models.smp.SMPModel` with its many encoders,
            `seglib.models.maskrcnn.MaskRCNN` and `seglib.models.yolo.YOLOSegmenter`.

    Raises:
        ValueError: a model, weights or a setting that does not exist; the message lists those that do.
        OSError: the weights cannot be loaded; the message names the files, where they belong, and what to do.
    """
    check_choice("the name of a model", name, MODELS)
    if name == "maskrcnn":
        from seglib.models.maskrcnn import MaskRCNN  # imports torchvision's detection models

        return MaskRCNN(classes, weights, **settings)
    if name in YOLO_MODELS:
        from seglib.models.yolo import YOLOSegmenter  # imports pycocotools

        return YOLOSegmenter(name, classes, weights, **settings)
    if name == "segnet":
        return SegNet(classes, weights, **settings)
    if name != "unet" or "encoder" in settings:
        return SMPModel(name, classes, weights=weights, **settings)
    if weights is not None:
        raise ValueError(f"'unet' has no {weights!r} weights; build_model('unet', encoder='resnet50', ...) has some")
    return UNet(classes=classes, **settings)


def load_model(path: str | Path) -> nn.Module:
    """Load the model of a `best_model.pth`, in eval mode, on the CPU.

    Downloads no weights and runs no code from the file. The model gets the attributes `class_names` and `image_size`,
    the (height, width) of the training images; each is None where the training did not know it.

    Args:
        path: a `best_model.pth`, as `seglib.train.fit` writes it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint of `seglib.train.fit`, or its model is not one of `MODELS`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {path}; a finished run has it as best_model.pth")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        settings = checkpoint["settings"]
        state = checkpoint["model"]
    except Exception as error:  # pickle, zip and tensor errors, or a file of another program
        raise ValueError(
            f"{path} is not a model of seglib, or is incomplete ({type(error).__name__}): use the best_model.pth of a "
            "run, not last/checkpoint.pth, which is for resuming the training"
        ) from error
    if settings is None:
        raise ValueError(
            f"{path} holds the weights of a model that build_model does not know: build the model as for the training, "
            "then model.load_state_dict(torch.load(path, weights_only=True)['model'])"
        )
    try:
        model = build_model(**settings)
        model.load_state_dict(state)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit this version of seglib ({error}): train again") from error
    model.class_names = checkpoint["classes"]
    model.image_size = checkpoint["image_size"]
    return model.eval()
