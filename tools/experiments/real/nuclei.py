"""A U-Net on real nuclei, from random numbers, split by group."""

from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Subset

from seglib import lesson
from seglib.datasets import MaskFolderDataset, read_groups, split_by_group
from seglib.losses import BCEDiceLoss
from seglib.metrics import ConfusionMatrix, boundary_iou
from seglib.models import build_model
from seglib.predict import predict
from seglib.train import TrainConfig, fit
from seglib.transforms import augmentation

NEEDS = ("dsb2018",)
SETTINGS: dict[str, Any] = {
    "epochs": 60,
    "base_channels": 16,
    "alpha": 0.5,  # share of BCE in the loss; Dice has the rest
    "percentiles": (0.5, 99.5),  # of the pixel values of an image, which "stretch" makes black and white
    "flips": "hv",  # of the prediction
}
# How the images are prepared and the steps of training; the one with the best validation is the result.
VARIANTS: dict[str, dict[str, Any]] = {
    "as they are": {"prepare": None, "batch_size": 8, "lr": 2e-3},
    "stretched": {"prepare": "stretch", "batch_size": 4, "lr": 1e-3},
    "bright on dark": {"prepare": "brighten", "batch_size": 8, "lr": 2e-3},
}
AUGMENTATION: dict[str, Any] = {
    "scale": (0.6, 1.6),  # the magnification differs between the microscopes
    "crop": (192, 192),
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "rotate": 15,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "hue": 0.1,
}


def main(folder: Path) -> dict[str, Any]:
    """A U-Net on the nuclei of the 2018 Data Science Bowl, from random numbers, split by group."""
    root = lesson.data("dsb2018")
    parts = {name: split(root, variant["prepare"]) for name, variant in VARIANTS.items()}
    values = {name: train_and_test(parts[name], variant, folder / name) for name, variant in VARIANTS.items()}
    best = max(values, key=lambda name: values[name]["val_iou"])
    return {
        "metric": "IoU of nucleus over all pixels of the test images, at their own size, best validation epoch, of "
        f"the images prepared in the way that is best on validation: {best}",
        "split": "60 / 20 / 20 % of all 228 groups of images cut from one picture, restricted to the images present",
        "settings": SETTINGS | {"variants": VARIANTS, "augmentation": AUGMENTATION},
        "data": root,
        "images": dict(zip(("train", "val", "test"), map(len, parts[best]), strict=True)),
        "value": values[best]["test_iou"],
        "published": {
            "value": "0.93",
            "source": "a U-Net in Microscopy 72 (2023), doi:10.1093/jmicro/dfac063",
            "differs": "a mean of images, which were resized; the abstract does not say how they were split",
        },
        "values": values,
    }


def split(root: Path, prepare: str | None) -> tuple[Subset, Subset, Subset]:
    """The parts of the data, whose images are prepared by the function of that name."""
    transform = PREPARATIONS[prepare] if prepare else None
    folders = root / "images", root / "labels"
    data = MaskFolderDataset(*folders, ["background", "nucleus"], transform=transform, instance_ids=True)
    return split_by_group(data, read_groups(root))


def train_and_test(parts: tuple[Subset, Subset, Subset], variant: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train a network, or resume it, and return its scores."""
    train_data, val_data, test_data = parts
    lesson.seed(0)
    model = build_model("unet", classes=1, base_channels=SETTINGS["base_channels"])
    config = TrainConfig(
        SETTINGS["epochs"], variant["batch_size"], variant["lr"], scheduler="cosine", previews=0, trackers=()
    )
    loss = BCEDiceLoss(SETTINGS["alpha"])
    run = fit(model, train_data, val_data, loss, config, folder, augmentation(**AUGMENTATION))
    model = run.model()
    whole, ious, guesses, masks = ConfusionMatrix(2), [], [], []
    for image, mask, _ in (test_data[index] for index in range(len(test_data))):
        guess = predict(model, image, size=tuple(mask.shape), flips=SETTINGS["flips"])
        single = ConfusionMatrix(2)
        single.update(guess, mask)
        whole.update(guess, mask)
        ious.append(single.iou()[1].item())
        guesses.append(guess)
        masks.append(mask)
    return {
        "val_iou": run.best["val_iou"],
        "test_iou": whole.iou()[1].item(),
        "test_dice": whole.dice()[1].item(),
        "test_boundary_iou": boundary_iou(guesses, masks)[1].item(),
        "mean_of_the_images": sum(ious) / len(ious),
        "image_ious": sorted(ious),
        "best_epoch": run.best["epoch"],
    }


def stretch(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Stretch the brightness of an image to the whole range, because exposures differ: many images are almost black."""
    low, high = np.percentile(image, SETTINGS["percentiles"])
    stretched = 255 * (image.astype(np.float32) - low) / max(high - low, 1)
    return {"image": stretched.clip(0, 255).astype(np.uint8), "mask": mask}


def brighten(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Make an image gray, and a bright background dark: stained tissue then resembles fluorescent nuclei."""
    gray = image.mean(axis=2, keepdims=True).astype(np.uint8)
    gray = 255 - gray if np.median(gray) > 127 else gray
    return {"image": np.repeat(gray, 3, axis=2), "mask": mask}


PREPARATIONS = {"stretch": stretch, "brighten": brighten}
