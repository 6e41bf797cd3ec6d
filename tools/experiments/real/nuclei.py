"""A U-Net on real nuclei, from random numbers, split by group."""

from pathlib import Path
from typing import Any

import numpy as np

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
    "batch_size": 4,
    "lr": 1e-3,
    "base_channels": 16,
    "alpha": 0.5,  # share of BCE in the loss; Dice has the rest
    "percentiles": (0.5, 99.5),  # of the pixel values of an image, which become black and white
    "flips": "hv",  # of the prediction
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
    folders = root / "images", root / "labels"
    data = MaskFolderDataset(*folders, ["background", "nucleus"], transform=stretch, instance_ids=True)
    train_data, val_data, test_data = split_by_group(data, read_groups(root))
    lesson.seed(0)
    model = build_model("unet", classes=1, base_channels=SETTINGS["base_channels"])
    config = TrainConfig(
        SETTINGS["epochs"], SETTINGS["batch_size"], SETTINGS["lr"], scheduler="cosine", previews=0, trackers=()
    )
    loss = BCEDiceLoss(SETTINGS["alpha"])
    run = fit(model, train_data, val_data, loss, config, folder / "run", augmentation(**AUGMENTATION))
    model = run.model()
    whole, ious, guesses, masks = ConfusionMatrix(2), [], [], []
    for index in range(len(test_data)):
        image, mask, _ = test_data[index]
        guess = predict(model, image, size=tuple(mask.shape), flips=SETTINGS["flips"])
        single = ConfusionMatrix(2)
        single.update(guess, mask)
        whole.update(guess, mask)
        ious.append(single.iou()[1].item())
        guesses.append(guess)
        masks.append(mask)
    columns = ("epoch", "train_loss", "val_loss", "val_iou")
    return {
        "metric": "IoU of nucleus over all pixels of the test images, at their own size, best validation epoch",
        "split": "60 / 20 / 20 % of all 228 groups of images cut from one picture, restricted to the images present",
        "settings": SETTINGS | {"augmentation": AUGMENTATION},
        "data": root,
        "images": {"train": len(train_data), "val": len(val_data), "test": len(test_data)},
        "value": whole.iou()[1].item(),
        "published": {
            "value": "near 0.91",
            "source": "reported for U-Nets on random splits of the images",
            "differs": "tiles of one picture lie on both sides of such a split",
        },
        "values": {
            "test_iou": whole.iou()[1].item(),
            "test_dice": whole.dice()[1].item(),
            "test_boundary_iou": boundary_iou(guesses, masks)[1].item(),
            "mean_of_the_images": sum(ious) / len(ious),
            "image_ious": sorted(ious),
            "best_epoch": run.best["epoch"],
            "history": [{column: row[column] for column in columns} for row in run.history],
        },
    }


def stretch(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Stretch the brightness of an image to the whole range, because exposures differ: many images are almost black."""
    low, high = np.percentile(image, SETTINGS["percentiles"])
    stretched = 255 * (image.astype(np.float32) - low) / max(high - low, 1)
    return {"image": stretched.clip(0, 255).astype(np.uint8), "mask": mask}
