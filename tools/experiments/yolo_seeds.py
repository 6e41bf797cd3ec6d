"""The seeds of lesson 05: how much the AP of one cell of its grid depends on chance."""

from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from seglib import lesson
from seglib.datasets import YOLOSegmentationDataset, all_instances
from seglib.evaluate import mask_ap
from seglib.predict import predict_instances
from seglib.train_yolo import YOLOConfig, fit_yolo

SEEDS = (0, 1, 2)
# The numbers of the lesson's demo profile, for the best cell of its grid.
SETTINGS: dict[str, Any] = {
    "weights": None,
    "train_images": 300,
    "val_images": 100,
    "test_images": 100,
    "image_size": 192,
    "warmup": 0,
    "mosaic": 0.0,
    "patience": None,
    "lr": 2e-3,
    "batch": 8,
    "epochs": 12,
    "flip_up_down": 0.5,
}


def main(folder: Path) -> dict[str, Any]:
    """The best cell of lesson 05's grid from three seeds: AP on the validation and the test images.

    A seed decides the initial weights, the order of the images and the augmentation.
    """
    root = lesson.data("buildings_yolo")
    parts = {}
    for part in ("train", "val", "test"):
        data = YOLOSegmentationDataset(root, part)
        parts[part] = Subset(data, range(min(SETTINGS[f"{part}_images"], len(data))))
    truth = all_instances(parts["test"])
    values: dict[str, list[Any]] = {"val_ap": [], "test_ap50": [], "test_ap": [], "histories": []}
    for seed in SEEDS:
        config = YOLOConfig(
            SETTINGS["epochs"],
            SETTINGS["batch"],
            SETTINGS["lr"],
            weights=SETTINGS["weights"],
            image_size=SETTINGS["image_size"],
            warmup_epochs=SETTINGS["warmup"],
            mosaic=SETTINGS["mosaic"],
            flip_up_down=SETTINGS["flip_up_down"],
            patience=SETTINGS["patience"],
            seed=seed,
        )
        run = fit_yolo(parts["train"], parts["val"], config, folder / f"seed_{seed}")
        model = run.model()
        found = [predict_instances(model, parts["test"][i][0], score=0) for i in range(len(truth))]
        ap = mask_ap(truth, found, max_detections=(1, 10, 300))
        values["val_ap"].append(run.best["val_ap"])
        values["test_ap50"].append(ap.ap50)
        values["test_ap"].append(ap.ap)
        columns = ("epoch", "train_loss", "val_loss", "val_ap", "val_ap50")
        values["histories"].append([{column: row[column] for column in columns} for row in run.history])
        print(f"seed {seed}: test AP50 {ap.ap50:.3f}", flush=True)
    return {
        "metric": "mask AP by COCO's rules, 300 detections an image, best validation epoch; val_ap is Ultralytics' own",
        "split": "the sample's three parts; of each the first images by file name",
        "settings": SETTINGS | {"seeds": SEEDS},
        "data": root,
        "images": {part: len(data) for part, data in parts.items()},
        "values": values,
    }
