"""The seeds of lesson 04: how much the score of one cell of its grid depends on chance."""

from pathlib import Path
from statistics import fmean
from typing import Any

from torch.utils.data import Subset

from seglib import lesson
from seglib.datasets import VOCSegmentationDataset, hold_out
from seglib.losses import CrossEntropyLoss
from seglib.models import build_model
from seglib.train import TrainConfig, fit, measure
from seglib.transforms import augmentation, resize

SEEDS = (0, 1, 2)
# The numbers of the lesson's demo profile, for the best cell of its grid.
SETTINGS: dict[str, Any] = {
    "encoder": "resnet18",
    "decoder": (64, 32, 16, 16),
    "weights": None,
    "val_fraction": 0.1,
    "train_images": 480,
    "image_size": 144,
    "crop": 128,
    "scale": (0.8, 1.25),
    "lr": 1e-3,
    "batch": 8,
    "epochs": 12,
    "weight_decay": 0.01,
}
AUGMENT: dict[str, Any] = {
    "scale": SETTINGS["scale"],
    "crop": (SETTINGS["crop"], SETTINGS["crop"]),
    "horizontal_flip": 0.5,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.3,
    "hue": 0.03,
}

METRIC = "mean IoU over the classes that occur in the test part, background included, best validation epoch"


def main(folder: Path) -> dict[str, Any]:
    """The best cell of lesson 04's grid from three seeds: validation and test mIoU.

    A seed decides the initial weights, the order of the images and the augmentation.
    """
    root = lesson.data("voc2012")
    to_size = resize(SETTINGS["image_size"], SETTINGS["image_size"])
    train_data, val_data = hold_out(VOCSegmentationDataset(root, "train", to_size), SETTINGS["val_fraction"])
    train_data = Subset(train_data, range(min(SETTINGS["train_images"], len(train_data))))
    test_data = VOCSegmentationDataset(root, "val", to_size)
    values: dict[str, list[Any]] = {"val_miou": [], "test_miou": [], "histories": []}
    for seed in SEEDS:
        lesson.seed(seed)
        decoder = SETTINGS["decoder"]
        network = {"encoder": SETTINGS["encoder"], "encoder_depth": len(decoder), "decoder_channels": decoder}
        model = build_model("unet", len(test_data.classes), SETTINGS["weights"], **network)
        config = TrainConfig(
            SETTINGS["epochs"],
            SETTINGS["batch"],
            SETTINGS["lr"],
            weight_decay=SETTINGS["weight_decay"],
            optimizer="adamw",
            seed=seed,
            previews=0,
            trackers=(),
        )
        loss = CrossEntropyLoss()
        run = fit(model, train_data, val_data, loss, config, folder / f"seed_{seed}", augmentation(**AUGMENT))
        matrix = measure(run.model(), test_data).matrix
        occurs = matrix.matrix.sum(dim=1) > 0
        names = [name for name, is_there in zip(test_data.classes, occurs, strict=True) if is_there]
        values["val_miou"].append(fmean(run.best[f"iou/{name}"] for name in names))
        values["test_miou"].append(matrix.iou()[occurs].mean().item())
        columns = ("epoch", "train_loss", "val_loss", "val_miou")
        values["histories"].append([{column: row[column] for column in columns} for row in run.history])
        print(f"seed {seed}: test mIoU {values['test_miou'][-1]:.3f}", flush=True)
    return {
        "metric": METRIC,
        "split": "test: the sample's validation part; validation: a tenth of its training part, by file name",
        "settings": SETTINGS | {"seeds": SEEDS, "augmentation": AUGMENT},
        "data": root,
        "images": {"train": len(train_data), "val": len(val_data), "test": len(test_data)},
        "values": values,
    }
