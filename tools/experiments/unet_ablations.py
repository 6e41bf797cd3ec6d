"""The comparisons of lesson 06: twelve variants of a U-Net that differ in one thing each, on nuclei."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from seglib import lesson
from seglib.datasets import MaskFolderDataset, all_instances, read_groups, split_by_group
from seglib.instances import Instances
from seglib.losses import BCEDiceLoss, BCELoss, CrossEntropyLoss, DiceLoss
from seglib.masks import mask_to_rle
from seglib.metrics import ConfusionMatrix, boundary_iou, small_object_iou
from seglib.models import UNet
from seglib.predict import predict
from seglib.runs import Run
from seglib.train import TrainConfig, fit
from seglib.transforms import augmentation, resize

Sample = tuple[Tensor, Tensor, str]  # image, mask, file name

SEEDS = (0, 1, 2)
# The numbers of the lesson's demo profile.
SETTINGS: dict[str, Any] = {
    "image_size": 96,
    "base_channels": 16,
    "train_images": 128,
    "val_images": 48,
    "batch_size": 8,
    "lr": 2e-3,
    "epochs": 32,
    "weight_decay": 1e-5,
    "alpha": 0.5,
    "pos_weight": 3.0,
}
EDGE = 0.01  # the width of the edges that are scored, as a share of the image's diagonal
AUGMENTATION: dict[str, Any] = {
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "rotate": 15,
    "brightness": 0.2,
    "contrast": 0.2,
}
TUNED: dict[str, Any] = {
    "classes": 1,
    "depth": 4,
    "bilinear": True,
    "skip": True,
    "loss": BCEDiceLoss(SETTINGS["alpha"]),
    "augment": True,
    "size": SETTINGS["image_size"],
    "batch_size": SETTINGS["batch_size"],
    "weight_decay": SETTINGS["weight_decay"],
}
VARIANTS: dict[str, dict[str, Any]] = {  # what differs from TUNED
    "tuned": {},
    "no skip connections": {"skip": False},
    "BCE": {"loss": BCELoss()},
    "no augmentation": {"augment": False},
    "five levels": {"depth": 5},
    "transposed convolutions": {"bilinear": False},
    "cross-entropy": {"loss": CrossEntropyLoss(), "classes": 2},
    "Dice": {"loss": DiceLoss()},
    "weighted BCE + Dice": {"loss": BCEDiceLoss(SETTINGS["alpha"], SETTINGS["pos_weight"])},
    "half the image size": {"size": SETTINGS["image_size"] // 2},
    "half the batch": {"batch_size": SETTINGS["batch_size"] // 2},
    "no weight decay": {"weight_decay": 0.0},
}
METRIC = (
    "class nucleus on the test images, all pixels together, at the images' own size, weights of the best validation "
    "epoch: IoU; Dice; boundary IoU (width 1 % of the diagonal); IoU around the smallest third of the nuclei by the "
    "areas in the training images; over-fitting: IoU on the training images minus that on the test images; jumps: "
    "standard deviation of the change of the validation IoU from epoch to epoch in the second half; ms: median time of "
    "20 forward passes of one image, after 3 to warm up"
)


def main(folder: Path) -> dict[str, Any]:
    """Twelve variants of lesson 06's U-Net, each different in one thing, three seeds each.

    All have the same images in the same order and the same number of epochs.
    """
    root = lesson.data("dsb2018")
    parts = {part: nuclei(root, part) for part in ("train", "val", "test")}
    objects = {part: all_instances(parts[part]) for part in ("train", "test")}
    photos = {part: [parts[part][index] for index in range(len(parts[part]))] for part in ("train", "test")}
    small_area = int(np.quantile(np.concatenate([instances.areas for instances in objects["train"]]), 1 / 3))
    middle = lesson.pick([len(instances) for instances in objects["test"]], "median")[0]
    values: dict[str, dict[str, list[float]]] = {}
    pictures: dict[str, Any] = {}
    for name in VARIANTS:
        runs = [train(root, name, seed, folder / name) for seed in SEEDS]
        results = []
        for run in runs:
            model = run.model()
            guesses = [predict(model, image) for image, _, _ in photos["test"]]
            scores = score(guesses, photos["test"], objects["test"], small_area)
            seen = confusion([predict(model, image) for image, _, _ in photos["train"]], photos["train"])
            scores["over-fitting"] = seen.iou()[1].item() - scores["IoU"]
            val_iou = run.column("val_iou")
            scores["jumps"] = float(np.std(np.diff(val_iou[len(val_iou) // 2 :])))
            results.append(scores)
            pictures.setdefault(name, mask_to_rle(guesses[middle]))  # of the first seed
        values[name] = {measure: [scores[measure] for scores in results] for measure in results[0]}
        print(name, values[name]["IoU"], flush=True)
    for name, times in milliseconds().items():
        values[name]["ms"] = times
    return {
        "metric": METRIC,
        "split": "60 / 20 / 20 % of the groups; of training and validation images evenly spread over the list",
        "settings": SETTINGS
        | {"scheduler": "cosine", "seeds": SEEDS, "augmentation": AUGMENTATION, "edge": EDGE, "small_area": small_area},
        "data": root,
        "images": {part: len(data) for part, data in parts.items()},
        "values": values,
        "pictures": {"file": photos["test"][middle][2], "predictions": pictures},
    }


def nuclei(root: Path, part: str, size: int | None = None) -> Subset:
    """Return the images of a part, as lesson 06 reads them. None: at their own size."""
    to_size = resize(size, size) if size else None
    classes = ["background", "nucleus"]
    data = MaskFolderDataset(root / "images", root / "labels", classes, transform=to_size, instance_ids=True)
    parts = dict(zip(("train", "val", "test"), split_by_group(data, read_groups(root)), strict=True))
    available = len(parts[part])
    count = min(SETTINGS.get(f"{part}_images", available), available)
    return Subset(parts[part], np.linspace(0, available - 1, count).round().astype(int).tolist())


def new_model(name: str) -> nn.Module:
    """Return the network of a variant."""
    numbers = TUNED | VARIANTS[name]
    switches = {key: numbers[key] for key in ("classes", "depth", "bilinear", "skip")}
    return UNet(base_channels=SETTINGS["base_channels"], **switches)


def train(root: Path, name: str, seed: int, folder: Path) -> Run:
    """Train one run of a variant, or resume it."""
    numbers = TUNED | VARIANTS[name]
    config = TrainConfig(
        SETTINGS["epochs"],
        numbers["batch_size"],
        SETTINGS["lr"],
        weight_decay=numbers["weight_decay"],
        scheduler="cosine",
        seed=seed,
        previews=0,
        trackers=(),
    )
    parts = [nuclei(root, part, numbers["size"]) for part in ("train", "val")]
    augment = augmentation(**AUGMENTATION) if numbers["augment"] else None
    lesson.seed(seed)
    return fit(new_model(name), parts[0], parts[1], numbers["loss"], config, folder / f"seed_{seed}", augment)


def confusion(guesses: Iterable[np.ndarray], photos: Sequence[Sample]) -> ConfusionMatrix:
    """Return the confusion matrix of the predictions of all images."""
    matrix = ConfusionMatrix(2)
    for guess, (_, mask, _) in zip(guesses, photos, strict=True):
        matrix.update(guess, mask)
    return matrix


def score(
    guesses: Sequence[np.ndarray], photos: Sequence[Sample], objects: Sequence[Instances], small_area: int
) -> dict[str, float]:
    """Return the scores of the predictions of all images."""
    matrix = confusion(guesses, photos)
    masks = [mask for _, mask, _ in photos]
    return {
        "IoU": matrix.iou()[1].item(),
        "Dice": matrix.dice()[1].item(),
        "boundary IoU": boundary_iou(guesses, masks, ratio=EDGE)[1].item(),
        "small IoU": small_object_iou(guesses, objects, max_area=small_area)[1].item(),
    }


def milliseconds() -> dict[str, list[float]]:
    """Return the time of a forward pass of one image for each variant, once for each seed.

    The variants take turns, so that another program that slows the machine for a while does so for all of them.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = {name: new_model(name).to(device).eval() for name in VARIANTS}
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in SEEDS:
        for name, model in models.items():
            size = (TUNED | VARIANTS[name])["size"]
            image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
            passes = []
            with torch.no_grad():
                for _ in range(23):
                    started = time.perf_counter()
                    model(image).sum().item()  # waits for the GPU
                    passes.append(1000 * (time.perf_counter() - started))
            times[name].append(float(np.median(passes[3:])))
    return times
