"""The comparisons of lesson 02: what each part of its stage B adds, and what a high learning rate does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from seglib import lesson
from seglib.datasets import COCOSegmentationDataset, MaskFolderDataset, hold_out
from seglib.datasets.coco import write_masks
from seglib.losses import BCEDiceLoss, BCELoss
from seglib.models import UNet
from seglib.runs import Run
from seglib.train import TrainConfig, fit, measure
from seglib.transforms import augmentation, resize

SEEDS = (0, 1, 2)
# The numbers of the lesson's demo profile; only the epochs are fewer.
SETTINGS: dict[str, Any] = {"image_size": 128, "base_channels": 16, "batch_size": 8, "lr": 2e-3, "weight_decay": 1e-5}
EPOCHS = 12
EPOCHS_B = 40  # of the lesson's stage B
COLUMNS = ("epoch", "train_loss", "val_loss", "val_iou")


def main(folder: Path) -> dict[str, Any]:
    """What loss and augmentation add to lesson 02's U-Net: runs of equal length, three seeds each.

    Each of the first five differs from the one that it is compared with in one thing. Two have a constant rate,
    that of the lesson and ten times as much, and one seed. The last is the lesson's stage B with two other seeds.
    """
    root = lesson.data("coco_four")
    train_data, val_data = hold_out(people(root, "train", folder), 1 / 6)
    test_data = people(root, "val", folder)
    gentle: dict[str, Any] = {"horizontal_flip": 0.5, "rotate": 15, "brightness": 0.2, "contrast": 0.2}
    variants: dict[str, tuple[Any, dict[str, Any], dict[str, Any], Sequence[int]]] = {
        "BCE": (BCELoss(), {}, {}, SEEDS),
        "BCE, augmented": (BCELoss(), gentle, {}, SEEDS),
        "BCE + Dice": (BCEDiceLoss(), {}, {}, SEEDS),
        "BCE + Dice, augmented": (BCEDiceLoss(), gentle, {}, SEEDS),
        "BCE + Dice, augmented, also upside down": (BCEDiceLoss(), gentle | {"vertical_flip": 0.5}, {}, SEEDS),
        "constant rate": (BCEDiceLoss(), {}, {"scheduler": None}, SEEDS[:1]),
        "ten times the rate": (BCEDiceLoss(), {}, {"scheduler": None, "lr": 10 * SETTINGS["lr"]}, SEEDS[:1]),
        "stage B": (BCEDiceLoss(), gentle, {"epochs": EPOCHS_B}, SEEDS[1:]),  # the lesson itself trains the first seed
    }
    values = {}
    for name, (loss, changes, options, seeds) in variants.items():
        runs = [train(train_data, val_data, loss, changes, options, seed, folder / name) for seed in seeds]
        tested = [measure(run.model(), test_data).matrix.iou()[1].item() for run in runs]
        histories = [[{column: row[column] for column in COLUMNS} for row in run.history] for run in runs]
        values[name] = {"test_iou": tested, "histories": histories}
        print(name, tested, flush=True)
    return {
        "metric": "IoU of class person over all pixels of the test images, weights of the best validation epoch",
        "split": "test: the sample's validation part; validation: a sixth of its training part, by file name",
        "settings": SETTINGS
        | {"epochs": EPOCHS, "epochs_b": EPOCHS_B, "scheduler": "cosine", "seeds": SEEDS, "augmentation": gentle},
        "data": root,
        "images": {"train": len(train_data), "val": len(val_data), "test": len(test_data)},
        "values": values,
    }


def people(root: Path, part: str, folder: Path) -> MaskFolderDataset:
    """Return the images of a part with binary masks of people, as lesson 02 reads them."""
    images = root / "images" / part
    outlines = COCOSegmentationDataset(
        images, root / f"annotations/instances_{part}.json", ["person"], mode="binary", overlap="smallest"
    )
    write_masks(outlines, folder / "masks" / part)
    to_size = resize(SETTINGS["image_size"], SETTINGS["image_size"])
    return MaskFolderDataset(images, folder / "masks" / part, outlines.classes, transform=to_size)


def train(
    train_data: Subset,
    val_data: Subset,
    loss: Any,
    changes: dict[str, Any],
    options: dict[str, Any],
    seed: int,
    folder: Path,
) -> Run:
    """Train one run of the comparison, or resume it."""
    lesson.seed(seed)
    model = UNet(base_channels=SETTINGS["base_channels"])
    numbers = {name: SETTINGS[name] for name in ("batch_size", "lr", "weight_decay")}
    numbers |= {"epochs": EPOCHS, "scheduler": "cosine", **options}
    config = TrainConfig(**numbers, seed=seed, trackers=(), previews=0)
    augment = augmentation(**changes) if changes else None
    return fit(model, train_data, val_data, loss, config, folder / f"seed_{seed}", augment)
