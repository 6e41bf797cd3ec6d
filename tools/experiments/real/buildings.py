"""YOLOv8n-seg on real aerial images of buildings, from random numbers."""

from pathlib import Path
from typing import Any

from seglib import lesson
from seglib.datasets import YOLOSegmentationDataset, all_instances, hold_out
from seglib.evaluate import mask_ap
from seglib.predict import predict_instances
from seglib.train_yolo import YOLOConfig, fit_yolo

NEEDS = ("buildings_yolo",)
VAL_FRACTION = 1 / 7
SETTINGS: dict[str, Any] = {  # of YOLOConfig
    "epochs": 30,
    "batch_size": 4,
    "lr": 2e-3,
    "weights": None,
    "image_size": 512,
    "warmup_epochs": 1.0,
    "mosaic": 0.0,
    "flip_up_down": 0.5,
}


def main(folder: Path) -> dict[str, Any]:
    """YOLOv8n-seg from random numbers on the real buildings of lesson 05: AP by COCO's rules."""
    root = lesson.data("buildings_yolo")
    train_data, val_data = hold_out(YOLOSegmentationDataset(root, "train"), VAL_FRACTION)
    test_data = YOLOSegmentationDataset(root, "val")
    run = fit_yolo(train_data, val_data, YOLOConfig(**SETTINGS), folder / "run")
    model = run.model()
    found = [predict_instances(model, test_data.image_path(i), score=0) for i in range(len(test_data))]
    ap = mask_ap(all_instances(test_data), found, max_detections=(1, 10, 300))
    columns = ("epoch", "train_loss", "val_loss", "val_ap", "val_ap50")
    return {
        "metric": "mask AP50 by COCO's rules at the images' own size, 300 detections an image, best validation epoch",
        "split": "test: the set's own validation part; validation: a seventh of its training part, by file name",
        "settings": SETTINGS | {"val_fraction": VAL_FRACTION},
        "data": root,
        "images": {"train": len(train_data), "val": len(val_data), "test": len(test_data)},
        "value": ap.ap50,
        "published": None,
        "values": {
            "test_ap50": ap.ap50,
            "test_ap": ap.ap,
            "best_epoch": run.best["epoch"],
            "history": [{column: row[column] for column in columns} for row in run.history],
        },
    }
