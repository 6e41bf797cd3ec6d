"""A U-Net on the membranes of neurons in electron micrographs, five-fold cross-validation."""

from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch.utils.data import Subset

from seglib import lesson
from seglib.datasets import MaskFolderDataset
from seglib.losses import BCEDiceLoss
from seglib.metrics import ConfusionMatrix, boundary_iou
from seglib.models import build_model
from seglib.predict import predict
from seglib.train import TrainConfig, fit
from seglib.transforms import augmentation

NEEDS = ("isbi2012_em",)
SETTINGS: dict[str, Any] = {
    "folds": 5,
    "epochs": 30,
    "crops": 4,  # of each training image in an epoch
    "batch_size": 8,
    "lr": 2e-3,
    "base_channels": 16,
    "alpha": 0.5,  # share of BCE in the loss; Dice has the rest
    "edge": 0.005,  # the width of the edges that boundary IoU scores, as a share of the diagonal: 4 pixels
    "flips": "hv",  # of the prediction
}
AUGMENTATION: dict[str, Any] = {
    "scale": (0.8, 1.25),
    "crop": (256, 256),
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "rotate": 45,
    "brightness": 0.2,
    "contrast": 0.2,
}


def main(folder: Path) -> dict[str, Any]:
    """A U-Net on the neuron membranes of ISBI 2012, from random numbers, five-fold cross-validation."""
    root = lesson.data("isbi2012_em")
    data = MaskFolderDataset(root / "image", root / "label", ["cell", "membrane"], values=[255, 0])
    order = sorted(range(len(data)), key=lambda index: int(Path(data.filenames[index]).stem))
    size = len(data) // SETTINGS["folds"]
    folds = [order[start : start + size] for start in range(0, len(order), size)]
    scores = [train_and_test(data, folds, number, folder / f"fold_{number}") for number in range(len(folds))]
    names = ("iou", "dice", "boundary_iou", "wrong_pixels")
    ious = [score["iou"] for score in scores]
    return {
        "metric": f"IoU of membrane over all pixels of a fold, mean of {len(folds)} folds, best validation epoch",
        "split": "five folds of consecutive slices; the next fold validates, the other three train",
        "settings": SETTINGS | {"augmentation": AUGMENTATION},
        "data": root,
        "images": {"train": 3 * size, "val": size, "test": size},
        "value": fmean(ious),
        "spread": max(ious) - min(ious),
        "published": None,
        "values": {
            **{name: fmean(score[name] for score in scores) for name in names},
            "standard_deviation_of_iou": stdev(ious),
            "folds": scores,
        },
    }


def train_and_test(data: MaskFolderDataset, folds: list[list[int]], number: int, folder: Path) -> dict[str, Any]:
    """Train on three folds, choose the epoch on the next, and return the scores on fold `number`."""
    count = len(folds)
    train = [index for step in range(2, count) for index in folds[(number + step) % count]]
    lesson.seed(number)
    model = build_model("unet", classes=1, base_channels=SETTINGS["base_channels"])
    config = TrainConfig(
        SETTINGS["epochs"], SETTINGS["batch_size"], SETTINGS["lr"], scheduler="cosine", previews=0, trackers=()
    )
    parts = Subset(data, train * SETTINGS["crops"]), Subset(data, folds[(number + 1) % count])
    run = fit(model, *parts, BCEDiceLoss(SETTINGS["alpha"]), config, folder, augmentation(**AUGMENTATION))
    model = run.model()
    matrix, guesses, masks = ConfusionMatrix(2), [], []
    for index in folds[number]:
        image, mask, _ = data[index]
        guesses.append(predict(model, image, flips=SETTINGS["flips"]))
        masks.append(mask)
        matrix.update(guesses[-1], mask)
    return {
        "slices": [int(Path(data.filenames[index]).stem) for index in folds[number]],
        "iou": matrix.iou()[1].item(),
        "dice": matrix.dice()[1].item(),
        "boundary_iou": boundary_iou(guesses, masks, ratio=SETTINGS["edge"])[1].item(),
        "wrong_pixels": fmean((guess != mask.numpy()).mean() for guess, mask in zip(guesses, masks, strict=True)),
        "best_epoch": run.best["epoch"],
    }
