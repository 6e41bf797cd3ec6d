"""The comparisons of lesson 03: the spread of its networks over seeds, and DeepLabV3 with cross-entropy alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Subset

from seglib import lesson
from seglib.config import Loss
from seglib.datasets import COCOSegmentationDataset, MaskFolderDataset, hold_out
from seglib.datasets.coco import write_masks
from seglib.losses import CEDiceLoss, CrossEntropyLoss
from seglib.models import SegNet, build_model
from seglib.runs import Run
from seglib.train import TrainConfig, fit, measure
from seglib.transforms import augmentation, resize

CATEGORIES = ["person", "cat", "sports ball", "book"]
CLASSES = 1 + len(CATEGORIES)
SEEDS = (0, 1)
# The numbers of the lesson's demo profile; only the epochs are fewer.
SETTINGS: dict[str, Any] = {
    "image_size": 128,
    "width": 0.25,
    "encoder": "resnet18",
    "rates": (2, 4, 6),
    "batch_size": 8,
    "lr": 1e-3,
    "alpha": 0.5,
}
EPOCHS = 6
AUGMENTATION: dict[str, Any] = {"horizontal_flip": 0.5, "rotate": 5, "brightness": 0.1, "contrast": 0.1, "noise": 0.02}
COLUMNS = ("epoch", "train_loss", "val_loss", "val_miou")


def main(folder: Path) -> dict[str, Any]:
    """SegNet and DeepLabV3 of lesson 03 with one loss, two seeds each; SegNet without skip connections; another loss.

    All runs are of equal length. DeepLabV3 with cross-entropy alone, its loss in the first experiment, has one seed.
    """
    root = lesson.data("coco_four")
    train_data, val_data = hold_out(four_categories(root, "train", folder), 1 / 6)
    test_data = four_categories(root, "val", folder)
    both = CEDiceLoss(SETTINGS["alpha"])
    variants: dict[str, tuple[Callable[[], nn.Module], Loss, Sequence[int]]] = {
        "SegNet": (segnet, both, SEEDS),
        "SegNet, no skip": (segnet_without_skip, both, SEEDS),
        "DeepLabV3": (deeplabv3, both, SEEDS),
        "DeepLabV3, cross-entropy alone": (deeplabv3, CrossEntropyLoss(), SEEDS[:1]),
    }
    values = {}
    for name, (build, loss, seeds) in variants.items():
        runs = [train(train_data, val_data, build, loss, seed, folder / name) for seed in seeds]
        matrices = [measure(run.model(), test_data).matrix for run in runs]
        values[name] = {
            "test_miou": [matrix.miou() for matrix in matrices],
            "test_iou": [matrix.iou().tolist() for matrix in matrices],
            "histories": [[{column: row[column] for column in COLUMNS} for row in run.history] for run in runs],
        }
        print(name, values[name]["test_miou"], flush=True)
    return {
        "metric": "mean IoU over background and four categories, all pixels of the test images that count, weights of "
        "the best validation epoch",
        "split": "test: the sample's validation part; validation: a sixth of its training part, by file name",
        "settings": SETTINGS | {"epochs": EPOCHS, "scheduler": "cosine", "seeds": SEEDS, "augmentation": AUGMENTATION},
        "data": root,
        "images": {"train": len(train_data), "val": len(val_data), "test": len(test_data)},
        "values": values,
    }


def segnet() -> nn.Module:
    """Return SegNet with skip connections."""
    return SegNet(CLASSES, width=SETTINGS["width"])


def segnet_without_skip() -> nn.Module:
    """Return SegNet as in the paper, with max-pooling indices only."""
    return SegNet(CLASSES, skip=False, width=SETTINGS["width"])


def deeplabv3() -> nn.Module:
    """Return DeepLabV3 with rates that fit its feature map."""
    options = {"encoder": SETTINGS["encoder"], "decoder_atrous_rates": SETTINGS["rates"]}
    return build_model("deeplabv3", CLASSES, **options)


def four_categories(root: Path, part: str, folder: Path) -> MaskFolderDataset:
    """Return the images of a part with masks of the four categories, as lesson 03 reads them."""
    images = root / "images" / part
    outlines = COCOSegmentationDataset(
        images, root / f"annotations/instances_{part}.json", CATEGORIES, overlap="smallest"
    )
    write_masks(outlines, folder / "masks" / part)
    to_size = resize(SETTINGS["image_size"], SETTINGS["image_size"])
    return MaskFolderDataset(images, folder / "masks" / part, outlines.classes, transform=to_size)


def train(
    train_data: Subset, val_data: Subset, build: Callable[[], nn.Module], loss: Loss, seed: int, folder: Path
) -> Run:
    """Train one run of the comparison, or resume it."""
    lesson.seed(seed)
    config = TrainConfig(
        EPOCHS, SETTINGS["batch_size"], SETTINGS["lr"], scheduler="cosine", seed=seed, trackers=(), previews=0
    )
    return fit(build(), train_data, val_data, loss, config, folder / f"seed_{seed}", augmentation(**AUGMENTATION))
