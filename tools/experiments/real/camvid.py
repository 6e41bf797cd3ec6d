"""U-Nets on CamVid's road scenes, from random numbers, split by video."""

from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from seglib import lesson
from seglib.datasets import MaskFolderDataset
from seglib.datasets.download.catalog import card
from seglib.losses import CEDiceLoss
from seglib.metrics import ConfusionMatrix
from seglib.models import build_model
from seglib.predict import predict
from seglib.train import TrainConfig, fit
from seglib.transforms import augmentation

NEEDS = ("camvid",)
VIDEOS = {"train": "0016E5", "val": "0001TP", "test": "0006R0"}
UNET: dict[str, Any] = {"name": "unet", "base_channels": 16}  # arguments of build_model
RESNET18: dict[str, Any] = {"name": "unet", "encoder": "resnet18"}
SETTINGS: dict[str, Any] = {
    "epochs": 40,
    "batch_size": 8,
    "lr": 2e-3,
    "weight_decay": 1e-4,
    "alpha": 0.5,  # share of cross-entropy in the loss; Dice, which weighs all classes alike, has the rest
    "sizes": [(450, 600), (360, 480), (288, 384), (240, 320)],  # in which to predict; validation chooses
    "flips": "h",  # of the prediction
}
HALF_SCALE: dict[str, Any] = {
    "scale": (0.5, 1.0),
    "crop": (192, 256),
    "horizontal_flip": 0.5,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
}
FULL_SCALE: dict[str, Any] = HALF_SCALE | {
    "scale": (0.75, 1.5),  # for thin poles and small signs
    "crop": (240, 320),
    "brightness": 0.4,  # the validation video is darker than the one that trains
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.05,
}
VARIANTS: dict[str, dict[str, Any]] = {  # the one with the best validation is the result
    "U-Net": {"model": UNET, "augmentation": HALF_SCALE},
    "U-Net with ResNet-18": {"model": RESNET18, "augmentation": HALF_SCALE},
    "U-Net, full scale": {"model": UNET, "augmentation": FULL_SCALE},
}


def main(folder: Path) -> dict[str, Any]:
    """U-Nets, one with a ResNet-18, on CamVid, 11 classes, from random numbers, split by video."""
    root = lesson.data("camvid")
    classes = list(card("camvid").classes)
    frames = [
        MaskFolderDataset(root / part, root / f"{part}annot", classes, void=(len(classes),))
        for part in ("train", "val")
    ]
    parts: dict[str, Any] = {
        part: ConcatDataset([of_video(data, video) for data in frames]) for part, video in VIDEOS.items()
    }
    values = {name: train_and_test(variant, parts, classes, folder / name) for name, variant in VARIANTS.items()}
    best = max(values, key=lambda name: values[name]["val_miou"])
    return {
        "metric": "mean IoU of the 11 classes over all pixels of the test frames but void, at 480 x 360, "
        f"best validation epoch, of the network that is best on validation: {best}",
        "split": "by video: " + ", ".join(f"{video} {part}" for part, video in VIDEOS.items()),
        "settings": SETTINGS | {"variants": VARIANTS},
        "data": root,
        "images": {part: len(data) for part, data in parts.items()},
        "value": values[best]["test_miou"],
        "published": {
            "value": "0.601 and 0.669",
            "source": "SegNet with VGG weights and FC-DenseNet103 from random numbers in Jégou et al., 2017, "
            "arXiv:1611.09326",
            "differs": "another test part (Seq05VD and part of 0001TP); trained on frames of three videos",
        },
        "values": values,
    }


def of_video(data: MaskFolderDataset, video: str) -> Subset:
    """Return the frames of a video."""
    return Subset(data, [index for index, name in enumerate(data.filenames) if name.startswith(video)])


def train_and_test(variant: dict[str, Any], parts: dict[str, Any], classes: list[str], folder: Path) -> dict[str, Any]:
    """Train a network, or resume it, and return its scores."""
    lesson.seed(0)
    model = build_model(classes=len(classes), **variant["model"])
    config = TrainConfig(
        SETTINGS["epochs"],
        SETTINGS["batch_size"],
        SETTINGS["lr"],
        weight_decay=SETTINGS["weight_decay"],
        optimizer="adamw",
        scheduler="cosine",
        previews=0,
        trackers=(),
    )
    loss = CEDiceLoss(SETTINGS["alpha"])
    run = fit(model, parts["train"], parts["val"], loss, config, folder, augmentation(**variant["augmentation"]))
    model = run.model()
    by_size = {size: confusion(model, parts["val"], classes, size).miou() for size in SETTINGS["sizes"]}
    size = max(by_size, key=lambda size: by_size[size])
    tested = confusion(model, parts["test"], classes, size)
    return {
        "test_miou": tested.miou(),
        "test_iou": dict(zip(classes, tested.iou().tolist(), strict=True)),
        "val_miou": by_size[size],
        "val_miou_by_size": {f"{height} x {width}": value for (height, width), value in by_size.items()},
        "best_epoch": run.best["epoch"],
    }


def confusion(model: Any, data: Any, classes: list[str], size: tuple[int, int]) -> ConfusionMatrix:
    """Return the confusion matrix of the predictions of all frames."""
    matrix = ConfusionMatrix(len(classes))
    for image, mask, _ in (data[index] for index in range(len(data))):
        matrix.update(predict(model, image, size, flips=SETTINGS["flips"]), mask)
    return matrix
